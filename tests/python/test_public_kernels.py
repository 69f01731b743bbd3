"""wamcore.kernels: results on CPU arrays of several libraries, and what wrong arguments are told, on a GPU too: arrays
that claim to lie on one are enough for that.
"""

import ctypes
import re

import numpy as np
import pytest
import wamcore
from wamcore import _core, kernels


def randn(*shape):
    return np.random.default_rng().standard_normal(shape, dtype=np.float32)


def test_attention_reads_segments_in_place():
    q, out = randn(5, 3, 16), np.empty((5, 3, 16), np.float32)
    wide = randn(9, 6, 16)
    segments = [(wide[:, :3], wide[:, 3:]), (randn(4, 3, 16), randn(4, 3, 16))]
    kernels.attention(q, segments, out, threads=1)
    k, v = (np.concatenate(x) for x in zip(*segments, strict=True))
    weight = np.exp(np.einsum("ihd,jhd->hij", q, k) / 4)
    want = np.einsum("hij,jhd->ihd", weight / weight.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_gemm_layer_norm_and_rope():
    x, w, bias, residual, gate = randn(5, 24), randn(8, 24), randn(8), randn(5, 8), randn(2, 8)
    row, y = np.array([0, 1, 1, 0, 1], np.int32), np.empty((5, 8), np.float32)
    kernels.gemm(x, kernels.pack_weight(w), y, bias=bias, residual=residual, gate=gate, gate_row=row, threads=1)
    np.testing.assert_allclose(y, residual + gate[row] * (x @ w.T + bias), rtol=1e-4, atol=1e-5)

    shift, scale, z = randn(2, 24), randn(2, 24), np.empty((5, 24), np.float32)
    kernels.layer_norm(x, z, shift=shift, scale=scale, time_row=row, threads=1)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(z, normal * (1 + scale[row]) + shift[row], rtol=1e-4, atol=1e-5)

    heads, weight, angle = x.reshape(5, 3, 8).copy(), randn(24), randn(5, 4)
    kernels.qk_norm_rope(heads, heads, weight=weight, cos=np.cos(angle), sin=np.sin(angle), threads=1)
    n = (x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight).reshape(5, 3, 4, 2)
    turned = (n[..., 0] + 1j * n[..., 1]) * np.exp(1j * angle)[:, None]
    np.testing.assert_allclose(heads, np.stack([turned.real, turned.imag], -1).reshape(5, 3, 8), rtol=1e-4, atol=1e-5)


def test_three_projections_and_a_sum():
    x, w, bias = randn(5, 24), randn(96, 24), randn(96)
    parts = [np.empty((5, 32), np.float32) for _ in range(3)]
    kernels.gemm_qkv(x, kernels.pack_weight(w), *parts, bias=bias, threads=1)
    np.testing.assert_allclose(np.concatenate(parts, 1), x @ w.T + bias, rtol=1e-4, atol=1e-5)
    total = parts[0] + parts[1]
    kernels.add(parts[1], parts[0])
    np.testing.assert_array_equal(parts[0], total)


def test_torch_tensors_are_used_in_place():
    torch = pytest.importorskip("torch")
    x, w, y = torch.randn(5, 7), torch.randn(3, 7), torch.empty(5, 3)
    kernels.gemm(x, kernels.pack_weight(w), y)
    assert torch.allclose(y, x @ w.T, atol=1e-5)
    with pytest.raises(wamcore.InputError, match="gemm: y: wanted float32 on the CPU, got bfloat16"):
        kernels.gemm(x, kernels.pack_weight(w), y.bfloat16())


# DLPack's structures, for arrays that claim to be on a GPU. Nobody follows their address before a plugin is there.
class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


CODES = {"int32": (0, 32), "uint8": (1, 8), "float32": (2, 32), "bfloat16": (4, 16)}


class Claimed:
    """An array that says it lies on a GPU (device type 2), or wherever `device` says."""

    def __init__(self, *shape, dtype="bfloat16", device=(2, 0), strides=None, address=0x7F0000000000):
        self.device, self.streams = device, []
        n = len(shape)
        self._shape = (ctypes.c_int64 * n)(*shape)
        inner = [int(np.prod(shape[i + 1 :])) for i in range(n)]
        self._strides = (ctypes.c_int64 * n)(*(strides or inner))
        code, bits = CODES[dtype]
        self._managed = _Managed(_Tensor(address, *device, n, code, bits, 1, self._shape, self._strides, 0), None, None)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, stream=None, **_):
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._managed), b"dltensor", None)


