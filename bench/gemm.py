"""The six products of a layer with what follows them, beside torch's (cuBLASLt on a GPU)."""

from __future__ import annotations

from collections.abc import Iterator

from wamcore import kernels

from . import cases
from .arrays import SETS, Arrays
from .cases import GemmCase
from .report import Side, Unavailable

DEFINITION = (
    "x w^T + bias of one Linear, and with the layer's epilogue: GELU-tanh, or residual + gate * result with the gate "
    "of one of two timesteps for each row; weights laid out before"
)
EPILOGUE = {"bias": "bias", "bias_gelu": "bias and GELU", "gate_residual": "bias, gate and residual"}


def rows(arrays: Arrays, scale: str) -> Iterator[tuple[GemmCase, list[Side]]]:
    for dtype in (arrays.dtype, "float8_e4m3fn") if arrays.device == "cuda" else (arrays.dtype,):
        for case in cases.gemm(scale, dtype):
            yield case, sides(case, arrays) if dtype == arrays.dtype else sides_fp8(case, arrays)


class Inputs:
    """Rotating inputs of one product, and its weight."""

    def __init__(self, case: GemmCase, arrays: Arrays):
        self.case, self.arrays = case, arrays
        m, n, k = case.m, case.n, case.k
        self.x = [arrays.random(m, k) for _ in range(SETS)]
        self.w, self.bias = arrays.random(n, k, std=k**-0.5), arrays.random(n)
        self.y = arrays.empty(m, n)
        self.residual, self.gate = arrays.random(m, n), arrays.random(2, n, wide=True)
        self.time = [int(i >= m - m // 70) for i in range(m)]  # registers come last
        self.gate_row = arrays.rows(self.time)

    def options(self) -> dict:
        """What the epilogue needs."""
        kind = self.case.epilogue
        if kind == "bias_gelu":
            return {"activation": "gelu_tanh"}
        if kind == "gate_residual":
            return {"residual": self.residual, "gate": self.gate, "gate_row": self.gate_row}
        return {}


def sides(case: GemmCase, arrays: Arrays) -> list[Side]:
    inputs, what = Inputs(case, arrays), EPILOGUE[case.epilogue]
    out = [Side("wamcore", what, lambda: ours(inputs, True), baseline=False)]
    if case.epilogue == "bias":
        return out + [Side("torch linear", "bias", lambda: linear(inputs))]
    out.append(Side("wamcore, bias only", "bias", lambda: ours(inputs, False), baseline=False, task="bias"))
    out.append(Side("torch linear", "bias", lambda: linear(inputs), task="bias"))
    out.append(Side("torch linear + epilogue", f"{what}, eager", lambda: eager(inputs)))
    return out


def ours(inputs: Inputs, epilogue: bool):
    arrays, options = inputs.arrays, inputs.options() if epilogue else {}
    cpu = arrays.device == "cpu"
    w = kernels.pack_weight(inputs.w) if cpu else inputs.w
    if cpu:
        options["threads"] = arrays.threads

    def call(i: int):
        kernels.gemm(inputs.x[i % SETS], w, inputs.y, bias=inputs.bias, **options)
        return inputs.y

    return call


def linear(inputs: Inputs):
    torch = inputs.arrays.torch
    if torch is None:
        raise Unavailable("torch is not installed")
    tensor = inputs.arrays.tensor
    x, w, b = [tensor(a) for a in inputs.x], tensor(inputs.w), tensor(inputs.bias)
    return torch.no_grad()(lambda i: torch.nn.functional.linear(x[i % SETS], w, b))


def eager(inputs: Inputs):
    call = linear(inputs)
    arrays, torch = inputs.arrays, inputs.arrays.torch
    if inputs.case.epilogue == "bias_gelu":
        return torch.no_grad()(lambda i: torch.nn.functional.gelu(call(i), approximate="tanh"))
    residual, gate = arrays.tensor(inputs.residual), arrays.tensor(inputs.gate)
    row = arrays.tensor(inputs.gate_row).long()
    gate = gate.to(residual.dtype)
    return torch.no_grad()(lambda i: residual + gate[row] * call(i))


def sides_fp8(case: GemmCase, arrays: Arrays) -> list[Side]:
    """Operands in e4m3 with a scale a row of x and of w."""
    inputs = Inputs(case, arrays)
    return [
        Side(
            "wamcore", f"{EPILOGUE[case.epilogue]}; operands quantised before", lambda: ours_fp8(inputs, False), False
        ),
        Side("wamcore + quantize_rows", "x quantised too", lambda: ours_fp8(inputs, True), False, task="quantised"),
        Side("torch _scaled_mm", "bias; operands quantised before, rows padded to 16", lambda: scaled(inputs)),
    ]


def quantised(arrays: Arrays, x):
    """x [rows, cols] as the bits of e4m3, and the scale of each row."""
    torch = arrays.torch
    y = torch.empty(x.shape, dtype=torch.uint8, device="cuda")
    scale = torch.empty(x.shape[0], dtype=torch.float32, device="cuda")
    kernels.quantize_rows(x, y, scale)
    return y, scale


def ours_fp8(inputs: Inputs, quantise: bool):
    arrays, options = inputs.arrays, inputs.options()
    w, w_scale = quantised(arrays, inputs.w)
    xs = [quantised(arrays, x) for x in inputs.x]

    def call(i: int):
        x, x_scale = xs[i % SETS]
        if quantise:
            kernels.quantize_rows(inputs.x[i % SETS], x, x_scale)
        kernels.gemm(x, w, inputs.y, bias=inputs.bias, x_scale=x_scale, w_scale=w_scale, **options)
        return inputs.y

    return call


def scaled(inputs: Inputs):
    arrays, torch = inputs.arrays, inputs.arrays.torch
    if not hasattr(torch, "_scaled_mm"):
        raise Unavailable("this torch has no _scaled_mm")
    pad = -inputs.case.m % 16

    def padded(x):
        bits, scale = quantised(arrays, torch.nn.functional.pad(x, (0, 0, 0, pad), value=1.0))
        return bits.view(torch.float8_e4m3fn), scale[:, None]

    w, w_scale = quantised(arrays, inputs.w)
    w, w_scale, xs = w.view(torch.float8_e4m3fn).t(), w_scale[None], [padded(x) for x in inputs.x]

    def call(i: int):
        x, x_scale = xs[i % SETS]
        return torch._scaled_mm(x, w, x_scale, w_scale, bias=inputs.bias, out_dtype=torch.bfloat16)

    return call
