"""`wamcore drive`: a model moves the robot of a robot.toml."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from .._core import CameraInfo, ConfigError, ManualClock, RobotError, Runner, Session, SystemClock, VirtualRunner
from ..loading import load
from ..robot import RobotProfile, read_robot
from .tables import table

ABOUT = """\
The file says what each joint may do, how the model's channels map to joints, where the arm may be, and which driver
moves it: docs/robot.md. With kind = "mock" nothing moves but numbers. Ctrl-C brakes to a stand."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = ABOUT, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("robot", type=Path, help="a robot.toml")
    add("model", nargs="?", default="tabletop", help="a bundled model or a checkpoint folder (default: tabletop)")
    add("--prompt", default="touch the red block", metavar="TEXT", help="what to do (default: touch the red block)")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long (default: 5)")
    add("--control-hz", type=float, default=200.0, metavar="HZ", help="rate of joint commands (default: 200)")
    add("--steps", type=int, metavar="K", help="flow steps of a chunk (default: as the checkpoint says)")
    add("--virtual", action="store_true", help="in virtual time, one control tick for each chunk: repeats to the bit")
    add(
        "--realtime",
        choices=("ignore", "prefer", "enforce"),
        help="SCHED_FIFO and locked memory for the thread that commands the joints: not asked for, taken where the "
        "system grants them (default), or nothing moves without",
    )
    add(
        "--cpu",
        type=int,
        default=-1,
        metavar="N",
        help="core of that thread, which --realtime binds it to (default: any)",
    )
    add(
        "--dump",
        default="runs/flight",
        metavar="DIR",
        help="folder for flight records, '' for none (default: runs/flight); see wamcore inspect",
    )


def run(args: argparse.Namespace) -> int:
    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise ConfigError(f"--seconds: wanted a positive number, got {args.seconds}")
    profile = read_robot(args.robot)
    if args.virtual and profile.driver.kind in ("library", "python"):
        raise ConfigError(f"--virtual: a driver of kind '{profile.driver.kind}' lives by the machine's clock")
    if args.virtual and (args.realtime or args.cpu >= 0):
        raise ConfigError("--virtual: no thread commands the joints, so --realtime and --cpu say nothing")
    if args.realtime == "ignore" and args.cpu >= 0:
        raise ConfigError("--cpu: with --realtime ignore no thread is bound to a core")
    print(tell(profile))
    model = load(args.model)
    session = Session(model, steps=args.steps)
    session.set_prompt(args.prompt)
    clock = ManualClock() if args.virtual else SystemClock()
    cameras = [CameraInfo(name, height, width) for name, height, width in model.embodiment.cameras]
    options = profile.runner_options() | {"control_hz": args.control_hz, "clock": clock, "dump": args.dump}
    options |= {"realtime": args.realtime or "prefer", "cpu": args.cpu}
    kind = VirtualRunner if args.virtual else Runner
    runner = kind(profile.policy(session), profile.open_driver(clock, cameras), profile.limits, **options)
    print(f"\n{args.model} on {model.device}, joint commands at {args.control_hz:g} Hz: {args.prompt}")
    why = ""
    try:
        runner.start()
        (runner.run if args.virtual else runner.wait)(args.seconds)
    except RobotError as e:
        why = str(e)
    finally:
        stats = runner.stats  # before the stop, which counts as one
        runner.stop()
    print(tell_run(stats, runner.record(), profile))
    for path in runner.stats["dumps"]:
        print(f"\nwrote the flight record {path}")
    if lost := runner.stats["dump_error"]:
        print(f"\nNO FLIGHT RECORD: {lost}")
    if why:
        print(f"\nstopped: {why}")
    return 1 if why else 0


def tell(p: RobotProfile) -> str:
    """The profile for people."""
    limits, stated = p.limits, p.description.joints
    units = {"hinge": "rad", "slide": "m"}
    rows = [
        (n, f"{low:+.3f} .. {high:+.3f}", f"{v:g}", f"{a:g}", f"{j:g}", units[stated[n].kind])
        for n, low, high, v, a, j in zip(
            limits.names,
            limits.position_min,
            limits.position_max,
            limits.velocity.round(3),
            limits.acceleration.round(3),
            limits.jerk.round(3),
            strict=True,
        )
    ]
    channels = ", ".join(limits.names[joint] for joint, _, _ in p.actions)
    grippers = ", ".join(limits.names[g["joint"]] for g in p.grippers) or "none"
    return "\n".join(
        (
            f"{p.name}: {p.description.path.name}, driver {p.driver.kind}",
            "",
            table(rows, ("joint", "position", "velocity /s", "acceleration /s^2", "jerk /s^3", "unit")),
            "",
            f"  the model's action channels: {channels}; grippers: {grippers}; workspace: "
            f"{'no' if p.workspace is None else 'yes'}",
        )
    )


def tell_run(stats: dict, record: dict[str, np.ndarray], p: RobotProfile) -> str:
    """What the run did, for people."""
    moved = np.ptp(record["command"], axis=0) if len(record["command"]) else np.zeros(p.limits.dof)
    counted = ", ".join(f"{k} {v}" for k, v in stats["safety"].items() if v) or "nothing"
    return "\n".join(
        (
            f"  {stats['seconds']:.1f} s, mode {stats['mode']}: {stats['chunks']} chunks, {stats['refused_chunks']} "
            f"refused, {stats['starved_ticks']} of {stats['ticks']} ticks without a fresh target",
            f"  moved {', '.join(f'{n} {m:.3f}' for n, m in zip(p.limits.names, moved, strict=True))}",
            f"  safety filter: {counted}; {stats['phase']}",
            f"  realtime: {stats['realtime']}",
            f"  watchdog: {stats['watchdog']}",
        )
    )
