"""How calls are timed: in turn, each after a flush of the caches, by the clock of the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

Call = Callable[[int], object]  # the argument says which of the rotating inputs to use
CPU_CACHE = 64 << 20  # bytes written between calls on a CPU
GPU_CACHE = 256 << 20  # bytes written, several times, between calls on a GPU: five times the L2 of an H200
GPU_FLUSHES = 4  # so many writes take about 0.3 ms, in which the host has queued the call that is timed
REST = 0.01  # s before each call on a CPU: threads of the side before spin for a while after their work


class CpuClock:
    """Wall time of a call on the CPU, s."""

    how = f"wall time; {CPU_CACHE >> 20} MiB written and {REST * 1e3:.0f} ms of rest before each call"

    def __init__(self, smoke: bool):
        self._cache = np.zeros((1 if smoke else CPU_CACHE) // 4 or 1, np.float32)
        self._rest = 0.0 if smoke else REST

    def time(self, call: Call, i: int) -> float:
        self._cache += 1.0
        time.sleep(self._rest)
        began = time.perf_counter()
        call(i)
        return time.perf_counter() - began

    def wait(self) -> None:
        """Until all work is done, which it is."""


class CudaClock:
    """Time between two CUDA events around a call, s. The call is queued while the GPU still flushes its cache, so that
    what the host needs to start it counts only if that is longer than the flush.
    """

    how = (
        f"CUDA events around the call, queued behind {GPU_FLUSHES} writes of {GPU_CACHE >> 20} MiB that empty the L2 "
        "and hide the host's own time"
    )

    def __init__(self, torch):
        self._torch = torch
        self._cache = torch.empty(GPU_CACHE // 4, dtype=torch.int32, device="cuda")

    def time(self, call: Call, i: int) -> float:
        cuda = self._torch.cuda
        for _ in range(GPU_FLUSHES):
            self._cache.zero_()
        began, ended = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        began.record()
        call(i)
        ended.record()
        cuda.synchronize()
        return began.elapsed_time(ended) * 1e-3

    def wait(self) -> None:
        self._torch.cuda.synchronize()


def measure(calls: dict[str, Call], clock, n: int, seconds: float, warm_up: int = 3) -> dict[str, list[float]]:
    """Milliseconds of each call, by name; one of each in turn, so that whatever else the machine does hits all alike.

    n: most calls of each that count. seconds: of all together, after which no more is started; five count at least.
    """
    for call in calls.values():
        for i in range(warm_up):
            call(i)
    clock.wait()
    out: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for i in range(n):
        for name, call in calls.items():
            out[name].append(clock.time(call, i) * 1e3)
        if i + 1 >= 5 and time.perf_counter() - began > seconds:
            break
    return out
