"""`wamcore bench runtime`: what each way of executing chunks makes of inference delay, in virtual time."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._core import ActionChunk, ConfigError, JointLimits, ManualClock, MockHal, Policy, Session, VirtualRunner
from ..loading import find, load
from . import bench_toy, machine
from .bench_cells import BATCH, Sums, paired
from .tables import table

# "rtc_guided_all" is rtc_guided with all of the old chunk pulling (soft_ticks=-1).
MODES = ("sync", "async_switch", "blend", "rtc_guided", "rtc_guided_all", "rtc_trained", "temporal_ensemble")
SERVO_HZ = 200.0
DEFINITION = (
    "the bundled model's closed loop in virtual time, every mode and delay on the same worlds; a delay is injected "
    "in control ticks of every inference, and the world goes on meanwhile, in sync mode too: sync at delay 0 is a "
    "robot for which the world waits. seam: distance between the new chunk and the motion before where it takes "
    "over, largest joint; jump: what the command moves there beyond the reference's velocity, at servo rate; jerk: "
    "third difference of the commands at servo rate, in rad/s^3 and as a share of its limit; age: capture to "
    "command; starved: ticks that began without a target; late: chunks that came after the last row of the one before; "
    "limited: share of following servo cycles in which a safety stage changed the command; rows late: rows of a chunk "
    "that had passed when it took over, and of how many chunks; lost: success in points below sync at delay 0, "
    "on the same worlds, with its 95 % interval"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "bench runtime: success, seams, jerk and age by mode and injected delay"
    ).add_argument
    add("--seeds", type=int, default=50, metavar="N", help="episodes of each mode and delay (default: 50)")
    add("--first-seed", type=int, default=2000, metavar="S", help="of the worlds (default: 2000)")
    add("--delays", type=int, nargs="+", default=[0, 1, 2, 4, 8], metavar="D", help="control ticks (0 1 2 4 8)")
    add("--modes", nargs="+", choices=MODES, help="default: all that the checkpoint was trained for")
    add("--task", default="moving", choices=("touch", "push", "moving"), help="default: moving")
    add("--haste", type=float, default=1.0, metavar="X", help="moving blocks glide X times as fast (default: 1)")
    add("--execute", type=int, metavar="TICKS", help="control ticks between two inferences (default: half a chunk)")
    add("--resume", action="store_true", help="go on with what --out already holds of the same measurement")
    add("--checkpoint", default="tabletop", metavar="MODEL", help="model that is driven (default: tabletop)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for runtime.json and runtime.png (default: runs/<date and time>)",
    )


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.seeds <= 100_000:
        raise ConfigError(f"--seeds: wanted 1 to 100000, got {args.seeds}")
    if not 0 <= args.haste <= 10:
        raise ConfigError(f"--haste: wanted 0 to 10, got {args.haste}")
    if not all(0 <= d <= 100 for d in args.delays):
        raise ConfigError("--delays: wanted 0 to 100 control ticks")
    folder = args.out or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    same_measurement(args, folder / "settings.json")
    report = measure(args, folder)
    (folder / "runtime.json").write_text(json.dumps(report, indent=1) + "\n")
    print(tell(report))
    try:
        plot(report, folder / "runtime.png")
    except ImportError:
        print("\n  no picture: matplotlib is not installed")
    print(f"\nwrote {folder}/")
    return 0


def same_measurement(args: argparse.Namespace, path: Path) -> None:
    """Notes what is measured, or with --resume checks that it is what was measured before. Raises ConfigError."""
    settings = {name: getattr(args, name) for name in ("task", "haste", "execute", "steps", "first_seed")}
    settings["model"] = machine.sha256(find(args.checkpoint))
    if not args.resume:
        if path.exists():
            raise ConfigError(f"--out: {path.parent} holds a measurement; go on with it by --resume")
        path.write_text(json.dumps(settings) + "\n")
    elif not path.exists():
        raise ConfigError(f"--resume: {path.parent} holds no measurement")
    elif (before := json.loads(path.read_text())) != settings:
        raise ConfigError(f"--resume: {path.parent} was measured with {before}, now wanted {settings}")


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Runs the sweep batch by batch, every mode and delay on the same worlds, and returns plain data."""
    model = load(args.checkpoint, device=args.device, threads=args.threads)
    trained = Session(model).continuity() == "trained"
    modes = args.modes or [mode for mode in MODES if trained or mode != "rtc_trained"]
    kinds = [(mode, delay) for mode in modes for delay in args.delays]
    period, tick = 1 / SERVO_HZ, 1 / model.embodiment.control_hz
    for first in range(args.first_seed, args.first_seed + args.seeds, BATCH):
        seeds = range(first, min(first + BATCH, args.first_seed + args.seeds))
        for mode, delay in kinds:
            part = folder / f"{mode}-{delay}-{first:06d}.npz"
            if held(part) < len(seeds):
                sums = Sums(model.embodiment.limits, period, tick)
                episodes(model, args, mode, delay, seeds, sums)
                sums.save(part)
        print(f"  worlds {seeds[0]} to {seeds[-1]}", flush=True)
    cells, outcomes = [], {}
    for mode in MODES:
        for delay in sorted({int(p.stem.split("-")[1]) for p in folder.glob(f"{mode}-*.npz")}):
            sums = Sums(model.embodiment.limits, period, tick)
            for part in sorted(folder.glob(f"{mode}-{delay}-*.npz")):
                sums.load(part)
            cells.append({"mode": mode, "delay": delay, **sums.result()})
            outcomes[mode, delay] = sums.outcomes
    for cell in cells if ("sync", 0) in outcomes else ():
        cell["against_sync_0"] = paired(outcomes[cell["mode"], cell["delay"]], outcomes["sync", 0])
    return {
        "schema": 2,
        "definition": DEFINITION,
        "task": args.task,
        "haste": args.haste,
        "execute_ticks": args.execute or max(1, model.horizon // 2),
        "horizon_ticks": model.horizon,
        "tick_s": tick,
        "first_seed": args.first_seed,
        "model": {"path": args.checkpoint, "sha256": machine.sha256(find(args.checkpoint))},
        "cells": cells,
        "servo_32_joints_us": servo_cost(),
        "toy": bench_toy.sweep(),
        "machine": machine.describe(),
    }


def held(part: Path) -> int:
    """Episodes that a file of an earlier run holds."""
    if not part.exists():
        return 0
    with np.load(part) as f:
        return len(f["seeds"])


def episodes(model, args: argparse.Namespace, mode: str, delay: int, seeds: range, sums: Sums) -> None:
    """Runs the worlds of `seeds` in one mode and at one delay, and adds them up."""
    from . import closed_loop  # needs the simulator

    soft = {"soft": -1} if mode == "rtc_guided_all" else {}
    settings = closed_loop.Settings(
        mode=mode.removesuffix("_all"),
        servo_hz=SERVO_HZ,
        delay=delay,
        steps=args.steps,
        execute=args.execute,
        **soft,
    )
    loop = closed_loop.ClosedLoop(model, settings)
    loop.world.haste = args.haste
    try:
        for seed in seeds:
            episode = loop.run(closed_loop.Episode(args.task, seed, ""), lambda *_: None, "")
            sums.add(episode, loop.stats, loop.record)
    finally:
        loop.close()


@contextlib.contextmanager
def scheduled_first() -> Iterator[str]:
    """This thread under SCHED_FIFO, where that is permitted; says what it got."""
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        yield "other"
        return
    try:
        yield "fifo"
    finally:
        os.sched_setscheduler(0, *before)


class _Sway(Policy):
    """Slow sines for 32 joints: work for the servo, none for anybody else."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def infer(self, obs):
        self.calls += 1
        t = (obs.tick + np.arange(32)[:, None]) * 0.05
        q = 0.3 * (1 - np.cos(t * np.linspace(0.5, 1.5, 32)))
        return ActionChunk(q, 0.05, obs, sequence=self.calls)

    def dt(self):
        return 0.05

    def horizon(self):
        return 32

    def dof(self):
        return 32


def servo_cost(seconds: float = 20.0) -> dict:
    """Cost of a servo cycle with 32 joints, us, all but the driver: interpolation, filter, hand-off, record.

    The thread asks for SCHED_FIFO, as a robot's does; without it, what else the machine does is in the quantiles.
    """
    names, one = [f"j{i}" for i in range(32)], np.ones(32)
    clock = ManualClock(1)
    robot = MockHal(clock, joints=names)
    limits = JointLimits(names, -3 * one, 3 * one, 3 * one, 60 * one)
    with VirtualRunner(_Sway(), robot, limits, control_hz=500, clock=clock) as runner, scheduled_first() as scheduler:
        runner.run(seconds)
        cycle = runner.stats["cycle"]
    return {
        "scheduler": scheduler,
        "p50": cycle["p50"] * 1e6,
        "p99": cycle["p99"] * 1e6,
        "p999": cycle["p999"] * 1e6,
        "n": cycle["count"],
    }


HEAD = ("mode", "delay", "n", "success", "lost", "seam p50", "p99 rad", "p99 v*dt", "jump p99", "jerk max")
HEAD += ("age p50", "p99", "p99.9", "starved", "late", "limited", "rows late")


def row(c: dict) -> tuple:
    lost = c.get("against_sync_0")
    return (
        c["mode"],
        c["delay"],
        c["episodes"],
        f"{c['success'] / c['episodes']:.1%}",
        f"{-lost['points']:.1f} ±{lost['half_width_95']:.1f}" if lost else "",
        f"{c['seam_rad']['p50']:.4f}",
        f"{c['seam_rad']['p99']:.4f}",
        f"{c['seam_vmax_dt']['p99']:.2f}",
        f"{c['jump_rad']['p99']:.5f}",
        f"{c['jerk_share']['max']:.2f}",
        *(f"{c['obs_age_s'][q]:.2f} s" for q in ("p50", "p99", "p999")),
        c["starved_ticks"],
        c["late_chunks"],
        f"{c['limited']:.1%}",
        " ".join(f"{rows}:{n / max(1, sum(c['delay_rows'].values())):.0%}" for rows, n in c["delay_rows"].items()),
    )


def tell(report: dict) -> str:
    """The report for people."""
    servo, toy = report["servo_32_joints_us"], report["toy"]
    toy_rows = [
        (f"{t['steps']} steps, delay {t['delay']}", t["method"], f"{t['jump_p99']:.2f}", f"{t['flips']:.0%}")
        for t in toy
    ]
    return "\n".join(
        (
            "",
            f"task {report['task']}, worlds from {report['first_seed']} on, blocks {report['haste']:g} times as fast "
            f"as trained, a new chunk every {report['execute_ticks']} of {report['horizon_ticks']} ticks",
            "",
            table([row(c) for c in report["cells"]], HEAD),
            "",
            f"  servo cycle of 32 joints: {servo['p50']:.1f} us median, {servo['p999']:.1f} us at 99.9 % "
            f"({'SCHED_FIFO' if servo['scheduler'] == 'fifo' else 'no real-time scheduling'})",
            "",
            table(toy_rows, ("exact flow of two modes", "method", "jump p99", "mode flips")),
            "",
            f"  measured: {report['definition']}",
        )
    )


def plot(report: dict, path: Path) -> None:
    """Writes a PNG: success, seams, jerk, work of the limiter and age over the injected delay, a line for each mode."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    panels = (
        ("success", lambda c: c["success"] / c["episodes"]),
        ("seam p99 [rad]", lambda c: c["seam_rad"]["p99"]),
        ("jerk rms [rad/s³]", lambda c: c["jerk_rad_s3"]["rms"]),
        ("limited share of cycles", lambda c: c["limited"]),
        ("age p99 [s]", lambda c: c["obs_age_s"]["p99"]),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained")
    for axis, (title, value) in zip(axes, panels, strict=True):
        for mode in dict.fromkeys(c["mode"] for c in report["cells"]):
            mine = [c for c in report["cells"] if c["mode"] == mode]
            style = {"color": "black", "linestyle": "--"} if mode == "sync" else {}
            axis.plot([c["delay"] for c in mine], [value(c) for c in mine], marker="o", label=mode, **style)
        axis.set_xlabel("injected delay [control ticks]")
        axis.set_title(title)
        axis.grid(True, alpha=0.25)
    axes[0].set_ylim(0, 1.02)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
