"""Drives the two arms of gym-aloha, a robot that is not ours, by way of a driver in Python and the safety filter.

    python -m venv aloha && aloha/bin/pip install -r examples/aloha/requirements.txt && aloha/bin/pip install .
    aloha/bin/python examples/aloha/drive.py --out aloha.json

No trained policy for it is at hand: a script swings all joints and opens and closes the grippers. Every chunk of it
disagrees with the one before, as those of a model do, so that there are seams to smooth. Then come policies that are
broken on purpose, which must not move the arms.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported

import gym_aloha
import gymnasium
import mujoco
import numpy as np
import wamcore as wam
from gym_aloha.constants import ASSETS_DIR, DT, normalize_puppet_gripper_position, unnormalize_puppet_gripper_position
from wamcore.cli import machine

MJCF = "bimanual_viperx_transfer_cube.xml"
TICK, HORIZON = 0.04, 25  # s, rows
GRIPPERS = (6, 13)  # of 14 joints
BLEND = 5.0  # ticks over which a chunk takes over
DISAGREE = 0.02  # rad, standard deviation of one chunk against the next
DEFINITION = (
    "virtual time, 50 servo cycles a second (the environment's own), 25 rows of 40 ms a chunk, inference delays "
    "of 1, 3 and 2 ticks in turn, seams of 5 ticks; seam: distance of the new chunk from the motion before, "
    "largest joint; jump: what the command moves there beyond the reference's velocity; worst: largest "
    "position, velocity, acceleration and jerk of any command as a share of its limit; limited: share of "
    "following cycles in which a safety stage changed the command"
)


class Aloha(wam.Hal):
    """The environment behind the seven methods: one env.step for each period of its own control rate."""

    def __init__(self, profile: wam.RobotProfile, seed: int = 0):
        super().__init__()
        self.profile = profile
        self.env = gymnasium.make(
            "gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos", max_episode_steps=10**9
        )
        quality = self.env.unwrapped._env.physics.model.vis.quality
        quality.shadowsize = quality.offsamples = 0  # pictures by a software renderer take ten times as long with them
        self.seen, _ = self.env.reset(seed=seed)
        self.commands: list[np.ndarray] = []
        self.last_ns, self.active = 0, False

    def configure(self, config):
        height, width, _ = self.seen["pixels"]["top"].shape
        limits = self.profile.limits
        joints = zip(limits.names, limits.position_min, limits.position_max, strict=True)
        return wam.Description(
            [wam.JointInfo(n, low, high) for n, low, high in joints], [wam.CameraInfo("top", height, width)], 1 / DT
        )

    def activate(self, mode):
        self.active, self.last_ns = True, 0

    def read(self):
        q = np.array(self.seen["agent_pos"])
        q[list(GRIPPERS)] = unnormalize_puppet_gripper_position(q[list(GRIPPERS)])  # m
        return q

    def write(self, command):
        if not self.active:
            return wam.Status.fault
        self.commands.append(command.q)
        action = command.q.copy()
        action[list(GRIPPERS)] = normalize_puppet_gripper_position(action[list(GRIPPERS)])
        steps = round((command.t_ns - self.last_ns) * 1e-9 / DT) if self.last_ns else 0
        self.last_ns = command.t_ns
        for _ in range(min(steps, 5)):
            self.seen, *_ = self.env.step(action)

    def frame(self, camera):
        return np.ascontiguousarray(self.seen["pixels"]["top"])

    def deactivate(self):
        self.active = False

    def stop(self, kind):
        self.active = False

    def close(self):
        self.active = False


class Script(wam.Policy):
    """Sines about the start pose and grippers that open and close, by absolute tick; `spoil` may break the rows."""

    def __init__(self, spoil: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None, seed: int = 0):
        super().__init__()
        self.rng, self.spoil, self.home, self.sequence = np.random.default_rng(seed), spoil, None, 0

    def infer(self, obs):
        if self.home is None:
            self.home = obs.state.copy()
        t = TICK * (obs.tick + np.arange(HORIZON))[:, None]
        q = self.home + 0.15 * (1 - np.cos(t * np.linspace(0.8, 2.0, 14)))
        q += self.rng.normal(0, DISAGREE, 14) * np.arange(1, HORIZON + 1)[:, None] / HORIZON
        q[:, GRIPPERS] = (np.sin(1.5 * t) > 0).repeat(2, 1)  # 1 = open
        if self.spoil is not None:
            q = self.spoil(q, obs.state)
        self.sequence += 1
        return wam.ActionChunk(q, TICK, obs, sequence=self.sequence)

    def dt(self):
        return TICK

    def horizon(self):
        return HORIZON

    def dof(self):
        return 14


BROKEN = {
    "zeros": lambda q, state: 0 * q,
    "relative targets": lambda q, state: q - state,
    "not a number": lambda q, state: np.where(np.arange(14) == 3, np.nan, q),
    "degrees": lambda q, state: np.rad2deg(q),
}


def worst(commands: np.ndarray, limits: wam.JointLimits) -> dict[str, float]:
    """The largest position, velocity, acceleration and jerk of commands [n, 14], as shares of their limits."""
    v, a, j = (np.diff(commands, k, axis=0) / DT**k for k in (1, 2, 3))
    middle, half = (limits.position_max + limits.position_min) / 2, (limits.position_max - limits.position_min) / 2
    shares = {
        "position": np.abs(commands - middle) / half,
        "velocity": np.abs(v) / limits.velocity,
        "acceleration": np.abs(a) / limits.acceleration,
        "jerk": np.abs(j) / limits.jerk,
    }
    return {k: float(x.max(initial=0.0)) for k, x in shares.items()}


def drive(profile: wam.RobotProfile, policy: Script, seconds: float, **options) -> dict:
    """One run; what it did, as plain data."""
    robot = Aloha(profile)
    start, why = robot.read().copy(), ""
    given = profile.runner_options() | {"control_hz": 1 / DT, "record": 120.0} | options
    runner = wam.VirtualRunner(profile.policy(policy), robot, profile.limits, [1, 3, 2], **given)
    try:
        runner.start()
        runner.run(seconds)
    except wam.RobotError as e:
        why = str(e)
    stats, record = runner.stats, runner.record()
    runner.stop()
    shares = worst(np.array(robot.commands), profile.limits)
    follows = record["phase"] == wam.PHASES.index("follow")
    return {
        "mode": stats["mode"],
        "seconds": seconds,
        "commands": len(robot.commands),
        "chunks": stats["chunks"],
        "refused_chunks": stats["refused_chunks"],
        "starved_ticks": stats["starved_ticks"],
        "moved_rad": float(np.abs(np.array(robot.commands)[:, [i for i in range(14) if i not in GRIPPERS]]
                                  - np.delete(start, GRIPPERS)).max()),
        "seam_rad": {k: stats["seam_gap"][k] for k in ("p50", "p99", "max", "count")},
        "jump_rad": {k: stats["seam_jump"][k] for k in ("p50", "p99", "max", "count")},
        "limited": float((record["reason"][follows] != 0).mean()) if follows.any() else 0.0,
        "worst": shares,
        "commands_out_of_limits": int(max(shares.values()) > 1 + 1e-6),
        "tracking_rms_rad": float(np.sqrt(np.mean((record["command"] - record["measured"])[follows] ** 2)))
        if follows.any()
        else None,
        "safety": {k: v for k, v in stats["safety"].items() if v},
        "stopped": why,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run (default: 8)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    profile = wam.read_robot(Path(__file__).parent / "robot.toml", ASSETS_DIR / MJCF)
    runs = {}
    for mode in ("sync", "async_switch", "blend"):
        runs[mode] = r = drive(profile, Script(), args.seconds, mode=mode, blend_ticks=BLEND)
        print(
            f"{mode:<14} {r['chunks']} chunks, seam p99 {r['seam_rad']['p99']:.4f} rad, jump p99 "
            f"{r['jump_rad']['p99']:.5f} rad, limited {r['limited']:.1%}, worst "
            + ", ".join(f"{k} {v:.3f}" for k, v in r["worst"].items()),
            flush=True,
        )
    broken = {}
    for name, spoil in BROKEN.items():
        broken[name] = r = drive(profile, Script(spoil), 2.0, mode="blend")
        print(f"{name:<18} moved {r['moved_rad']:.4f} rad; {r['stopped'] or 'went on'}", flush=True)
    good = not any(r["commands_out_of_limits"] for r in (*runs.values(), *broken.values()))
    good &= all(r["stopped"] and r["moved_rad"] < 0.01 for r in broken.values())
    if args.out is not None:
        report = {
            "schema": 1,
            "definition": DEFINITION,
            "robot": {"gym_aloha": "0.1.5", "mujoco": mujoco.__version__, "description": MJCF, "joints": 14},
            "runs": runs,
            "broken_policies": broken,
            "machine": machine.describe(),
        }
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    print("no command left the limits, and no broken policy moved the arms" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    assert gym_aloha  # importing it registers the environments
    raise SystemExit(main())
