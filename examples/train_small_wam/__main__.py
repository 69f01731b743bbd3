"""One command: demonstrations, codec, latents, world action model, export, evaluation, card; it resumes."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import card, codec, data, evaluate, train, warmup
from .export import export
from .windows import Episodes


@dataclass
class Preset:
    shards: int  # of 300 episodes
    codec_iterations: int
    decoder_iterations: int
    warm_up_iterations: int
    plan: train.Plan
    episodes: int = 200  # to evaluate, a task
    least_seen: float = 0.9  # what the codec's gate asks for


PRESETS = {
    "cpu": Preset(30, 700, 300, 400, train.Plan(iterations=6000, compile=True)),
    "gpu": Preset(60, 4000, 1000, 400, train.Plan(iterations=30_000, windows=128, compile=True, device="cuda")),
    # a few minutes through every stage; the result knows nothing
    "smoke": Preset(1, 4, 2, 4, train.Plan(iterations=4, windows=8), episodes=2, least_seen=0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.train_small_wam", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, weights and the checkpoint")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes for data and CPU training")
    parser.add_argument("--iterations", type=int, help="of the world action model, in place of the preset's")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    preset, out = PRESETS[args.preset], args.out
    if args.iterations:
        preset.plan.iterations = args.iterations
    device = preset.plan.device
    trainers = 1 if device == "cuda" else min(args.workers, 4)
    folder, checkpoint = out / "data", out / "checkpoint"
    seconds = json.loads((out / "seconds.json").read_text()) if (out / "seconds.json").exists() else {}

    def stage(name: str, work, *arguments) -> None:
        began = time.time()
        work(*arguments)
        seconds[name] = round(seconds.get(name, 0) + time.time() - began)
        (out / "seconds.json").write_text(json.dumps(seconds))

    out.mkdir(parents=True, exist_ok=True)
    stage("data", data.generate, folder, preset.shards, args.workers)
    stage("codec", codec.train, folder, out / "codec_wide.pt", preset.codec_iterations, trainers, device)
    if not (out / "codec.pt").exists():
        sample = codec.Frames(folder).sample(np.random.default_rng(2), 768)
        codec.reduce(out / "codec_wide.pt", out / "codec.pt", sample)
    vae = codec.load(out / "codec.pt")
    images = codec.Frames(folder).sample(np.random.default_rng(4), 512)
    codec.gate(vae, images, out / "codec.json", preset.least_seen)
    stage("latents", codec.encode_all, folder, out / "codec.pt", args.workers)
    stage("warm up", warmup.warm_up, folder, out / "warm.pt", preset.warm_up_iterations, min(args.workers, 4))
    preset.plan.start_from = str(out / "warm.pt")
    stage("wam", train.train, folder, out / "wam.pt", preset.plan, trainers)
    refine = (folder, out / "codec.pt", out / "codec_refined.pt", preset.decoder_iterations, trainers, device)
    stage("decoder", codec.refine_decoder, *refine)
    vae = codec.load(out / "codec_refined.pt")
    codec.gate(vae, images, out / "codec.json", preset.least_seen)
    export(checkpoint, train.load(out / "wam.pt"), vae, Episodes(folder, latents=False).statistics())
    stage("evaluation", _evaluate, checkpoint, out / "evaluation.json", preset.episodes)
    if importlib.util.find_spec("wamcore._core"):  # wamcore as installed; a bare checkout has only the reference
        stage("runtime", _runtime, checkpoint, out / "runtime", preset.episodes)
    evaluate.strip(checkpoint, checkpoint / "prediction.png")
    (out / "training.json").write_text(json.dumps(_training(args.preset, preset, seconds), indent=1))
    card.write(checkpoint, out)


def _evaluate(checkpoint: Path, out: Path, episodes: int) -> None:
    out.write_text(json.dumps(evaluate.evaluate(checkpoint, range(episodes)), indent=1) + "\n")


def _runtime(checkpoint: Path, out: Path, episodes: int) -> None:
    """The closed loop once more, through the runtime that the checkpoint is for."""
    run = [sys.executable, "-m", "wamcore", "run", str(checkpoint), "--task", "all", "--episodes", str(episodes)]
    options = ["--delay", "1", "--threads", "1", "--headless", "--no-video", "--out", str(out)]
    subprocess.run([*run, *options], check=True)


def _training(name: str, preset: Preset, seconds: dict) -> dict:
    """What the card says about training."""
    return {
        "preset": name,
        "demonstrations": f"{preset.shards * data.SHARD} episodes",
        "codec": f"{preset.codec_iterations} iterations of {codec.BATCH} frames",
        "first phase": f"{preset.warm_up_iterations} iterations of {warmup.BATCH} samples",
        "joint flow": f"{preset.plan.iterations} iterations of {preset.plan.windows} windows of 4 chunks",
        "wall seconds": ", ".join(f"{k} {v}" for k, v in seconds.items()),
    }


if __name__ == "__main__":
    main()
