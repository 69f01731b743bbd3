"""Run by test_simulated_kernels.py in a process with the simulated plugin: each function of wamcore.kernels on arrays
that claim to lie on a GPU and lie in the memory of the host, against numpy.
"""

import ctypes
import os

import numpy as np
import pytest
import wamcore
from test_public_kernels import Claimed
from wamcore import kernels

STREAM = 0x57  # what the simulated plugin wants to see
rng = np.random.default_rng()


def bits(a):
    """float32 to the bits of bfloat16, to the nearest even."""
    b = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((b + 0x7FFF + ((b >> 16) & 1)) >> 16).astype(np.uint16)


def values(b):
    return (b.astype(np.uint32) << 16).view(np.float32)


def aligned(shape, dtype):
    """Zeros that start at a multiple of 256 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 256, np.uint8)
    at = -raw.ctypes.data % 256
    return raw[at : at + size].view(dtype).reshape(shape)


class Gpu:
    """An array that claims to be on GPU 0; `to` are rows further apart than they are long."""

    def __init__(self, a, dtype="bfloat16", to=None):
        a = np.asarray(a)
        stored = bits(a) if dtype == "bfloat16" else a
        rows = aligned((a.shape[0], to or int(np.prod(a.shape[1:]))), stored.dtype)
        self._rows, self._shape, self.dtype = rows, a.shape, dtype
        rows[:, : int(np.prod(a.shape[1:]))] = stored.reshape(a.shape[0], -1)
        strides = [rows.shape[1], *[int(np.prod(a.shape[i + 1 :])) for i in range(1, a.ndim)]]
        self.claim = Claimed(*a.shape, dtype=dtype, strides=strides, address=rows.ctypes.data)

    def get(self):
        stored = self._rows[:, : int(np.prod(self._shape[1:]))].reshape(self._shape)
        return values(stored) if self.dtype == "bfloat16" else stored


def normal(*shape, std=1.0):
    """Numbers that bfloat16 holds."""
    return values(bits(rng.standard_normal(shape) * std))


def f32(a):
    return Gpu(np.asarray(a, np.float32), "float32")


def close(got, want, tolerance=1e-2):
    assert np.isfinite(got).all()
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want), np.linalg.norm(got - want)


def e4m3(b):
    sign, exponent, mantissa = np.where(b & 0x80, -1.0, 1.0), (b >> 3 & 15).astype(int), (b & 7).astype(float)
    return sign * np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)


def attention():
    q, parts = normal(70, 2, 64), [(normal(n, 2, 64), normal(n, 2, 64)) for n in (90, 33, 5)]
    k, v = (np.concatenate(x) for x in zip(*parts, strict=True))
    score = np.einsum("ihd,jhd->hij", q, k) / 8
    weight = np.exp(score - score.max(-1, keepdims=True))
    total = weight.sum(-1, keepdims=True)
    want = np.einsum("hij,jhd->ihd", weight / total, v)
    held = [(Gpu(k, to=384), Gpu(v, to=384)) for k, v in parts]
    for splits in (1, 2):
        out, lse, qs = Gpu(np.zeros_like(q), to=160), f32(np.zeros((2, 70))), Gpu(q)
        pairs = [(k.claim, v.claim) for k, v in held]
        kernels.attention(qs.claim, pairs, out.claim, splits=splits, lse=lse.claim, stream=STREAM)
        close(out.get(), want)
        np.testing.assert_allclose(lse.get(), (np.log(total) + score.max(-1, keepdims=True))[..., 0], atol=1e-2)
    try:
        kernels.attention(qs.claim, pairs, out.claim, splits=1)
    except wamcore.DeviceError as e:
        assert str(e) == "attention: wanted the kernel started, got not on GPU 0 and the caller's stream"
    else:
        raise AssertionError("a call on another stream passed")


def products():
    x, w, bias, residual, gate = normal(37, 64), normal(72, 64, std=0.1), normal(72), normal(37, 72), normal(2, 72)
    row = rng.integers(0, 2, 37, dtype=np.int32)
    z = x @ w.T + bias
    gelu = 0.5 * z * (1 + np.tanh(0.7978845608 * (z + 0.044715 * z**3)))
    gx, gw, gb = Gpu(x, to=80), Gpu(w), Gpu(bias[None])
    gb = Claimed(72, address=gb.claim._managed.tensor.data)
    rows, gates, added = Gpu(row[:, None], "int32"), f32(gate), Gpu(residual)
    rows = Claimed(37, dtype="int32", address=rows.claim._managed.tensor.data)
    gated = {"residual": added.claim, "gate": gates.claim, "gate_row": rows}
    for options, want in (({}, z), ({"activation": "gelu_tanh"}, gelu), (gated, residual + gate[row] * z)):
        y = Gpu(np.zeros((37, 72), np.float32), to=96)
        kernels.gemm(gx.claim, gw.claim, y.claim, bias=gb, stream=STREAM, **options)
        close(y.get(), want)
    wide = normal(192, 64, std=0.1)
    parts, gwide = [Gpu(np.zeros((37, 64), np.float32)) for _ in range(3)], Gpu(wide)
    kernels.gemm_qkv(gx.claim, gwide.claim, *[p.claim for p in parts], stream=STREAM)
    close(np.concatenate([p.get() for p in parts], 1), x @ wide.T)

    quantised = []
    for a in (x, w):
        given, to, scale = Gpu(a), Gpu(np.zeros(a.shape, np.uint8), "uint8"), f32(np.zeros((len(a), 1)))
        scale_of = Claimed(len(a), dtype="float32", address=scale.claim._managed.tensor.data)
        kernels.quantize_rows(given.claim, to.claim, scale_of, stream=STREAM)
        close(e4m3(to.get()) * scale.get(), a, 4e-2)
        quantised.append((to, scale, scale_of))
    (xq, _, xs), (wq, _, ws) = quantised
    y = Gpu(np.zeros((37, 72), np.float32))
    kernels.gemm(xq.claim, wq.claim, y.claim, x_scale=xs, w_scale=ws, stream=STREAM)
    close(y.get(), x @ w.T, 6e-2)
    driver = ctypes.CDLL(os.environ["WAMCORE_CUDA_PLUGIN"])
    driver.sim_refuse_tensor_maps(801)
    told = "gemm_fp8_sm90: no tensor map for 37 x 72 x 64: the driver's error 801"
    with pytest.raises(wamcore.DeviceError, match=f"^gemm: wanted the kernel started, got {told}$"):
        kernels.gemm(xq.claim, wq.claim, y.claim, x_scale=xs, w_scale=ws, stream=STREAM)
    driver.sim_refuse_tensor_maps(0)
    kernels.gemm(xq.claim, wq.claim, y.claim, x_scale=xs, w_scale=ws, stream=STREAM)


def rows():
    x, shift, scale = normal(9, 64), normal(2, 64), normal(2, 64)
    row = rng.integers(0, 2, 9, dtype=np.int32)
    want = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) * (1 + scale[row]) + shift[row]
    held = Gpu(row[:, None], "int32")
    time = Claimed(9, dtype="int32", address=held.claim._managed.tensor.data)
    given, by, to = Gpu(x), (f32(shift), f32(scale)), Gpu(np.zeros_like(x))
    modulation = {"shift": by[0].claim, "scale": by[1].claim, "time_row": time, "stream": STREAM}
    kernels.layer_norm(given.claim, to.claim, **modulation)
    close(to.get(), want)
    narrow, scales = Gpu(np.zeros(x.shape, np.uint8), "uint8"), f32(np.zeros((9, 1)))
    scale_of = Claimed(9, dtype="float32", address=scales.claim._managed.tensor.data)
    kernels.layer_norm(given.claim, narrow.claim, y_scale=scale_of, **modulation)
    close(e4m3(narrow.get()) * scales.get(), want, 4e-2)

    heads, weight, angle = normal(9, 2, 64), normal(1, 128), normal(9, 32)
    flat = heads.reshape(9, -1)
    n = (flat / np.sqrt((flat**2).mean(1, keepdims=True) + 1e-6) * weight).reshape(9, 2, 32, 2)
    turned = (n[..., 0] + 1j * n[..., 1]) * np.exp(1j * angle)[:, None]
    given, norm, turns, to = Gpu(heads, to=160), f32(weight), (f32(np.cos(angle)), f32(np.sin(angle))), Gpu(heads)
    norm_of = Claimed(128, dtype="float32", address=norm.claim._managed.tensor.data)
    cos, sin = (t.claim for t in turns)
    kernels.qk_norm_rope(given.claim, to.claim, weight=norm_of, cos=cos, sin=sin, stream=STREAM)
    close(to.get(), np.stack([turned.real, turned.imag], -1).reshape(9, 2, 64))

    a, b = normal(9, 64), normal(9, 64)
    held = Gpu(a), Gpu(b)
    kernels.add(held[0].claim, held[1].claim, stream=STREAM)
    close(held[1].get(), a + b)


def sampler():
    n, g = 23, 5.0
    names = ("x", "conditional", "unconditional", "velocity", "last")
    s = {name: normal(1, n) for name in names} | {"history": normal(3, n)}
    weights = np.array([1.0, -0.7, 0.4, 0.6, 0.1, 0.2, -0.1, 0.9, 0.1, -0.05], np.float32)
    table = np.zeros((4, 12), np.float32)
    table[:, :10], table[:, 11] = weights, np.ones(4, np.int32).view(np.float32)
    held = {name: f32(a) for name, a in {**s, "coefficients": table}.items()}
    flat = {name: Claimed(n, dtype="float32", address=held[name].claim._managed.tensor.data) for name in names}
    modality = kernels.Modality(
        **flat, history=held["history"].claim, coefficients=held["coefficients"].claim, guidance=g
    )
    counters = [aligned((1,), np.int32) for _ in range(2)]
    counters[0][0] = 2
    kernels.sampler_step(
        [modality], *[Claimed(1, dtype="int32", address=c.ctypes.data) for c in counters], stream=STREAM
    )
    v = s["unconditional"] + g * (s["conditional"] - s["unconditional"])
    data_x, data_v, fix_x, fix_last, fix_m0, fix_m1, fix_m2, next_x, next_m0, next_m1 = weights
    m0, m1, m2 = data_x * s["x"] + data_v * v, s["history"][1], s["history"][0]  # of steps 2, 1 and 0
    c = fix_x * s["x"] + fix_last * s["last"] + fix_m0 * m0 + fix_m1 * m1 + fix_m2 * m2
    close(held["x"].get(), next_x * c + next_m0 * m0 + next_m1 * m1, 1e-5)
    close(held["last"].get(), c, 1e-5)
    close(held["history"].get()[2], m0[0], 1e-5)
    assert counters[0][0] == 3 and counters[1][0] == 0


if __name__ == "__main__":
    assert kernels.multiprocessors(0) == 2
    for check in (attention, products, rows, sampler):
        check()
        print(check.__name__, "ok")