F, HEADS = np.zeros((4, 6), np.float32), np.zeros((4, 2, 3), np.float32)
PACKED = kernels.pack_weight(np.zeros((6, 6), np.float32))
G, W, B8 = Claimed(4, 16), Claimed(8, 16), Claimed(4, 8)
QKV = Claimed(5, 2, 64)
FROZEN = F.copy()
FROZEN.flags.writeable = False

MODALITY = kernels.Modality(*[F[0]] * 5, np.zeros((3, 6), np.float32), np.zeros((5, 12), np.float32))
SEVEN, ONE = Claimed(7, dtype="float32"), Claimed(1, dtype="int32")
GPU_MODALITY = kernels.Modality(
    *[SEVEN] * 5, history=Claimed(3, 7, dtype="float32"), coefficients=Claimed(5, 12, dtype="float32"), guidance=5.0
)

WRONG = [
    # function, arguments, options, error, message
    ("gemm", (F.tolist(), PACKED, F), {}, "InputError", "gemm: x: wanted an array that speaks DLPack, got list"),
    ("gemm", (F.astype("f8"), PACKED, F), {}, "InputError", "gemm: x: wanted float32 on the CPU, got float64"),
    ("gemm", (F, PACKED, F[:2]), {}, "ShapeError", "gemm: y: wanted [4, any], got [2, 6]"),
    ("gemm", (F[0], PACKED, F), {}, "ShapeError", "gemm: x: wanted 2 axes, got [6]"),
    ("gemm", (F, F, F.copy()), {}, "ShapeError", "gemm: w: wanted [1, 6, 32], got [4, 6]"),
    ("gemm", (F.T.copy().T, PACKED, F), {}, "ShapeError", "gemm: x: wanted each row contiguous, got strides [1, 4]"),
    ("gemm", (F, PACKED, FROZEN), {}, "InputError", "gemm: y: wanted memory that can be written, got a read-only"),
    ("gemm", (F, PACKED, F.copy()), {"activation": "gelu"}, "InputError", "got 'gelu'"),
    ("gemm", (F, PACKED, F.copy()), {"gate_row": F}, "InputError", "gemm: gate_row: wanted gate beside it, got none"),
    (
        "gemm",
        (F, PACKED, F.copy()),
        {"x_scale": F[:, 0].copy(), "w_scale": F[0]},
        "DeviceError",
        "wanted arrays on a GPU",
    ),
    (
        "gemm",
        (F, PACKED, np.zeros((2, 6), np.float32)[[0, 0, 1, 1]]),
        {"bias": F},
        "ShapeError",
        "bias: wanted [6], got [4, 6]",
    ),
    ("layer_norm", (F, F.copy()), {"weight": F[0]}, "InputError", "weight and bias: wanted both or none, got one"),
    (
        "layer_norm",
        (F, F.copy()),
        {"shift": F, "scale": F[:2]},
        "ShapeError",
        "scale: wanted shape and row stride of shift",
    ),
    (
        "layer_norm",
        (F, F.copy()),
        {"time_row": F},
        "InputError",
        "time_row: wanted shift and scale beside it, got none",
    ),
    (
        "layer_norm",
        (F, np.broadcast_to(F[0], (4, 6)).view()),
        {},
        "InputError",
        "layer_norm: y: wanted memory that can be",
    ),
    ("qk_norm_rope", (HEADS, HEADS.copy()), {"cos": F, "sin": F}, "ShapeError", "head_dim of x: wanted an even one"),
    ("qk_norm_rope", (HEADS, HEADS.copy()), {"cos": F}, "InputError", "cos and sin: wanted both or none, got one"),
    ("attention", (HEADS, [], HEADS.copy()), {}, "ShapeError", "segments: wanted at least one key, got none"),
    (
        "attention",
        (HEADS, [(HEADS,)], HEADS.copy()),
        {},
        "InputError",
        "segments[0]: wanted a pair (k, v), got 1 arrays",
    ),
    (
        "attention",
        (HEADS, [(HEADS, HEADS[:3])], HEADS.copy()),
        {},
        "ShapeError",
        "v of segments[0]: wanted [4, 2, 3], got [3",
    ),
    (
        "attention",
        (HEADS, [(HEADS, HEADS)], HEADS.copy()),
        {"lse": F},
        "DeviceError",
        "lse: wanted arrays on a GPU with it",
    ),
    (
        "quantize_rows",
        (F, F.astype("u1"), F[:, 0].copy()),
        {},
        "DeviceError",
        "x: wanted an array on a GPU, got one in the CPU's",
    ),
    ("pack_weight", (F[0],), {}, "ShapeError", "pack_weight: w: wanted 2 axes, got [6]"),
    (
        "layer_norm",
        (F, F.copy()),
        {"y_scale": F[:, 0].copy()},
        "DeviceError",
        "y_scale: wanted arrays on a GPU with it",
    ),
    ("add", (F, F[:2]), {}, "ShapeError", "add: y: wanted [4, 6], got [2, 6]"),
    ("add", (F[:, :3], F), {}, "ShapeError", "add: x: wanted a contiguous array, got strides [6, 1] for [4, 3]"),
    ("gemm_qkv", (F, PACKED, F, F, F), {}, "ShapeError", "gemm_qkv: q: wanted columns a multiple of 32, got 6"),
    ("sampler_step", ([], F, F), {}, "InputError", "sampler_step: modalities: wanted one or two, got 0"),
    ("sampler_step", ([MODALITY], F, F), {}, "DeviceError", "x of modalities[0]: wanted an array on a GPU, got one in"),
    # arrays on a GPU
    ("gemm_qkv", (G, W, B8, B8, B8), {}, "ShapeError", "gemm_qkv: q: wanted columns a multiple of 64, got 8"),
    ("add", (G, Claimed(4, 16, dtype="float32")), {}, "InputError", "add: y: wanted bfloat16 on a GPU, got float32"),
    ("layer_norm", (G, G), {"y_scale": Claimed(4, dtype="float32")}, "InputError", "y: wanted uint8 on a GPU, got bfl"),
    (
        "sampler_step",
        ([GPU_MODALITY._replace(last=Claimed(6, dtype="float32"))], ONE, ONE),
        {},
        "ShapeError",
        "sampler_step: last of modalities[0]: wanted [7], got [6]",
    ),
    (
        "sampler_step",
        ([GPU_MODALITY._replace(x=Claimed(7))], ONE, ONE),
        {},
        "InputError",
        "sampler_step: x of modalities[0]: wanted float32 on a GPU, got bfloat16",
    ),
    (
        "sampler_step",
        ([GPU_MODALITY._replace(coefficients=Claimed(5, 10, dtype="float32"))], ONE, ONE),
        {},
        "ShapeError",
        "sampler_step: coefficients of modalities[0]: wanted [any, 12], got [5, 10]",
    ),
    ("sampler_step", ([GPU_MODALITY], None, ONE), {}, "InputError", "step and ticket: wanted arrays, got None"),
    (
        "gemm",
        (G, W, np.zeros((4, 8), np.float32)),
        {},
        "DeviceError",
        "gemm: y: wanted it on cuda:0 like x, got it on the CPU",
    ),
    ("gemm", (F, G, F), {}, "DeviceError", "gemm: w: wanted it on the CPU like x, got it on cuda:0"),
    (
        "gemm",
        (G, W, Claimed(4, 8, device=(2, 1))),
        {},
        "DeviceError",
        "gemm: y: wanted it on cuda:0 like x, got it on cuda:1",
    ),
    ("gemm", (Claimed(4, 16, device=(10, 0)), W, B8), {}, "DeviceError", "a CUDA GPU, got DLPack device type 10"),
    (
        "gemm",
        (Claimed(4, 16, dtype="float32"), W, B8),
        {},
        "InputError",
        "gemm: x: wanted bfloat16 on a GPU, got float32",
    ),
    (
        "gemm",
        (G, W, B8),
        {"bias": Claimed(8, dtype="float32")},
        "InputError",
        "bias: wanted bfloat16 on a GPU, got float32",
    ),
    ("gemm", (G, W, B8), {"activation": "silu"}, "InputError", "'gelu_tanh' without residual, on a GPU, got 'silu'"),
    ("gemm", (G, W, B8), {"residual": B8}, "InputError", "residual and gate: wanted both or none on a GPU, got one"),
    (
        "gemm",
        (G, W, B8),
        {"x_scale": Claimed(4, dtype="float32")},
        "InputError",
        "x_scale and w_scale: wanted both or none",
    ),
    (
        "gemm",
        (Claimed(4, 12), Claimed(8, 12), B8),
        {},
        "ShapeError",
        "n a multiple of 8 and k of 8 on a GPU, got 8 and 12",
    ),
    (
        "gemm",
        (Claimed(4, 16, strides=(20, 1)), W, B8),
        {},
        "ShapeError",
        "x: wanted rows that start at multiples of 16 bytes",
    ),
    ("gemm", (Claimed(4, 16, address=0x7F0000000002), W, B8), {}, "ShapeError", "got an address that is 2 off"),
    ("layer_norm", (Claimed(2, 8200), Claimed(2, 8200)), {}, "ShapeError", "at most 8192 columns on a GPU, got 8200"),
    (
        "qk_norm_rope",
        (QKV, Claimed(5, 2, 64, strides=(256, 64, 1))),
        {},
        "ShapeError",
        "y: wanted contiguous rows on a GPU",
    ),
    (
        "qk_norm_rope",
        (Claimed(5, 2, 6, address=0x7F0000000002), Claimed(5, 2, 6)),
        {},
        "ShapeError",
        "x: wanted rows that start at multiples of 4 bytes, got an address that is 2 off",
    ),
    (
        "qk_norm_rope",
        (Claimed(5, 2, 6, strides=(13, 6, 1)), Claimed(5, 2, 6)),
        {},
        "ShapeError",
        "x: wanted rows that start at multiples of 4 bytes, got an address that is 0 off and a row stride of 13",
    ),
    (
        "qk_norm_rope",
        (Claimed(5, 2, 6), Claimed(5, 2, 6)),
        {"weight": Claimed(12, dtype="float32", address=0x7F0000000004)},
        "ShapeError",
        "weight: wanted rows that start at multiples of 8 bytes, got an address that is 4 off",
    ),
    ("qk_norm_rope", (Claimed(5, 2, 3), Claimed(5, 2, 3)), {}, "ShapeError", "wanted an even one on a GPU, got 3"),
    (
        "attention",
        (Claimed(5, 2, 64, strides=(132, 64, 1)), [(QKV, QKV)], QKV),
        {},
        "ShapeError",
        "q: wanted rows that start at multiples of 16 bytes, got an address that is 0 off and a row stride of 132",
    ),
    (
        "attention",
        (QKV, [(QKV, Claimed(5, 2, 64, address=0x7F0000000008))], QKV),
        {},
        "ShapeError",
        "v of segments[0]: wanted rows that start at multiples of 16 bytes, got an address that is 8 off",
    ),
    (
        "attention",
        (Claimed(5, 2, 96), [(Claimed(7, 2, 96),) * 2], Claimed(5, 2, 96)),
        {},
        "ShapeError",
        "wanted 64 or 128 on a GPU, got 96",
    ),
    (
        "attention",
        (QKV, [(QKV, QKV)] * 5, QKV),
        {},
        "ShapeError",
        "wanted 1 to 4 that are not empty on a GPU, got [5, 5, 5, 5, 5]",
    ),
    (
        "attention",
        (QKV, [(QKV, Claimed(5, 2, 64, strides=(256, 64, 1)))], QKV),
        {},
        "ShapeError",
        "k and v of one row stride, got 128, 256",
    ),
    ("attention", (QKV, [(QKV, QKV)], QKV), {"splits": 9}, "InputError", "splits: wanted 1 to 8, got 9"),
    (
        "attention",
        (QKV, [(QKV, QKV)], QKV),
        {"lse": Claimed(5, 2, dtype="float32")},
        "ShapeError",
        "lse: wanted [2, 5], got [5, 2]",
    ),
    (
        "quantize_rows",
        (G, Claimed(4, 16, dtype="uint8", strides=(20, 1)), Claimed(4, dtype="float32")),
        {},
        "ShapeError",
        "row stride of y of 16, got 16, 20",
    ),
    ("pack_weight", (G,), {}, "DeviceError", "pack_weight: w: wanted an array in the CPU's memory, got one on cuda:0"),
]


