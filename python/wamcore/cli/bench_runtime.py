"""`wamcore bench runtime`: what each way of executing chunks makes of inference delay, in virtual time."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from .._core import ActionChunk, ConfigError, JointLimits, ManualClock, MockHal, Policy, VirtualRunner
from ..loading import find, load
from . import bench_toy, machine
from .tables import table, wilson

MODES = ("sync", "async_switch", "blend", "rtc_guided", "temporal_ensemble")
DEFINITION = (
    "the bundled model's closed loop in virtual time, every mode and delay on the same worlds; a delay is injected in "
    "control ticks of every inference. seam: distance between the new chunk and the motion before where it takes over, "
    "largest joint; jump: what the command moves there beyond the reference's velocity, at servo rate; jerk: third "
    "difference of the commands at servo rate, as a share of its limit; age: capture to command; limited: share of "
    "following servo cycles in which a safety stage changed the command"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "bench runtime: success, seams, jerk and age by mode and injected delay"
    ).add_argument
    add("--seeds", type=int, default=50, metavar="N", help="episodes of each mode and delay (default: 50)")
    add("--first-seed", type=int, default=2000, metavar="S", help="of the worlds (default: 2000)")
    add("--delays", type=int, nargs="+", default=[0, 1, 2, 4, 8], metavar="D", help="control ticks (0 1 2 4 8)")
    add("--modes", nargs="+", default=list(MODES), choices=MODES, help="default: all")
    add("--task", default="moving", choices=("touch", "push", "moving"), help="default: moving")
    add("--haste", type=float, default=1.0, metavar="X", help="moving blocks glide X times as fast (default: 1)")
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
    report = measure(args)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runtime.json").write_text(json.dumps(report, indent=1) + "\n")
    print(tell(report))
    try:
        plot(report, folder / "runtime.png")
    except ImportError:
        print("\n  no picture: matplotlib is not installed")
    print(f"\nwrote {folder}/")
    return 0


def measure(args: argparse.Namespace) -> dict:
    """Runs the sweep and returns plain data."""
    from .closed_loop import ClosedLoop, Episode, Settings

    model = load(args.checkpoint, device=args.device, threads=args.threads)
    cells = []
    for mode in args.modes:
        for delay in [0] if mode == "sync" else args.delays:
            loop = ClosedLoop(model, Settings(mode=mode, delay=delay, steps=args.steps))
            loop.world.haste = args.haste
            sums = Sums(model.embodiment.limits, 1 / loop.settings.servo_hz, loop.tick)
            try:
                for seed in range(args.first_seed, args.first_seed + args.seeds):
                    episode = loop.run(Episode(args.task, seed, ""), lambda *_: None, "")
                    sums.add(episode, loop.stats, loop.record)
            finally:
                loop.close()
            cells.append({"mode": mode, "delay": delay, **sums.result()})
            print(line(cells[-1]), flush=True)
    return {
        "schema": 1,
        "definition": DEFINITION,
        "task": args.task,
        "haste": args.haste,
        "seeds": [args.first_seed, args.first_seed + args.seeds - 1],
        "model": {"path": args.checkpoint, "sha256": machine.sha256(find(args.checkpoint))},
        "cells": cells,
        "servo_32_joints_us": servo_cost(),
        "toy": bench_toy.sweep(),
        "machine": machine.describe(),
    }


class Sums:
    """Adds up the episodes of one mode and delay.

    Args:
        limits: JointLimits of the arm.
        period: s of a servo cycle.
        tick: s of a control tick.
    """

    def __init__(self, limits: JointLimits, period: float, tick: float):
        self.limits, self.period, self.tick = limits, period, tick
        self.outcomes: list[str] = []
        self.seams: list[np.ndarray] = []  # [n] rad, largest joint
        self.jumps: list[np.ndarray] = []  # [n, dof] rad
        self.jerk: list[np.ndarray] = []  # [n] share of the limit
        self.age: list[np.ndarray] = []  # [n] s
        self.delays: dict[int, int] = {}
        self.count = dict.fromkeys(("ticks", "starved_ticks", "late_chunks", "refused_chunks", "chunks"), 0)
        self.limited = self.following = 0

    def add(self, episode, stats: dict, record: dict[str, np.ndarray]) -> None:
        self.outcomes.append(episode.outcome)
        for key in self.count:
            self.count[key] += stats[key]
        for rows, n in stats["delay_ticks"].items():
            self.delays[rows] = self.delays.get(rows, 0) + n
        command, reference, chunk = record["command"], record["reference"], record["chunk"]
        seams = np.flatnonzero((chunk[1:] != chunk[:-1]) & (chunk[1:] >= 0) & (chunk[:-1] >= 0)) + 1
        seams = seams[seams + 1 < len(chunk)]
        speed = np.abs(reference[seams + 1] - reference[seams])
        jump = np.abs(command[seams] - command[seams - 1]) - speed
        self.jumps.append(np.where(np.isfinite(jump), jump, 0.0).clip(0))
        self.seams.append(record["seam"][seams])
        jerk = np.abs(np.diff(command, 3, axis=0)) / self.period**3 / self.limits.jerk
        self.jerk.append(jerk.max(1) if len(jerk) else np.zeros(0))
        following = record["phase"] == 1
        self.following += int(following.sum())
        self.limited += int((following & (record["reason"] != 0)).sum())
        self.age.append(record["obs_age"][following])

    def result(self) -> dict:
        n, good = len(self.outcomes), self.outcomes.count("success")
        low, high = wilson(good, n)
        per_tick = float(self.limits.velocity.max()) * self.tick
        seam, jump, jerk, age = (np.concatenate(x) for x in (self.seams, self.jumps, self.jerk, self.age))
        at = lambda a, q: float(np.quantile(a, q)) if a.size else 0.0  # noqa: E731
        return {
            "episodes": n,
            "success": good,
            "interval_95": [round(low, 4), round(high, 4)],
            "outcomes": self.outcomes,
            "seam_rad": {"p50": at(seam, 0.5), "p99": at(seam, 0.99), "max": at(seam, 1)},
            "seam_vmax_dt": {"p50": at(seam, 0.5) / per_tick, "p99": at(seam, 0.99) / per_tick},
            "jump_rad": {"p50": at(jump.max(1, initial=0), 0.5), "p99": at(jump.max(1, initial=0), 0.99)},
            "jerk_share": {"p50": at(jerk, 0.5), "p99": at(jerk, 0.99), "max": at(jerk, 1)},
            "obs_age_s": {"p50": at(age, 0.5), "p99": at(age, 0.99), "p999": at(age, 0.999)},
            "delay_rows": {str(k): v for k, v in sorted(self.delays.items())},
            "limited": self.limited / max(1, self.following),
            **self.count,
        }


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
    """CPU cost of a servo cycle with 32 joints, us, all but the driver: interpolation, filter, hand-off, record."""
    names, one = [f"j{i}" for i in range(32)], np.ones(32)
    clock = ManualClock(1)
    robot = MockHal(clock, joints=names)
    limits = JointLimits(names, -3 * one, 3 * one, 3 * one, 60 * one)
    with VirtualRunner(_Sway(), robot, limits, control_hz=500, clock=clock) as runner:
        runner.run(seconds)
        cycle = runner.stats["cycle"]
    return {"p50": cycle["p50"] * 1e6, "p99": cycle["p99"] * 1e6, "p999": cycle["p999"] * 1e6, "n": cycle["count"]}


HEAD = (
    "mode",
    "delay",
    "success",
    "95 %",
    "seam p50",
    "p99 rad",
    "p99 v*dt",
    "jump p99",
    "jerk max",
    "age p50",
    "p99.9",
)
HEAD += ("starved", "limited")


def row(c: dict) -> tuple:
    low, high = c["interval_95"]
    return (
        c["mode"],
        c["delay"],
        f"{c['success'] / c['episodes']:.1%}",
        f"{low:.0%}-{high:.0%}",
        f"{c['seam_rad']['p50']:.4f}",
        f"{c['seam_rad']['p99']:.4f}",
        f"{c['seam_vmax_dt']['p99']:.2f}",
        f"{c['jump_rad']['p99']:.5f}",
        f"{c['jerk_share']['max']:.2f}",
        f"{c['obs_age_s']['p50']:.2f} s",
        f"{c['obs_age_s']['p999']:.2f} s",
        c["starved_ticks"],
        f"{c['limited']:.1%}",
    )


def line(c: dict) -> str:
    return (
        f"  {c['mode']:<18} delay {c['delay']}  success {c['success']}/{c['episodes']}  "
        f"seam p99 {c['seam_rad']['p99']:.4f} rad"
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
            f"task {report['task']}, worlds {report['seeds'][0]} to {report['seeds'][1]}, "
            f"blocks {report['haste']:g} times as fast as trained",
            "",
            table([row(c) for c in report["cells"]], HEAD),
            "",
            f"  servo cycle of 32 joints: {servo['p50']:.1f} us median, {servo['p999']:.1f} us at 99.9 %",
            "",
            table(toy_rows, ("exact flow of two modes", "method", "jump p99", "mode flips")),
            "",
            f"  measured: {report['definition']}",
        )
    )


def plot(report: dict, path: Path) -> None:
    """Writes a PNG: success, seams and jerk over the injected delay, a line for each mode."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    panels = (
        ("success", lambda c: c["success"] / c["episodes"]),
        ("seam p99 [rad]", lambda c: c["seam_rad"]["p99"]),
        ("limited share of cycles", lambda c: c["limited"]),
        ("age p99 [s]", lambda c: c["obs_age_s"]["p99"]),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained")
    delays = sorted({c["delay"] for c in report["cells"]})
    for axis, (title, value) in zip(axes, panels, strict=True):
        for mode in dict.fromkeys(c["mode"] for c in report["cells"]):
            mine = [c for c in report["cells"] if c["mode"] == mode]
            if mode == "sync":
                axis.plot(delays, [value(mine[0])] * len(delays), "k--", linewidth=1, label="sync (waits)")
            else:
                axis.plot([c["delay"] for c in mine], [value(c) for c in mine], marker="o", label=mode)
        axis.set_xlabel("injected delay [control ticks]")
        axis.set_title(title)
        axis.grid(True, alpha=0.25)
    axes[0].set_ylim(0, 1.02)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
