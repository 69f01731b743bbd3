"""Measures an exported checkpoint in closed loop and writes `evaluation.json` beside the training files."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from wamcore.cli.tables import wilson
from wamcore.reference.checkpoint import load_checkpoint
from wamcore.sim import TASKS

from .progress import Progress
from .rollout import Outcome, Policy, Sampler, baseline, run
from .windows import Statistics

STEPS = (1, 2, 4, 8)
SEEDS = range(200)  # training uses seeds from 1 000 000


def load_policy(directory: Path) -> Policy:
    """The policy of an exported checkpoint: its own weights, as rounded, and its own statistics."""
    head = load_checkpoint(directory)
    embodiment = json.loads((directory / "embodiment.json").read_text())
    state, action = (embodiment[k][0]["statistics"] for k in ("state", "action"))
    numbers = (state["q01"], state["q99"], action["q01"], action["q99"])
    return Policy(head.dit, head.t5, head.vae, Statistics(*(np.array(v) for v in numbers)))


def sampler_of(directory: Path, **changes) -> Sampler:
    """The sampler that the checkpoint's config names."""
    cfg = json.loads((directory / "config.json").read_text())["action_head_cfg"]["config"]
    chosen = {"steps": cfg["num_inference_steps"], "solver": cfg["solver"], "shift": cfg["sigma_shift"]}
    return Sampler(**{**chosen, **changes})


def rates(out: Outcome) -> dict:
    n, s = len(out.success), sum(out.success)
    ticks = [t for t, ok in zip(out.ticks, out.success, strict=True) if ok]
    return {
        "success": round(s / n, 4),
        "interval": [round(v, 3) for v in wilson(s, n)],
        "episodes": n,
        "wrong": round(sum(out.wrong) / n, 4),
        "median_s": round(float(np.median(ticks)) * 0.05, 2) if ticks else None,
    }


def decibels(squares: list[float]) -> float:
    """PSNR of values in -1..1."""
    return round(float(-10 * np.log10(np.mean(squares) / 4)), 2)


def video(out: Outcome) -> dict:
    e = out.errors
    return {
        "latent_mse": round(float(np.mean(e["latent"])), 4),
        "latent_mse_copy_last": round(float(np.mean(e["latent_copy"])), 4),
        "moving_psnr_db": decibels(e["moving_model"]),
        "moving_psnr_copy_last_db": decibels(e["moving_copy"]),
        "moving_psnr_codec_db": decibels(e["moving_codec"]),
    }


def evaluate(directory: Path, seeds: range = SEEDS, steps=STEPS, baselines: bool = True, tasks=TASKS) -> dict:
    """Success by task and number of flow steps, baselines, and how well the predicted video holds."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    policy, began = load_policy(directory), time.process_time()
    chosen = sampler_of(directory)
    result: dict = {"seeds": [seeds[0], seeds[-1]], "solver": chosen.solver, "sigma_shift": chosen.shift, "tasks": {}}
    bar = Progress("evaluate", len(tasks) * (len(steps) + 3 * baselines))
    for task in tasks:
        entry: dict = {"steps": {}, "video": {}}
        for n in steps:
            out = run(policy, task, seeds, sampler_of(directory, steps=n))
            entry["steps"][str(n)], entry["video"][str(n)] = rates(out), video(out)
            bar.advance(note=f"{task} {n} steps: {entry['steps'][str(n)]['success']:.0%}")
        if baselines:
            entry["blind"] = rates(run(policy, task, seeds, chosen, blind=True))
            bar.advance(note=f"{task} blind: {entry['blind']['success']:.0%}")
            for kind in ("random", "expert"):
                entry[kind] = rates(baseline(task, seeds, kind))
                bar.advance(note=f"{task} {kind}: {entry[kind]['success']:.0%}")
        result["tasks"][task] = entry
    result["cpu_s"] = round(time.process_time() - began)
    return result


def strip(directory: Path, path: Path, each: int = 2) -> None:
    """A picture: pairs of rows, predicted above actual, the first column the picture the episode starts from."""
    from PIL import Image, ImageDraw

    policy, rows, labels = load_policy(directory), [], []
    width, top = 96 * 9, 12  # the first window: one picture and four blocks of two; room for a line of text
    for number, task in enumerate(TASKS):
        seeds = range(number * each, (number + 1) * each)
        strips = run(policy, task, seeds, sampler_of(directory), strips=each).strip
        for seed, pair in zip(seeds, strips, strict=True):
            pair = pair[:, :, :width]
            pair = np.pad(pair, ((0, 0), (0, 2), (0, width - pair.shape[2]), (0, 0)), constant_values=255)
            rows.append(np.pad(np.concatenate(list(pair)), ((top, 0), (0, 0), (0, 0)), constant_values=255))
            labels.append(f"{task}, seed {seed}: predicted, below it what came")
    image = Image.fromarray(np.concatenate(rows).repeat(2, 0).repeat(2, 1))
    draw = ImageDraw.Draw(image)
    for i, label in enumerate(labels):
        draw.text((4, 2 * i * rows[0].shape[0] + 6), label, fill=(0, 0, 0))
    image.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=len(SEEDS))
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--strip", type=Path, help="also write a predicted-versus-actual PNG")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    result = evaluate(args.checkpoint, range(args.episodes), args.steps, not args.no_baselines, args.tasks)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    if args.strip:
        strip(args.checkpoint, args.strip)


if __name__ == "__main__":
    main()
