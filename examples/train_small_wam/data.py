"""Demonstrations: episodes of the expert with bursts of disturbance, in shards that regenerate from their seeds.

A shard is `shard_NNN.npz` (joint data and the episode table) beside `frames_NNN.npy` (uint8 [frames, 64, 96, 3]).
Frame f of an episode is taken at its tick 2f.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
from wamcore.sim import Tabletop, Task

from .expert import expert
from .progress import Progress

FRAME_TICKS = 2  # a frame every 2 ticks
AFTER = 12  # ticks kept after success
LIMIT = 130  # ticks
SHARD = 300  # episodes
DATA_SEED = 1_000_000  # seeds of data start here; evaluation uses small seeds
BURST = np.array((0.16, 0.12, 0.12, 0.03))  # rad, scale of a disturbance

TEMPLATES = {
    "touch": ("touch the {c} block", "touch the {c} block", "tap the {c} cube", "reach the {c} block", "touch {c}"),
    "push": (
        "push the {c} block {d}",
        "push the {c} block {d}",
        "slide the {c} cube {d}",
        "move the {c} block to the {d}",
        "push {c} {d}",
    ),
}
TEMPLATES["moving"] = TEMPLATES["touch"]


def instruction(world: Tabletop, rng: np.random.Generator) -> str:
    """One of the phrasings of the world's task."""
    task = world.task
    phrase = TEMPLATES[task.kind][rng.integers(len(TEMPLATES[task.kind]))]
    return phrase.format(c=world.colours[task.block], d="right" if task.side > 0 else "left")


def episode(world: Tabletop, rng: np.random.Generator, disturbed: bool) -> dict | None:
    """Runs the expert; None unless it succeeds. Disturbed ticks are marked 0 in `labelled`."""
    frames, q, action, labelled = [], [], [], []
    burst, offset, end = 0, np.zeros(4), LIMIT
    while True:
        tick = len(action)
        if tick % FRAME_TICKS == 0:
            frames.append(world.frame())
        if tick >= end and tick % FRAME_TICKS == 0:
            break
        target = expert(world)
        if disturbed and burst == 0 and rng.random() < 0.04:
            burst, offset = int(rng.integers(5, 13)), rng.normal(0, 1, 4) * BURST
        calm = burst == 0 or world.done
        if not calm:
            target = np.clip(target + offset, world.position_min, world.position_max)
        burst = max(burst - 1, 0)
        q.append(world.q)
        action.append(target)
        labelled.append(calm)
        world.step(target)
        if world.success is False or (len(action) >= LIMIT and not world.done):
            return None
        if world.done and end == LIMIT:
            end = len(action) + AFTER
    q.append(world.q)
    return {
        "frames": np.stack(frames),
        "q": np.stack(q).astype(np.float32),  # [ticks + 1, 4]
        "action": np.stack(action).astype(np.float32),  # [ticks, 4]
        "labelled": np.array(labelled),
        "text": instruction(world, rng),
        "kind": world.task.kind,
    }


def shard(out: Path, index: int) -> None:
    """Writes shard `index`: SHARD successful episodes, some of them several tasks in one world."""
    rng = np.random.default_rng([DATA_SEED, index])
    world = Tabletop()
    episodes: list[dict] = []
    seed = DATA_SEED + index * 10_000
    while len(episodes) < SHARD:
        world.reset(seed)
        seed += 1
        for again in range(3):
            if again and not _again(world, rng):
                break
            got = episode(world, rng, disturbed=rng.random() < 0.5)
            if got is None:
                break
            episodes.append(got)
    episodes = episodes[:SHARD]
    world.close()
    frames = np.concatenate([e["frames"] for e in episodes])
    np.save(out / f"frames_{index:03d}.tmp.npy", frames)
    np.savez(
        out / f"shard_{index:03d}.tmp.npz",
        q=np.concatenate([e["q"] for e in episodes]),
        action=np.concatenate([e["action"] for e in episodes]),
        labelled=np.concatenate([e["labelled"] for e in episodes]),
        ticks=np.array([len(e["action"]) for e in episodes]),
        text=np.array([e["text"] for e in episodes]),
        kind=np.array([e["kind"] for e in episodes]),
    )
    os.replace(out / f"frames_{index:03d}.tmp.npy", out / f"frames_{index:03d}.npy")
    os.replace(out / f"shard_{index:03d}.tmp.npz", out / f"shard_{index:03d}.npz")


def _again(world: Tabletop, rng: np.random.Generator) -> bool:
    """Gives the same world another task, if every block can still be reached."""
    if world.task.kind == "moving" or any(abs(world.block(i)[1]) > 0.15 for i in range(3)):
        return False
    kind = ("touch", "push")[rng.integers(2)]
    world.retask(Task(kind, int(rng.integers(3)), int(rng.choice((-1, 1)))))
    return True


def generate(out: Path, shards: int, workers: int) -> None:
    """Writes the shards that are not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(shards) if not (out / f"shard_{i:03d}.npz").exists()]
    bar = Progress("data", shards, done=shards - len(missing))
    if not missing:
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        jobs = [pool.apply_async(shard, (out, i)) for i in missing]
        for job in jobs:
            job.get()
            bar.advance()


def shards(out: Path) -> list[int]:
    """Indices of the shards on disk."""
    return sorted(int(p.stem.split("_")[1]) for p in out.glob("shard_???.npz"))
