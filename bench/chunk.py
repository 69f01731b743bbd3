"""One chunk through a session: the memory's update and the executed steps, by how many frames are remembered."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from wamcore import DeviceError, Observation, Session
from wamcore.cli.bench import references
from wamcore.cli.tables import quantiles
from wamcore.loading import bundled
from wamcore.loading import load as load_model

from . import cases, synthetic
from .cases import ChunkCase

DEFINITION = (
    "one Session.infer without guidance, every step executed: the observed block into the memory, then the steps with "
    "their sampler; pictures, VAE, image and text encoders and the decoding of actions are left out where it says so; "
    "random pictures, or random latents where there is no reference that encodes pictures too; synthetic weights but "
    "for the bundled model; memory update and steps by the session's own trace: the observed frames in the first "
    "step's pass or in one of their own, as the device does by default, and at few steps the other way as baseline"
)
FRAMES = (1, 3, 5, 7)  # remembered, in the order of a context's chunks; a context starts anew after them
STAGES = ("memory", "denoise")
WAYS = {True: "observe+denoise in one pass", False: "the update in a pass of its own"}


def measure(args: argparse.Namespace, device: str, threads: int, scale: str, n: int) -> Iterator[tuple]:
    """(case, its rows) for each number of steps and of remembered frames."""
    wanted = [c for c in cases.chunk(scale, "") if args.only in f"{c.model} {c.name}"]
    for name in dict.fromkeys(c.model for c in wanted):
        for dtype in dtypes(args, device):
            yield from of_model(args, [c for c in wanted if c.model == name], device, threads, dtype, n)


def dtypes(args: argparse.Namespace, device: str) -> list[str]:
    """What the large products are computed in: as asked for, or all that a GPU has."""
    return [args.dtype] if args.dtype != "auto" else ["bfloat16", "fp8"] if device == "cuda" else ["auto"]


def of_model(args: argparse.Namespace, wanted: list[ChunkCase], device: str, threads: int, dtype: str, n: int):
    name = wanted[0].model
    both_ways = cases.TABLE["both_ways"][cases.scale_of(device, args.smoke)]
    load = (lambda: load_model(name, device=device, threads=threads, dtype=dtype)) if name in bundled() else None
    try:
        model = load() if load else synthetic.load(name, device, threads, dtype)
    except DeviceError as e:
        for case in wanted:
            row = row_of(case, case.name, "wamcore", "memory update and steps") | {"unavailable": str(e)}
            yield case, [row | {"dtype": dtype}]
        return
    precision = {"fp8": "float8_e4m3fn"}.get(model.dtype, model.dtype)
    for steps in wanted:
        peer, why = reference(args, steps, model) if load and device == "cpu" else (None, "")
        try:
            one_pass, seen = samples(model, steps.steps, peer, n, args.seconds, both=steps.steps in both_ways)
        finally:
            if peer:
                peer.close()
        for frames, times in seen.items():
            yield rows_of(steps, frames, precision, times, one_pass, why)


def reference(args: argparse.Namespace, case: ChunkCase, model):
    """The PyTorch reference's process, or why there is none."""
    options = argparse.Namespace(model=case.model, steps=case.steps, compiled=False)
    peers, why = ([], "not asked for") if args.no_reference else references(options, model)
    return (peers[0] if peers else None), why


def samples(model, steps: int, peer, n: int, seconds: float, both: bool) -> tuple[bool, dict[int, dict[str, list]]]:
    """Whether the device puts the observed frames into the first step's pass; then milliseconds by remembered frames:
    of memory and steps, of the same the other way if `both`, of the whole call, and of the reference's whole call.
    """
    ours = Side(model, steps, None, given=not peer)
    one_pass = ours.one_pass()
    sides = {"ours": ours}
    if both:
        sides["other"] = Side(model, steps, not one_pass, given=not peer)
        assert sides["other"].one_pass() != one_pass, "fuse_observation= changed nothing"
    out: dict[int, dict[str, list]] = {f: {n: [] for n in ("ours", "other", "whole", "reference")} for f in FRAMES}
    for i in range(len(FRAMES)):  # a whole context, so that every shape has been met
        for side in sides.values():
            side.infer(i)
        if peer:
            peer.infer()
    began = time.perf_counter()
    for i in range(len(FRAMES) * n):
        if i and i % len(FRAMES) == 0 and time.perf_counter() - began > seconds:
            break
        for key, side in sides.items():
            frames, whole, passes = side.timed(i)
            out[frames][key].append(passes)
            if key == "ours":
                out[frames]["whole"].append(whole)
        if peer:
            out[frames]["reference"].append(peer.infer() * 1e3)
    return one_pass, out


