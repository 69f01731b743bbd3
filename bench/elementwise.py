"""Passes over rows that are bound by memory: modulated norm, QK-norm with rotation, quantisation, a sampler's step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from wamcore import kernels

from . import cases
from .arrays import SETS, Arrays
from .cases import ElementwiseCase
from .report import Side, Unavailable

DEFINITION = (
    "one pass over the rows of a layer: LayerNorm with the shift and scale of each row's timestep; RMSNorm over the "
    "full width and rotation of queries and of keys; bfloat16 to e4m3 with a scale a row; or guidance and an update of "
    "UniPC, all terms of order 2, over video and actions as one array"
)


def rows(arrays: Arrays, scale: str) -> Iterator[tuple[ElementwiseCase, list[Side]]]:
    sides = {f.__name__: f for f in (ln_modulate, qk_norm_rope, quantize_rows, sampler_step)}
    for case in cases.elementwise(scale, arrays.dtype):
        yield case, sides[case.kernel](case, arrays)


def threads(arrays: Arrays) -> dict:
    return {"threads": arrays.threads} if arrays.device == "cpu" else {}


def beside(case: ElementwiseCase, arrays: Arrays, timed: str, ours, eager) -> list[Side]:
    """Our side, and torch's expression of it: eager, and compiled on a GPU. `ours` and `eager` give calls."""

    def torch_side(compiled: bool):
        if arrays.torch is None:
            raise Unavailable("torch is not installed")
        call = eager()
        return arrays.torch.no_grad()(arrays.torch.compile(call, dynamic=False) if compiled else call)

    out = [
        Side("wamcore", timed, ours, baseline=False),
        Side("torch eager", timed, lambda: torch_side(False)),
    ]
    if arrays.device == "cuda" and cases.compiles(case):
        out.append(Side("torch.compile", timed, lambda: torch_side(True)))
    return out


def ln_modulate(case: ElementwiseCase, arrays: Arrays) -> list[Side]:
    wide = case.heads * case.head_dim
    x, y = [arrays.random(case.rows, wide) for _ in range(SETS)], arrays.empty(case.rows, wide)
    shift, scale = arrays.random(2, wide, wide=True), arrays.random(2, wide, wide=True)
    row = arrays.rows([int(i >= case.rows - case.rows // 70) for i in range(case.rows)])

    def ours():
        options = {"shift": shift, "scale": scale, "time_row": row, **threads(arrays)}

        def call(i: int):
            kernels.layer_norm(x[i % SETS], y, **options)
            return y

        return call

    def eager():
        t, norm = arrays.tensor, arrays.torch.nn.functional.layer_norm
        xs, r = [t(a) for a in x], t(row).long()
        b, a = t(shift).to(xs[0].dtype), t(scale).to(xs[0].dtype)
        return lambda i: norm(xs[i % SETS], (wide,), eps=1e-6) * (1 + a[r]) + b[r]

    return beside(case, arrays, "norm and modulation", ours, eager)


def qk_norm_rope(case: ElementwiseCase, arrays: Arrays) -> list[Side]:
    shape = case.rows, case.heads, case.head_dim
    both = [(arrays.random(*shape), arrays.random(*shape)) for _ in range(SETS)]
    out = arrays.empty(*shape), arrays.empty(*shape)
    weight = [arrays.random(shape[1] * shape[2], wide=True) for _ in range(2)]
    angle = arrays.random(case.rows, case.head_dim // 2, wide=True)
    library = np if arrays.device == "cpu" else arrays.torch
    cos, sin = library.cos(angle), library.sin(angle)

    def ours():
        options = {"cos": cos, "sin": sin, **threads(arrays)}

        def call(i: int):
            for x, y, w in zip(both[i % SETS], out, weight, strict=True):
                kernels.qk_norm_rope(x, y, weight=w, **options)
            return out

        return call

    def eager():
        t, torch = arrays.tensor, arrays.torch
        c, s = t(cos)[:, None], t(sin)[:, None]
        sets = [[t(a) for a in pair] for pair in both]
        weights = [t(w).to(sets[0][0].dtype).view(shape[1:]) for w in weight]

        def one(x, w):
            wide = x.float()
            z = (wide * torch.rsqrt(wide.pow(2).mean((1, 2), keepdim=True) + 1e-6)).to(x.dtype) * w
            a, b = z.float().unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2).to(x.dtype)

        return lambda i: [one(x, w) for x, w in zip(sets[i % SETS], weights, strict=True)]

    return beside(case, arrays, "norm and rotation of both, ours a launch each", ours, eager)


def quantize_rows(case: ElementwiseCase, arrays: Arrays) -> list[Side]:
    wide = case.heads * case.head_dim
    x = [arrays.random(case.rows, wide) for _ in range(SETS)]

    def ours():
        if arrays.device == "cpu":
            raise Unavailable("quantize_rows runs on a GPU")
        torch = arrays.torch
        y = torch.empty(case.rows, wide, dtype=torch.uint8, device="cuda")
        scale = torch.empty(case.rows, dtype=torch.float32, device="cuda")

        def call(i: int):
            kernels.quantize_rows(x[i % SETS], y, scale)
            return y, scale

        return call

    def eager():
        torch, sets = arrays.torch, [arrays.tensor(a) for a in x]

        def call(i: int):
            values = sets[i % SETS].float()
            scale = values.abs().amax(1, keepdim=True) / 448.0
            return (values / scale).to(torch.float8_e4m3fn), scale

        return call

    return beside(case, arrays, "e4m3 and a scale a row", ours, eager)


STEPS = 4096  # in the table of coefficients, more than any run calls; all alike, with every term in use


def sampler_step(case: ElementwiseCase, arrays: Arrays) -> list[Side]:
    n, weights = case.rows, [1.0, -0.7, 0.4, 0.6, 0.1, 0.2, -0.1, 0.9, 0.1, -0.05]

    def state():
        names = ("x", "conditional", "unconditional", "velocity", "last")
        return {name: arrays.random(n, wide=True) for name in names} | {"history": arrays.random(3, n, wide=True)}

    def ours():
        if arrays.device == "cpu":
            raise Unavailable("sampler_step runs on a GPU")
        torch = arrays.torch
        table = torch.tensor([[*weights, 0.0, 0.0]] * STEPS, dtype=torch.float32, device="cuda")
        table.view(torch.int32)[:, -1] = 1  # the modality still moves
        counters = [torch.tensor([0], dtype=torch.int32, device="cuda") for _ in range(2)]
        modality = kernels.Modality(**state(), coefficients=table, guidance=5.0)
        return lambda i: kernels.sampler_step([modality], *counters)

    def eager():
        s = {k: arrays.tensor(v) for k, v in state().items()}
        data_x, data_v, fix_x, fix_last, *fix, next_x, next_m0, next_m1 = weights

        def call(i: int):
            v = s["unconditional"] + 5.0 * (s["conditional"] - s["unconditional"])
            s["velocity"].copy_(v)
            m0, m1, m2 = data_x * s["x"] + data_v * v, s["history"][0], s["history"][1]
            c = fix_x * s["x"] + fix_last * s["last"] + fix[0] * m0 + fix[1] * m1 + fix[2] * m2
            s["history"][2].copy_(m0)
            s["last"].copy_(c)
            s["x"].copy_(next_x * c + next_m0 * m0 + next_m1 * m1)

        return call

    return beside(case, arrays, "guidance and update", ours, eager)
