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
    "for the bundled model; memory update and steps by the session's own trace"
)
FRAMES = (1, 3, 5, 7)  # remembered, in the order of a context's chunks; a context starts anew after them
STAGES = ("memory", "denoise")


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
            seen = samples(model, steps.steps, peer, n, args.seconds)
        finally:
            if peer:
                peer.close()
        for frames, times in seen.items():
            yield rows_of(steps, frames, precision, times, why)


def reference(args: argparse.Namespace, case: ChunkCase, model):
    """The PyTorch reference's process, or why there is none."""
    options = argparse.Namespace(model=case.model, steps=case.steps, compiled=False)
    peers, why = ([], "not asked for") if args.no_reference else references(options, model)
    return (peers[0] if peers else None), why


def samples(model, steps: int, peer, n: int, seconds: float) -> dict[int, dict[str, list[float]]]:
    """Milliseconds by remembered frames: of memory and steps, of the whole call, and of the reference's whole call."""
    session = Session(model, steps=steps, step_mask=[], guidance=1.0)
    session.set_prompt_tokens([1, 2, 3])
    infer = inferences(model, session, given=not peer)
    out: dict[int, dict[str, list[float]]] = {f: {"ours": [], "whole": [], "reference": []} for f in FRAMES}
    for i in range(len(FRAMES)):  # a whole context, so that every shape has been met
        infer(i)
        if peer:
            peer.infer()
    began = time.perf_counter()
    for i in range(len(FRAMES) * n):
        if i and i % len(FRAMES) == 0 and time.perf_counter() - began > seconds:
            break
        at = time.perf_counter()
        infer(i)
        whole = (time.perf_counter() - at) * 1e3
        trace = session.trace
        assert len(session.steps_run) == steps, f"{len(session.steps_run)} of {steps} steps ran"
        times = out[session.context_start - model.latent_shape[1]]
        times["whole"].append(whole)
        times["ours"].append(sum(trace["stages"][s] for s in STAGES) * 1e-6)
        if peer:
            times["reference"].append(peer.infer() * 1e3)
    return out


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


def rows_of(case: ChunkCase, frames: int, dtype: str, times: dict[str, list[float]], why: str):
    """A case for these remembered frames, and its rows."""
    case = cases.chunk_with(case, frames, dtype)
    rows = [
        row_of(case, case.name, "wamcore", "memory update and steps") | {"ms": quantiles(times["ours"])},
        row_of(case, case.name, "wamcore, whole call", "pictures or latents in, targets out", task="whole")
        | {"ms": quantiles(times["whole"])},
    ]
    peer = row_of(case, case.name, "PyTorch reference", "eager, whole call", baseline=True, task="whole")
    if times["reference"]:
        rows.append(peer | {"ms": quantiles(times["reference"])})
    elif why:
        rows.append(peer | {"unavailable": why})
    return case, [row | {"dtype": dtype} for row in rows]
