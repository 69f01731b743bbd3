"""wamcore._kernels: operations on arrays. Every operation and its definition against numpy, on fresh random inputs."""

import ast
import operator

import numpy as np
import pytest
import wamcore
from wamcore import _kernels as kernels


@pytest.fixture(params=["ref", 1, 3], ids=["ref", "cpu", "cpu_3_threads"])
def call(request):
    """call(name, ...) runs an operation in one of its forms."""
    if request.param == "ref":
        return lambda name, *args, **kwargs: getattr(kernels, name + "_ref")(*args, **kwargs)
    ops = kernels.Ops("cpu", threads=request.param)
    assert ops.threads == request.param
    return lambda name, *args, **kwargs: getattr(ops, name)(*args, **kwargs)


@pytest.fixture
def rng():
    return np.random.default_rng()


def randn(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def close(got, want):
    assert np.abs(got - want).max() <= 1e-5 * max(1e-12, np.abs(want).max())


def test_attention_over_spans(call, rng):
    rows, heads, d = rng.integers(1, 7), rng.integers(1, 4), int(rng.integers(1, 70))
    memory = randn(rng, 20, heads, 2 * d)[:, :, :d]  # a view would not do: heads must follow each other
    spans = [(randn(rng, n, heads, d), randn(rng, n, heads, d)) for n in (1, 0, 17)]
    wide = randn(rng, 9, 2 * heads, d)  # rows further apart than they are long
    spans.append((wide[:, :heads], wide[:, heads:]))
    q, out, bias = randn(rng, rows, heads, d), randn(rng, rows, heads, d), randn(rng, heads, rows, 27)
    k, v = (np.concatenate(x) for x in zip(*spans, strict=True))
    score = np.einsum("ihd,jhd->hij", q, k) * 0.3 + bias
    weight = np.exp(score - score.max(-1, keepdims=True))
    want = out + np.einsum("hij,jhd->ihd", weight / weight.sum(-1, keepdims=True), v)
    call("attention", q, spans, out, scale=0.3, accumulate=True, bias=bias)
    close(out, want)
    if heads > 1:
        with pytest.raises(wamcore.ShapeError, match="k of a span must be contiguous inside each row"):
            call("attention", q, [(memory, memory)], out, scale=1.0)


def test_gemm(call, rng):
    m, k, n = (int(rng.integers(1, 80)) for _ in range(3))
    x, w, bias, residual, gate = (randn(rng, *s) for s in ((m, k), (n, k), (n,), (m, n), (3, n)))
    row = rng.integers(0, 3, m, dtype=np.int32)
    packed = kernels.pack_weight(w)
    assert packed.shape == (-(-n // kernels.PANEL), k, kernels.PANEL) and packed.dtype == np.float32
    y = np.empty((m, n + 5), np.float32)[:, :n]
    call("gemm", x, packed, y, bias=bias, activation="silu", residual=residual, gate=gate, gate_row=row)
    z = (x @ w.T + bias).astype(np.float64)
    close(y, residual + gate[row] * (z / (1 + np.exp(-z))))
    call("gemm", x, packed, residual, residual=residual)  # in place
    assert np.isfinite(residual).all()


def test_layer_norm(call, rng):
    rows, cols = int(rng.integers(1, 20)), int(rng.integers(2, 100))
    x, weight, bias, mod = randn(rng, rows, cols), randn(rng, cols), randn(rng, cols), randn(rng, 4, 2 * cols)
    shift, scale, row = mod[:, :cols], mod[:, cols:], rng.integers(0, 4, rows, dtype=np.int32)
    y = np.empty_like(x)
    call("layer_norm", x, y, eps=1e-5, weight=weight, bias=bias, shift=shift, scale=scale, time_row=row)
    z = x.astype(np.float64)
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    close(y, (z * weight + bias) * (1 + scale[row]) + shift[row])


def test_qk_norm_rope_in_place(call, rng):
    rows, heads, d = int(rng.integers(1, 9)), int(rng.integers(1, 4)), 2 * int(rng.integers(1, 40))
    x, weight, angle = randn(rng, rows, heads, d), randn(rng, heads * d), randn(rng, rows, d // 2)
    z = x.reshape(rows, -1).astype(np.float64)
    z = (z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-6) * weight).reshape(rows, heads, d // 2, 2)
    turned = (z[..., 0] + 1j * z[..., 1]) * np.exp(1j * angle.astype(np.float64))[:, None]
    call("qk_norm_rope", x, x, weight=weight, cos=np.cos(angle), sin=np.sin(angle))
    close(x, np.stack([turned.real, turned.imag], -1).reshape(rows, heads, d))


def test_torch_arrays_are_used_in_place(call):
    torch = pytest.importorskip("torch")
    x, w, y = torch.randn(5, 7), torch.randn(3, 7), torch.empty(5, 3)
    call("gemm", x, kernels.pack_weight(w), y)
    assert torch.allclose(y, x @ w.T, atol=1e-5)


F = np.zeros((4, 6), np.float32)
HEADS = np.zeros((4, 2, 3), np.float32)
PACKED = kernels.pack_weight(np.zeros((6, 6), np.float32))


@pytest.mark.parametrize(
    "name, args, kwargs, message",
    [
        ("gemm", (F, PACKED, F[:2].copy()), {}, r"gemm: y must be \[4, 6\], got \[2, 6\]"),
        ("gemm", (F[:, :5], PACKED, F.copy()), {}, r"gemm: w must be \[1, 5, 32\], got \[1, 6, 32\]"),
        ("gemm", (F, PACKED, F.copy()), {"bias": F[0, :5]}, r"bias must be \[6\], got \[5\]"),
        ("gemm", (F.T.copy().T, PACKED, F.copy()), {}, "x must be contiguous inside each row"),
        ("gemm", (F, PACKED, F.copy()), {"gate_row": np.zeros(4, np.int32)}, "gate_row needs gate"),
        (
            "gemm",
            (F, PACKED, F.copy()),
            {"gate": F, "gate_row": np.array([0, 1, 4, 0], np.int32)},
            r"gate_row\[2\] must be 0 to 3, got 4",
        ),
        ("layer_norm", (F, F.copy()), {"weight": F[0]}, "weight and bias come together"),
        ("layer_norm", (F, F.copy()), {"shift": F, "scale": F[:2]}, r"scale must be \[4, 6\], got \[2, 6\]"),
        ("qk_norm_rope", (HEADS, HEADS.copy()), {"cos": F, "sin": F}, "head_dim must be even"),
        ("attention", (HEADS, [], HEADS.copy()), {"scale": 1.0}, "at least one key"),
        ("attention", (HEADS, [(HEADS, HEADS[:3])], HEADS.copy()), {"scale": 1.0}, r"v of a span must be \[4, 2, 3\]"),
        ("attention", (np.zeros((1, 1, 1025), np.float32), [], HEADS.copy()), {"scale": 1.0}, "1 to 1024"),
    ],
)
def test_wrong_shapes(call, name, args, kwargs, message):
    with pytest.raises(wamcore.ShapeError, match=message):
        call(name, *args, **kwargs)


def test_nothing_is_converted(call):
    for bad in (F.astype(np.float64), F.astype(np.float16), F.tolist()):
        with pytest.raises(TypeError):
            call("layer_norm", bad, F.copy())
    with pytest.raises(TypeError):
        call("layer_norm", F, np.zeros((4, 6)))  # the result would be lost in a copy
    with pytest.raises(TypeError):
        call("layer_norm", F, F.copy(), shift=F.astype(np.float64), scale=F)
    with pytest.raises(TypeError):
        call("attention", HEADS, [(HEADS, HEADS.astype(np.float64))], HEADS.copy(), scale=1.0)
    with pytest.raises(TypeError):
        call("gemm", F, PACKED, F.copy(), gate=F, gate_row=np.zeros(4, np.int64))
    frozen = F.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        call("layer_norm", F, frozen)


def test_unknown_names():
    with pytest.raises(wamcore.InputError, match=r"gelu_tanh.*got 'gelu'"):
        kernels.gemm_ref(F, PACKED, F.copy(), activation="gelu")
    with pytest.raises(wamcore.DeviceError, match="tpu"):
        kernels.Ops("tpu")
    with pytest.raises(wamcore.DeviceError, match="threads"):
        kernels.Ops("cpu", threads=-1)
    with pytest.raises(wamcore.DeviceError, match="threads must be 1 to 1024, got 0"):
        wamcore.kernels.layer_norm(F, F.copy(), threads=0)


def test_the_stub_describes_the_module(root):
    tree = ast.parse((root / "python/wamcore/_kernels.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    stubs = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {*stubs, *classes} == {n for n in dir(kernels) if callable(getattr(kernels, n)) and n[0] != "_"}
    for name, node in classes.items():
        methods = {f"{name}.{f.name}": f for f in node.body if isinstance(f, ast.FunctionDef)}
        public = {f"{name}.{n}" for n in dir(getattr(kernels, name)) if n[0] != "_"}
        assert set(methods) == public | {f"{name}.__init__"}
        stubs |= methods
    for name, stub in stubs.items():
        signature = getattr(operator.attrgetter(name)(kernels), "__doc__", "").split("\n")[0]
        if "(" in signature:  # properties have none
            at = [signature.find(f"{arg.arg}: ") for arg in stub.args.args if arg.arg != "self"]
            assert at == sorted(at) and -1 not in at, f"{name}: the stub differs from {signature}"