class Side:
    """A session, and what one of its calls takes."""

    def __init__(self, model, steps: int, fuse: bool | None, given: bool):
        self.model, self.steps = model, steps
        self.session = Session(model, steps=steps, step_mask=[], guidance=1.0, fuse_observation=fuse)
        self.session.set_prompt_tokens([1, 2, 3])
        self.infer = inferences(model, self.session, given)

    def one_pass(self) -> bool:
        """A first chunk, and whether it was one pass less than the steps and the update."""
        self.infer(0)
        forwards = self.session.trace["counts"]["dit_forwards"]
        self.session.reset()
        return forwards == self.steps

    def timed(self, i: int) -> tuple[int, float, float]:
        """Remembered frames; ms of the whole call, and of memory and steps."""
        at = time.perf_counter()
        self.infer(i)
        whole, trace = (time.perf_counter() - at) * 1e3, self.session.trace
        assert len(self.session.steps_run) == self.steps, f"{len(self.session.steps_run)} of {self.steps} steps ran"
        frames = self.session.context_start - self.model.latent_shape[1]
        return frames, whole, sum(trace["stages"][s] for s in STAGES) * 1e-6


def inferences(model, session, given: bool) -> Callable[[int], object]:
    """Calls of a context in turn: one picture to start with, then observed blocks: pictures, or `given` latents."""
    random, robot = np.random.default_rng(0), model.embodiment
    latents = [random.standard_normal(model.latent_shape, dtype=np.float32) for _ in range(3)]
    state = np.zeros(robot.state_dim)
    pictures = {
        count: {n: random.integers(0, 256, (count, h, w, 3), np.uint8) for n, h, w in robot.cameras}
        for count in (1, len(robot.frame_offsets))
    }

    def infer(i: int):
        if i % len(FRAMES) == 0:
            return session.infer(Observation(pictures[1], state, i))
        seen = Observation(pictures[len(robot.frame_offsets)], state, i)
        return session.infer(seen, latents=latents[i % 3] if given else None)

    return infer


def row_of(case: ChunkCase, name: str, side: str, timed: str, baseline: bool = False, task: str = "") -> dict:
    shared = {"model": case.model, "case": name, "side": side, "timed": timed, "baseline": baseline}
    return shared | {"task": task, "whole": True, "flop": case.flop, "bytes": case.bytes}


def rows_of(case: ChunkCase, frames: int, dtype: str, times: dict[str, list[float]], one_pass: bool, why: str):
    """A case for these remembered frames, and its rows."""
    ways = {True: cases.in_one_pass(case, frames, dtype), False: cases.chunk_with(case, frames, dtype)}
    case, other = ways[one_pass], ways[not one_pass]
    rows = [
        row_of(case, case.name, "wamcore", f"memory update and steps, {WAYS[one_pass]}")
        | {"ms": quantiles(times["ours"])},
        row_of(case, case.name, "wamcore, whole call", "pictures or latents in, targets out", task="whole")
        | {"ms": quantiles(times["whole"])},
    ]
    if times["other"]:
        timed = f"memory update and steps, {WAYS[not one_pass]}"
        side = f"wamcore, {'one pass' if not one_pass else 'two passes'}"
        rows.append(row_of(other, case.name, side, timed, baseline=True) | {"ms": quantiles(times["other"])})
    peer = row_of(case, case.name, "PyTorch reference", "eager, whole call", baseline=True, task="whole")
    if times["reference"]:
        rows.append(peer | {"ms": quantiles(times["reference"])})
    elif why:
        rows.append(peer | {"unavailable": why})
    return case, [row | {"dtype": dtype} for row in rows]
