"""Drives an SO-101 by way of LeRobot's own class for it and the safety filter.

    python -m venv so101 && so101/bin/pip install -r examples/so101/requirements.txt
    so101/bin/pip install --no-deps lerobot==0.4.4 && so101/bin/pip install .
    so101/bin/python examples/so101/drive.py                                # servos that are simulated, at a terminal
    so101/bin/python examples/so101/drive.py --port /dev/ttyACM0 --id my    # the arm, calibrated by LeRobot: IT MOVES

No trained policy for it is at hand: a script swings the joints about where they stand and opens and closes the gripper.
With simulated servos packets get lost on the way, then come policies that are broken on purpose, which must not move
the arm, and a cable that is pulled.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import wamcore as wam

try:
    import lerobot.processor  # noqa: F401
except ImportError:  # it wants torchvision, video codecs and more; the arm's class takes two types of it
    sys.modules["lerobot.processor"] = types.SimpleNamespace(RobotAction=dict, RobotObservation=dict)
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig
from servos import COUNTS, Servos
from wamcore.cli import machine
from wamcore.hal import LeRobot

TICK, HORIZON, SERVO_HZ = 0.05, 20, 50.0  # s, rows, Hz
REST = (0.0, -1.6, 1.5, 1.0, 0.0, 0.2)  # rad, folded
DEFINITION = (
    "real time, 50 servo cycles a second, 20 rows of 50 ms a chunk; LeRobot's SO101Follower speaks Feetech's protocol "
    "with six simulated servos, two of whose answers get lost while the script runs; worst: largest velocity, "
    "acceleration and jerk of any command as a share of its limit; moved: of the shafts, largest joint of the arm"
)


class Script(wam.Policy):
    """Sines about where it started, by absolute tick; `spoil` may break the rows."""

    def __init__(self, spoil: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None):
        super().__init__()
        self.spoil, self.home, self.sequence = spoil, None, 0

    def infer(self, obs):
        if self.home is None:
            self.home, self.first = obs.state.copy(), obs.tick
        t = TICK * (obs.tick - self.first + np.arange(HORIZON))[:, None]
        inwards = -np.sign(self.home) + (self.home == 0)
        q = self.home + 0.15 * inwards * (1 - np.cos(t * np.linspace(0.8, 1.6, len(self.home))))
        q[:, -1] = np.sin(1.5 * t[:, 0]) > 0  # 1 = open
        if self.spoil is not None:
            q = self.spoil(q, obs.state)
        self.sequence += 1
        return wam.ActionChunk(q, TICK, obs, sequence=self.sequence)

    def dt(self):
        return TICK

    def horizon(self):
        return HORIZON

    def dof(self):
        return len(REST)


BROKEN = {
    "zeros": lambda q, state: 0 * q,
    "relative targets": lambda q, state: q - state,
    "not a number": lambda q, state: np.where(np.arange(len(REST)) == 3, np.nan, q),
    "degrees": lambda q, state: np.rad2deg(q),
}


def simulated(profile: wam.RobotProfile, folder: Path) -> tuple[Servos, SO101FollowerConfig]:
    """Servos at rest, and the settings with which LeRobot finds them, their calibration included."""
    counts = COUNTS / (2 * math.pi)
    low, high = profile.limits.position_min * counts, profile.limits.position_max * counts
    middle = [COUNTS / 2] * 5 + [COUNTS / 2 - high[5] / 2]  # LeRobot counts the gripper from its closed end
    ranges = [(round(m + a), round(m + b)) for m, a, b in zip(middle, low, high, strict=True)]
    calibration = {
        name: {"id": i, "drive_mode": 0, "homing_offset": 0, "range_min": a, "range_max": b}
        for i, (name, (a, b)) in enumerate(zip(profile.limits.names, ranges, strict=True), 1)
    }
    (folder / "simulated.json").write_text(json.dumps(calibration))
    servos = Servos([m + q * counts for m, q in zip(middle, REST, strict=True)], ranges)
    return servos, SO101FollowerConfig(port=servos.port, id="simulated", calibration_dir=folder)


def drive(
    profile: wam.RobotProfile, config: SO101FollowerConfig, policy: Script, seconds: float, meanwhile=None
) -> dict:
    """One run; what it did, as plain data. meanwhile() is called half-way."""
    robot = SO101Follower(config)
    units = dict.fromkeys(profile.limits.names, math.pi / 180)  # its arm counts in degrees,
    units["gripper"] = profile.limits.position_max[5] / 100  # its gripper in percent
    driver, why = LeRobot(robot, units=units), ""
    options = profile.runner_options() | {"control_hz": SERVO_HZ, "record": 60.0, "mode": "blend"}
    runner = wam.Runner(profile.policy(policy), driver, profile.limits, **options)
    try:
        with runner:
            runner.wait(seconds / 2)
            if meanwhile:
                meanwhile()
            runner.wait(seconds / 2)
    except wam.RobotError as e:
        why = str(e).splitlines()[0]  # less where in LeRobot
    stats, record = runner.stats, runner.record()
    limits, command = profile.limits, record["command"]
    steps = [np.abs(np.diff(command, k, axis=0)) * SERVO_HZ**k for k in (1, 2, 3)]
    most = (limits.velocity, limits.acceleration, limits.jerk)
    return {
        "seconds": seconds,
        "commands": len(command),
        "chunks": stats["chunks"],
        "refused_chunks": stats["refused_chunks"],
        "starved_ticks": stats["starved_ticks"],
        "worst": {
            name: float((v / m).max(initial=0.0))
            for name, v, m in zip(("velocity", "acceleration", "jerk"), steps, most, strict=True)
        },
        "stopped": why,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", help="serial port of an arm; left out: simulated servos")
    parser.add_argument("--id", default="wamcore", help="under which LeRobot keeps the arm's calibration")
    parser.add_argument("--seconds", type=float, default=8.0, help="of motion (default: 8)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    profile = wam.read_robot(Path(__file__).parent / "robot.toml")
    if args.port:
        run = drive(profile, SO101FollowerConfig(port=args.port, id=args.id), Script(), args.seconds)
        print(json.dumps(run, indent=1))
        return 1 if run["stopped"] else 0
    with tempfile.TemporaryDirectory() as folder:
        return rehearse(profile, Path(folder), args)


def rehearse(profile: wam.RobotProfile, folder: Path, args: argparse.Namespace) -> int:
    """Everything with simulated servos; says whether all was as it should be."""
    counts = 2 * math.pi / COUNTS
    runs, good = {}, True
    cases = {"script": (Script(), args.seconds), **{name: (Script(spoil), 2.0) for name, spoil in BROKEN.items()}}
    for name, (policy, seconds) in {**cases, "cable pulled": (Script(), 2.0)}.items():
        servos, config = simulated(profile, folder)
        lose = {"script": 2, "cable pulled": 10**9}.get(name)
        before = np.array(servos.positions())
        run = runs[name] = drive(
            profile,
            config,
            policy,
            seconds,
            lambda: setattr(servos, "lose", lose) if lose else None,  # noqa: B023
        )
        run["moved_rad"] = float(np.abs(np.array(servos.positions()) - before)[:5].max()) * counts
        servos.close()
        broken = name in BROKEN
        fine = bool(run["stopped"]) == (name != "script") and (run["moved_rad"] < 0.01) == broken
        good &= fine and (not run["worst"] or max(run["worst"].values()) <= 1 + 1e-6)
        print(
            f"{name:<18} {run['chunks']:3d} chunks, moved {run['moved_rad']:.3f} rad; {run['stopped'] or 'went on'}",
            flush=True,
        )
    if args.out is not None:
        report = {"schema": 1, "definition": DEFINITION, "robot": {"lerobot": "0.4.4", "class": "SO101Follower"}}
        args.out.write_text(json.dumps({**report, "runs": runs, "machine": machine.describe()}, indent=1) + "\n")
    print("all as it should be" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