@pytest.mark.parametrize(("function", "args", "options", "error", "message"), WRONG)
def test_wrong_arguments_are_told_what_was_wanted_and_what_came(function, args, options, error, message):
    with pytest.raises(getattr(wamcore, error), match=re.escape(message)) as e:
        getattr(kernels, function)(*args, **options)
    assert str(e.value).startswith(f"{function}: ") and "wanted" in str(e.value) and "got" in str(e.value)


FINE = [
    ("gemm", (G, W, B8), {"bias": Claimed(8), "activation": "gelu_tanh"}),
    (
        "gemm",
        (Claimed(4, 16, dtype="uint8"), Claimed(8, 16, dtype="uint8"), B8),
        {"x_scale": Claimed(4, dtype="float32"), "w_scale": Claimed(8, dtype="float32")},
    ),
    (
        "gemm",
        (G, W, B8),
        {"residual": B8, "gate": Claimed(2, 8, dtype="float32"), "gate_row": Claimed(4, dtype="int32")},
    ),
    ("layer_norm", (G, Claimed(4, 16)), {"weight": Claimed(16, dtype="float32"), "bias": Claimed(16, dtype="float32")}),
    ("qk_norm_rope", (QKV, QKV), {"weight": Claimed(128, dtype="float32")}),
    ("attention", (QKV, [(QKV, QKV)], Claimed(5, 2, 64)), {"splits": 2, "lse": Claimed(2, 5, dtype="float32")}),
    ("attention", (QKV, [(QKV, QKV)], Claimed(5, 2, 64)), {}),
    ("gemm_qkv", (G, Claimed(192, 16), *[Claimed(4, 64)] * 3), {"bias": Claimed(192)}),
    ("add", (G, Claimed(4, 16)), {}),
    ("layer_norm", (G, Claimed(4, 16, dtype="uint8")), {"y_scale": Claimed(4, dtype="float32")}),
    ("sampler_step", ([GPU_MODALITY, GPU_MODALITY._replace(unconditional=None)], ONE, ONE), {}),
    ("quantize_rows", (G, Claimed(4, 16, dtype="uint8"), Claimed(4, dtype="float32")), {}),
]


@pytest.mark.skipif(_core.cuda_status()[0], reason="there is a GPU, and these addresses are not its")
@pytest.mark.parametrize(("function", "args", "options"), FINE)
def test_without_a_gpu_the_reason_is_told(function, args, options):
    with pytest.raises(wamcore.DeviceError) as e:
        getattr(kernels, function)(*args, **options)
    why = _core.cuda_status()[1]
    name = "multiprocessors" if function == "attention" and not options else function
    assert str(e.value) == f"{name}: wanted kernels for arrays on cuda:0, got none: {why}"
    assert all(s == -1 for a in args if isinstance(a, Claimed) for s in a.streams)  # nobody waits for a stream


def test_the_module_is_an_attribute_of_the_package():
    assert wamcore.kernels is kernels
    with pytest.raises(AttributeError, match="module 'wamcore' has no attribute 'kernel'"):
        _ = wamcore.kernel


def test_docstrings_say_dtypes_errors_and_sources():
    for name in kernels.__all__:
        text = getattr(kernels, name).__doc__
        if name in ("multiprocessors", "pack_weight"):
            continue
        for part in ("Args:", "Raises:", "Source:", "float32", "bfloat16", "stream"):
            assert part in text, f"{name}: no {part}"
