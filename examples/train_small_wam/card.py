"""Writes the model card from what was measured; run again it gives the same text."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from safetensors import safe_open

from .model import DIT
from .windows import STRIDES

BASELINES = {"blind": "without the colour", "random": "random", "expert": "expert"}
VIDEO_COLUMNS = (
    "latent_mse",
    "latent_mse_copy_last",
    "moving_psnr_db",
    "moving_psnr_copy_last_db",
    "moving_psnr_codec_db",
)
TASK_TEXT = {
    "touch": "touch the named block first",
    "moving": "the same while all blocks glide at 4-6 cm/s",
    "push": "push the named block over the line on the named side",
}


def write(checkpoint: Path, out: Path) -> None:
    """Writes `model_card.json` and `model_card.md` into `checkpoint` from the figures in `out`."""
    facts = collect(checkpoint, out)
    (checkpoint / "model_card.json").write_text(json.dumps(facts, indent=1) + "\n")
    (checkpoint / "model_card.md").write_text(markdown(facts))


def collect(checkpoint: Path, out: Path) -> dict:
    def read(name: str, otherwise=None):
        path = out / name
        return json.loads(path.read_text()) if path.exists() else otherwise

    parts = {"transformer": 0, "text encoder": 0, "codec": 0}
    prefixes = {"model": "transformer", "text_encoder": "text encoder", "vae": "codec"}
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            parts[prefixes[name.split(".")[1]]] += tensor.numel()
            dtype = str(tensor.dtype).removeprefix("torch.")
    return {
        "name": "tabletop",
        "family": "dreamzero ti2v",
        "parameters": parts,
        "dtype": dtype,
        "sha256": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "file_mb": round((checkpoint / "model.safetensors").stat().st_size / 1e6, 1),
        "transformer": {k: DIT[k] for k in ("dim", "num_heads", "num_layers", "ffn_dim", "frame_seqlen", "in_dim")},
        "codec": read("codec.json"),
        "training": read("training.json"),
        "evaluation": read("evaluation.json"),
        "runtime": _runtime(read("runtime/run.json")),
    }


def _runtime(report: dict | None) -> dict | None:
    """Of a report of `wamcore run`: how chunks were executed, on what, and how the tasks ended."""
    if report is None:
        return None
    machine = {k: report["timing"]["machine"][k] for k in ("wamcore", "commit", "cpu")}
    return {"loop": report["loop"], "tasks": report["tasks"], "machine": machine}


def markdown(facts: dict) -> str:
    parts, e = facts["parameters"], facts["evaluation"]
    shape = facts["transformer"]
    lines = [
        "# tabletop: the bundled world action model",
        "",
        "A small model of the DreamZero family, trained from scratch in simulation, so that `wamcore` can be tried, "
        "tested and measured without a download. It steers a 4-joint arm in `wamcore.sim.Tabletop` from one 96x64 "
        "camera, the joint angles and an instruction, and predicts the pictures that it expects to see.",
        "",
        "It is not meant for real robots: it knows one scene, one arm, four colours and some twenty words.",
        "",
        "## The model",
        "",
        f"* transformer: {shape['num_layers']} layers, width {shape['dim']}, {shape['num_heads']} heads, feed-forward "
        f"{shape['ffn_dim']}; {parts['transformer'] / 1e6:.2f} M parameters",
        f"* text: 2-layer umT5-form encoder over words, trained along; {parts['text encoder'] / 1e6:.2f} M parameters",
        f"* codec: causal VAE in the form of Wan 2.2, 64x96 pixels to 4x6x{shape['in_dim']} latents, "
        f"{shape['frame_seqlen']} tokens a frame; {parts['codec'] / 1e6:.2f} M parameters. Of every 3-tap "
        "convolution in time only the present tap is used, the others are exactly zero: each frame is coded alone.",
        f"* stored as {facts['dtype']}, {facts['file_mb']} MB; all figures below are of these stored weights",
        f"* SHA-256 of `model.safetensors`: `{facts['sha256']}`",
        "* a block is 0.8 s: 2 latent frames (after 8 and 16 ticks of 50 ms), 16 joint targets, 1 state",
        "",
        "Words are lower-cased, split at white space and looked up in `tokenizer.json`; an end mark follows, then "
        "padding.",
        "",
    ]
    if e:
        lines += _results(e)
    if facts["runtime"]:
        lines += _runtime_lines(facts["runtime"])
    if e:
        lines += _video(e)
    if facts["codec"]:
        lines += _codec(facts["codec"])
    if facts["training"]:
        lines += ["## Training", ""] + [f"* {k}: {v}" for k, v in facts["training"].items()]
        lines += [
            f"* windows of 4 blocks look back with a stride of {', '.join(map(str, STRIDES))} ticks, since a runtime "
            "may replan before a chunk has ended",
            "* `python -m examples.train_small_wam --out DIR` trains such a model",
            "",
        ]
    lines += ["This page is written by `examples/train_small_wam/card.py`.", ""]
    return "\n".join(lines)


def _percent(entry: dict) -> str:
    low, high = entry["interval"]
    return f"{entry['success']:.1%} ({low:.0%}-{high:.0%})"


def _results(e: dict) -> list[str]:
    steps = list(next(iter(e["tasks"].values()))["steps"])
    count = next(iter(e["tasks"].values()))["steps"][steps[0]]["episodes"]
    lines = [
        "## Results",
        "",
        f"The PyTorch reference in closed loop, {count} episodes a task that were not trained on (seeds "
        f"{e['seeds'][0]} to {e['seeds'][1]}), whole chunks while the world waits, {e['solver']} solver with shift "
        f"{e['sigma_shift']}; success with the Wilson 95 % interval, by number of flow steps.",
        "",
        "| " + " | ".join(["task", *(f"{n} step{'s' * (n != '1')}" for n in steps), *BASELINES.values()]) + " |",
        "|---" * (len(steps) + 4) + "|",
    ]
    for name, task in e["tasks"].items():
        cells = [_percent(task["steps"][n]) for n in steps]
        cells += [_percent(task[k]) if k in task else "-" for k in BASELINES]
        lines.append(f"| {name}: {TASK_TEXT[name]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _runtime_lines(runtime: dict) -> list[str]:
    loop = runtime["loop"]
    lines = [
        f"The C++ runtime as it ships, safety filter included: mode {loop['mode']}, a new chunk every "
        f"{loop['execute_ticks']} ticks, each {loop['delay_ticks']} tick late (virtual time, wamcore "
        f"{runtime['machine']['wamcore']}). A task's episodes start from seed 0, pushing from 1000, moving from 2000.",
        "",
        "| task | success | wrong | timeout | stopped | median time |",
        "|---|---|---|---|---|---|",
    ]
    for name, t in runtime["tasks"].items():
        low, high = t["interval_95"]
        rate = f"{t['success']}/{t['episodes']} ({low:.0%}-{high:.0%})"
        lines.append(f"| {name} | {rate} | {t['wrong']} | {t['timeout']} | {t['stopped']} | {t['median_s']} s |")
    return [*lines, ""]


def _video(e: dict) -> list[str]:
    lines = [
        "Predicted video of the block ahead, against repeating the last picture and what the codec can show at best:",
        "",
        "| task, steps | latent error | repeat last | moving pixels, dB | repeat last | codec |",
        "|---|---|---|---|---|---|",
    ]
    for name, task in e["tasks"].items():
        for n, v in task["video"].items():
            lines.append(f"| {name}, {n} | " + " | ".join(str(v[c]) for c in VIDEO_COLUMNS) + " |")
    lines += [
        "",
        "![Predicted above actual, the first column is the picture the episode starts from](prediction.png)",
        "",
        "Two worlds of each task, predicted above actual, at 4 steps. Poses of the arm match; where more than one "
        "motion is likely the prediction can show two half arms, and a block that is pushed blurs into the finger.",
        "",
        "One step gives the mean of what may come, more steps a sharper sample of it: they need not lower the error.",
        "",
    ]
    return lines


def _codec(codec: dict) -> list[str]:
    lines = ["## Codec", "", f"Reconstruction {codec['psnr_db']} dB. Blocks that come back in their colour:", ""]
    lines += ["| colour | seen | overlap | blocks |", "|---|---|---|---|"]
    for name, c in codec["colours"].items():
        lines.append(f"| {name} | {c['seen']:.1%} | {c['overlap']:.1%} | {c['blocks']} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("figures", type=Path, help="folder with evaluation.json, codec.json and training.json")
    args = parser.parse_args()
    write(args.checkpoint, args.figures)


if __name__ == "__main__":
    main()
