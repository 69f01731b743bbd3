"""`wamcore info`: what is in a checkpoint."""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

from .._core import Session, WeightStore
from ..loading import find, load
from ..robot import read_robot
from .drive import tell as tell_robot
from .machine import sha256
from .tables import table

SCHEDULE = (
    "num_inference_steps", "solver", "sigma_shift", "cfg_scale", "dit_step_mask", "dynamic_cache_schedule",
    "decouple_inference_noise", "video_inference_final_noise", "seed",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default="tabletop", help="a bundled model's name, a checkpoint folder or a robot.toml"
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--check-finite", action="store_true", help="read every weight and refuse NaN and infinity")
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def run(args: argparse.Namespace) -> int:
    if args.model.endswith(".toml"):
        print(tell_robot(read_robot(args.model)))
        return 0
    folder = find(args.model)
    facts = collect(folder, args.check_finite, args.tensors)
    print(json.dumps(facts, indent=1) if args.json else tell(facts))
    return 0


def collect(folder: Path, check_finite: bool, with_tensors: bool) -> dict:
    """Everything `info` says, as plain data. Loading the model is what checks the checkpoint."""
    model = load(folder, check_finite=check_finite)
    session = Session(model)
    store = WeightStore(str(folder))
    entries = [store.entry(name) for name in store.names()]
    parts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for e in entries:
        part = parts[_part(e.name)]
        part[0] += 1
        part[1] += math.prod(e.shape)
        part[2] += e.nbytes
    head = json.loads((folder / "config.json").read_text()).get("action_head_cfg", {}).get("config", {})
    robot = model.embodiment
    limits = robot.limits
    facts = {
        "folder": str(folder),
        "family": model.family,
        "parameters": model.parameters,
        "sha256": sha256(folder),
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()},
        "parts": {k: {"tensors": t, "parameters": n, "bytes": b} for k, (t, n, b) in sorted(parts.items())},
        "types": sorted({e.dtype for e in entries}),
        "embodiment": {
            "name": robot.name,
            "control_hz": robot.control_hz,
            "cameras": [{"name": n, "height": h, "width": w} for n, h, w in robot.cameras],
            "frame_offsets": list(robot.frame_offsets),
            "state_dim": robot.state_dim,
            "action_dim": robot.action_dim,
            "prompt_template": robot.prompt_template,
            "joints": [
                {"name": n, "position_min": low, "position_max": high, "velocity": v, "acceleration": a}
                for n, low, high, v, a in zip(
                    limits.names, limits.position_min, limits.position_max, limits.velocity, limits.acceleration,
                    strict=True,
                )
            ],
        },
        "chunk": {"rows": model.horizon, "dt_s": session.dt(), "latents": list(model.latent_shape)},
        "schedule": {k: head[k] for k in SCHEDULE if k in head},
    }  # fmt: skip
    if with_tensors:
        facts["tensors"] = [{"name": e.name, "dtype": e.dtype, "shape": list(e.shape)} for e in entries]
    return facts


def _part(name: str) -> str:
    """The part of the model a tensor belongs to: the names of all parts begin alike."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "action_head" else pieces[0]


def tell(facts: dict) -> str:
    """The facts for people."""
    robot, chunk = facts["embodiment"], facts["chunk"]
    lines = [
        f"{facts['folder']}",
        f"  family {facts['family']}, {facts['parameters']:,} parameters as {', '.join(facts['types'])}",
        f"  sha256 {facts['sha256']}",
        "",
        table([(n, f"{b:,}") for n, b in facts["files"].items()], ("file", "bytes")),
        "",
        table(
            [(k, p["tensors"], f"{p['parameters']:,}", f"{p['bytes']:,}") for k, p in facts["parts"].items()],
            ("part", "tensors", "parameters", "bytes"),
        ),
        "",
        f"  robot {robot['name']}: {robot['control_hz']:g} Hz; state of {robot['state_dim']}, "
        f"action of {robot['action_dim']}",
        f"  a chunk: {chunk['rows']} rows of {chunk['dt_s'] * 1e3:g} ms, and latents "
        f"{' x '.join(map(str, chunk['latents']))} (channels, frames, height, width)",
        f'  frames at ticks {robot["frame_offsets"]}; prompt "{robot["prompt_template"]}"',
        "",
        table(
            [(c["name"], c["height"], c["width"]) for c in robot["cameras"]],
            ("camera", "height, px", "width, px"),
        ),
        "",
        table(
            [
                (j["name"], *(f"{j[k]:g}" for k in ("position_min", "position_max", "velocity", "acceleration")))
                for j in robot["joints"]
            ],
            ("joint", "min, rad", "max, rad", "rad/s", "rad/s^2"),
        )
        if robot["joints"]
        else "  the checkpoint names no joints: give JointLimits before driving a robot",
        "",
        table([(k, _short(v)) for k, v in facts["schedule"].items()], ("schedule", "value"), (0, 1)),
    ]
    if "tensors" in facts:
        rows = [(t["name"], t["dtype"], "x".join(map(str, t["shape"])) or "-") for t in facts["tensors"]]
        lines += ["", table(rows, ("tensor", "type", "shape"), (0, 1, 2))]
    return "\n".join(lines)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
