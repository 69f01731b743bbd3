"""What the device reaches at best: a copy, and a large product by the library that is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import Arrays
from .cases import Case
from .report import Roofline, Side, Unavailable

DEFINITION = "a copy between two arrays, and a square product by the library at hand: what the roofline is made of"


def rows(arrays: Arrays, scale: str) -> Iterator[tuple[Case, list[Side]]]:
    """A copy, and a product for each dtype that the device has units for."""
    smoke, cuda = scale == "smoke", arrays.device == "cuda"
    size = (1 << 20) if smoke else (1 << 31) if cuda else (1 << 28)  # bytes
    n = 256 if smoke else 8192 if cuda else 1024
    copied = Case("limits", f"copy of {size >> 20} MiB", arrays.dtype, bytes=2.0 * size)
    yield copied, [Side("copy", "one read and one write", lambda: copy(arrays, size), baseline=False)]
    for dtype in ("bfloat16", "float8_e4m3fn") if cuda else ("float32",):
        product = Case("limits", f"product {n} x {n} x {n}", dtype, flop=2.0 * n**3)
        make = lambda d=dtype: matmul(arrays, n, d)  # noqa: E731
        yield product, [Side("product", "the library's own, random data", make, baseline=False)]


def copy(arrays: Arrays, size: int):
    if arrays.device == "cpu":
        a, b = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
        return lambda i: np.copyto(b, a)
    torch = arrays.torch
    a = torch.ones(size, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return lambda i: b.copy_(a)


def matmul(arrays: Arrays, n: int, dtype: str):
    x, y = arrays.random(n, n), arrays.random(n, n)
    torch = arrays.torch
    if arrays.device == "cpu":
        if torch is None:
            return lambda i: x @ y
        a, b = arrays.tensor(x), arrays.tensor(y)
        return lambda i: a @ b
    if dtype == "bfloat16":
        return lambda i: x @ y
    if not hasattr(torch, "_scaled_mm"):
        raise Unavailable("this torch has no _scaled_mm")
    a, b = x.to(torch.float8_e4m3fn), y.to(torch.float8_e4m3fn).t()
    ones = torch.ones(n, 1, device="cuda")
    return lambda i: torch._scaled_mm(a, b, scale_a=ones, scale_b=ones.t(), out_dtype=torch.bfloat16)


def roofline(measured: list[dict]) -> Roofline:
    """From the rows of a run; a dtype whose product could not be run has none."""
    done = [r for r in measured if "ms" in r]
    gbs = max(r["bytes"] / r["ms"]["p50"] / 1e6 for r in done if r["bytes"])
    tflops = {r["dtype"]: r["flop"] / r["ms"]["p50"] / 1e9 for r in done if r["flop"]}
    return Roofline(tflops, gbs, "measured in this run")
