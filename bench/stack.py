"""Whole layers: one, or all of a model. The benchmarks "layer" and "forward" are this module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from . import cases
from .arrays import SETS, Arrays
from .cases import StackCase
from .layers import OurLayers, Stack, TorchLayers
from .report import Side, Unavailable
from .timing import Call

DEFINITION = (
    "transformer layers of a denoise pass, synthetic weights: norms with modulation, q k v, QK-norm, rotation, "
    "attention over memory and this pass's rows, text and image attention, feed-forward; text and image keys "
    "and the modulation of the timesteps are made before; no embedding, no head, no sampler; every "
    "layer has weights of its own"
)


def rows(arrays: Arrays, scale: str, bench: str) -> Iterator[tuple[StackCase, list[Side]]]:
    for case in cases.stack(scale, arrays.dtype, bench):
        yield case, sides(case, arrays)


def sides(case: StackCase, arrays: Arrays) -> list[Side]:
    # made when the first side is, so that --only does not fill the memory with what is not measured
    stack = functools.cache(lambda: Stack(case, arrays))
    if arrays.device == "cpu":
        return [
            Side("wamcore", "kernel after kernel, float32", lambda: OurLayers(stack()), baseline=False),
            Side("torch eager", "float32", lambda: peers(stack)),
        ]
    graph, launches = "replayed as one CUDA graph", "kernel after kernel, the host's launches included"
    ours = [
        Side("wamcore, CUDA graph", graph, lambda: graphed(arrays, lambda: OurLayers(stack())), baseline=False),
        Side("wamcore", launches, lambda: OurLayers(stack()), baseline=False),
        Side("wamcore e4m3, CUDA graph", f"{graph}; products in e4m3, quantisation of their inputs included",
             lambda: graphed(arrays, lambda: OurLayers(stack(), fp8=True)), baseline=False),
    ]  # fmt: skip
    theirs = [
        Side("torch eager", launches, lambda: peers(stack)),
        Side("torch eager, CUDA graph", graph, lambda: graphed(arrays, lambda: peers(stack))),
    ]
    if not cases.compiles(case):
        return ours + theirs
    compiled = functools.cache(lambda: peers(stack).compiled())
    return [
        *ours,
        *theirs,
        Side("torch.compile", launches, compiled),
        Side("torch.compile, CUDA graph", graph, lambda: graphed(arrays, compiled)),
    ]


def peers(stack: Callable[[], Stack]) -> TorchLayers:
    if stack().arrays.torch is None:
        raise Unavailable("torch is not installed")
    return TorchLayers(stack())


def graphed(arrays: Arrays, make: Callable[[], Call]) -> Call:
    """Every set of inputs as a CUDA graph of its own. Warmed up on the stream that is captured: our kernels keep
    scratch memory for each stream, which cannot grow during a capture.
    """
    torch = arrays.torch
    call, stream, graphs = make(), torch.cuda.Stream(), []
    with torch.cuda.stream(stream):
        for i in range(SETS):
            call(i)
    torch.cuda.synchronize()
    for i in range(SETS):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            call(i)
        graphs.append(graph)

    def replay(i: int):
        graphs[i % SETS].replay()
        return call  # which owns the memory that the graphs work on

    return replay
