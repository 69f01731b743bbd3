"""Single kernels on arrays of any library that speaks DLPack, on the CPU and on a GPU.

Results are written into the array given for them; nothing is copied or converted. Every axis but the first must be
contiguous. On the CPU all numbers are float32; on a GPU they are bfloat16, or what is said below, and the kernel is put
on the caller's stream and not waited for.

Errors are `ShapeError` (shape, stride), `InputError` (no array, dtype, an option) and `DeviceError` (arrays on several
devices, no CUDA plugin, driver or GPU for them, or an error of CUDA). Each says the function, what was wanted and what
came.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _kernels
from ._core import DeviceError, InputError, ShapeError
from ._kernel_arrays import Arguments, Array

__all__ = [
    "add",
    "attention",
    "gemm",
    "gemm_qkv",
    "layer_norm",
    "multiprocessors",
    "pack_weight",
    "qk_norm_rope",
    "quantize_rows",
    "sampler_step",
]

SEGMENTS = 4  # most that the GPU's attention takes
EPILOGUES = {"none": "bias", "gelu_tanh": "bias_gelu"}
ACTIVATIONS = ("none", "gelu_tanh", "gelu_erf", "silu", "relu")


@functools.lru_cache(maxsize=4)
def _ops(threads: int | None) -> _kernels.Ops:
    return _kernels.Ops("cpu", threads=threads)


def attention(
    q: Any,
    segments: Sequence[tuple[Any, Any]],
    out: Any,
    *,
    scale: float | None = None,
    splits: int | None = None,
    lse: Any = None,
    stream: int | None = None,
    threads: int | None = None,
) -> None:
    """out = softmax(scale q k^T) v over the rows of all segments together, read in place; no mask.

    Args:
        q: [rows, heads, head_dim]; float32 on the CPU; bfloat16 on a GPU, head_dim 64 or 128, and rows of all arrays
            start at multiples of 16 bytes.
        segments: pairs (k, v), each [n, heads, head_dim] of q's dtype; on a GPU 1 to 4, none empty, k and v of a pair
            with the same row stride. A GPU with wgmma fetches whole tiles: rows past the n of a larger buffer are
            not read.
        out: [rows, heads, head_dim] of q's dtype.
        scale: of the scores; None: head_dim ** -0.5.
        splits: GPU only: parts into which the keys are divided, each a block of its own, so that all multiprocessors
            have work to the end; 1 to 8; None: what `splits_for` chooses.
        lse: GPU only: float32 [heads, rows], takes the natural logarithm of each softmax's sum.
        stream: GPU only: the address of a cudaStream_t; None: torch's current stream for its tensors, else the default.
        threads: CPU only; None: all that the process may use.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: self-attention of DreamZero's released `CausalWanModel`, dense over cached, current and register tokens; the
    GPU's kernels follow FlashAttention-2 and -3 (arXiv:2307.08691, arXiv:2407.08608).
    """
    call = Arguments("attention", stream)
    a = call.array("q", q, 3)
    rows, heads, d = a.shape
    o = call.array("out", out, a.shape, written=True)
    pairs = []
    for i, pair in enumerate(segments):
        if len(pair) != 2:
            raise InputError(f"attention: segments[{i}]: wanted a pair (k, v), got {len(pair)} arrays")
        k = call.array(f"k of segments[{i}]", pair[0], (None, heads, d))
        pairs.append((k, call.array(f"v of segments[{i}]", pair[1], k.shape)))
    if not sum(k.shape[0] for k, _ in pairs):
        raise ShapeError("attention: segments: wanted at least one key, got none")
    scale = d**-0.5 if scale is None else float(scale)
    if not call.cuda:
        call.only_on_gpu(splits=splits if splits != 1 else None, lse=lse)
        call.dtypes("float32", q=a, out=o, **call.named(pairs))
        _ops(threads).attention(q, [tuple(pair) for pair in segments], out, scale)
        return
    call.dtypes("bfloat16", q=a, out=o, **call.named(pairs))
    if d not in (64, 128):
        raise ShapeError(f"attention: head_dim of q: wanted 64 or 128 on a GPU, got {d}")
    if len(pairs) > SEGMENTS or not all(k.shape[0] for k, _ in pairs):
        raise ShapeError(
            f"attention: segments: wanted 1 to {SEGMENTS} that are not empty on a GPU, got "
            f"{[k.shape[0] for k, _ in pairs]}"
        )
    for i, (k, v) in enumerate(pairs):
        if k.stride != v.stride:
            raise ShapeError(f"attention: segments[{i}]: wanted k and v of one row stride, got {k.stride}, {v.stride}")
    call.aligned(q=a, out=o, **call.named(pairs))
    sums = call.optional("lse", lse, (heads, rows), "float32", written=True)
    place = call.place()
    if splits is None:
        splits = splits_for(rows, heads, [k.shape[0] for k, _ in pairs], multiprocessors(call.gpu))
    if not 1 <= splits <= 8:
        raise InputError(f"attention: splits: wanted 1 to 8, got {splits}")
    _kernels.cuda_attention(
        place,
        (a.address, a.stride),
        (o.address, o.stride),
        sums.address if sums else 0,
        (rows, heads, d),
        [(k.address, v.address, k.stride, k.shape[0]) for k, v in pairs],
        scale,
        splits,
    )


def splits_for(rows: int, heads: int, segments: Sequence[int], multiprocessors: int) -> int:
    """Parts of the keys that fill a GPU best: tiles of 128 queries and 128 keys, one block a multiprocessor."""
    tiles = sum(-(-n // 128) for n in segments)
    return _kernels.attention_splits(-(-rows // 128) * heads, multiprocessors, tiles)


def pack_weight(w: Any) -> Any:
    """Lays a Linear weight out for `gemm` on the CPU; a GPU takes weights as they are.

    Args:
        w: float32 [n, k] in the CPU's memory, contiguous.

    Returns:
        float32 numpy array [ceil(n / PANEL), k, PANEL], zero padded.
    """
    call = Arguments("pack_weight", None)
    a = call.array("w", w, 2)
    if call.cuda:
        raise DeviceError(f"pack_weight: w: wanted an array in the CPU's memory, got one on cuda:{call.gpu}")
    call.dtypes("float32", w=a)
    return _kernels.pack_weight(w)


def _operands(**arrays: Array | None) -> dict[str, tuple[int, int]]:
    """Address and row stride of what is there, by name."""
    return {name: (a.address, a.stride) for name, a in arrays.items() if a}


def _channels(call: Arguments, x: Array, w: Array, x_scale: Any, w_scale: Any) -> int:
    """What the channels of a product on a GPU must be a multiple of: bfloat16, or with scales the bytes of e4m3."""
    call.together(x_scale=x_scale, w_scale=w_scale)
    call.dtypes("bfloat16" if x_scale is None else "uint8", x=x, w=w)
    return 8 if x_scale is None else 16


def gemm(
    x: Any,
    w: Any,
    y: Any,
    *,
    bias: Any = None,
    activation: str = "none",
    residual: Any = None,
    gate: Any = None,
    gate_row: Any = None,
    x_scale: Any = None,
    w_scale: Any = None,
    stream: int | None = None,
    threads: int | None = None,
) -> None:
    """y = residual + gate * activation(x w^T + bias), a Linear layer with what follows it in the same launch.

    Args:
        x: [m, k]; float32; on a GPU bfloat16, or with scales uint8 whose bits are e4m3.
        w: on the CPU what `pack_weight` gave; on a GPU [n, k] of x's dtype.
        y: [m, n]; float32; on a GPU bfloat16. May be `residual`, but not x.
        bias: [n] of y's dtype.
        activation: "none", "gelu_tanh", "gelu_erf", "silu" or "relu"; on a GPU "none", or "gelu_tanh" without residual.
        residual: [m, n] of y's dtype; on a GPU it comes with gate.
        gate: float32 [g, n].
        gate_row: int32 [m], the row of `gate` for each row of x; None: row 0.
        x_scale: GPU only: float32 [m], what a row of x is multiplied with (`quantize_rows` gives it).
        w_scale: GPU only: float32 [n].
        stream: GPU only: as for `attention`.
        threads: CPU only; None: all that the process may use.

    On a GPU n and k are multiples of 8 (k of 16 with scales), and rows start at multiples of 16 bytes.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: the projections and feed-forward layer of DreamZero's released `CausalWanModel`, whose blocks' biases, GELU
    and gated residuals are the epilogues; the sm_90a kernel's order of work is that of CUTLASS's warp-specialised ones.
    """
    call = Arguments("gemm", stream)
    a = call.array("x", x, 2)
    m, k = a.shape
    o = call.array("y", y, (m, None), written=True)
    n = o.shape[1]
    b = call.array("w", w, (n, k) if call.cuda else (-(-n // _kernels.PANEL), k, _kernels.PANEL))
    if activation not in ACTIVATIONS:
        raise InputError(f"gemm: activation: wanted one of {', '.join(ACTIVATIONS)}, got '{activation}'")
    if gate_row is not None and gate is None:
        raise InputError("gemm: gate_row: wanted gate beside it, got none")
    wide = "bfloat16" if call.cuda else "float32"
    added = {
        "bias": call.optional("bias", bias, (n,), wide),
        "residual": call.optional("residual", residual, (m, n), wide),
        "gate": call.optional("gate", gate, (None, n), "float32"),
        "gate_row": call.optional("gate_row", gate_row, (m,), "int32"),
        "x_scale": call.optional("x_scale", x_scale, (m,), "float32"),
        "w_scale": call.optional("w_scale", w_scale, (n,), "float32"),
    }
    call.dtypes(wide, y=o)
    if not call.cuda:
        call.only_on_gpu(x_scale=x_scale, w_scale=w_scale)
        call.dtypes("float32", x=a, w=b)
        _ops(threads).gemm(x, w, y, bias, activation, residual, gate, gate_row)
        return
    step = _channels(call, a, b, x_scale, w_scale)
    call.together(" on a GPU", residual=residual, gate=gate)
    if activation not in EPILOGUES or (activation != "none" and gate is not None):
        raise InputError(
            f"gemm: activation: wanted 'none', or 'gelu_tanh' without residual, on a GPU, got '{activation}'"
        )
    if n % 8 or k % step:
        raise ShapeError(f"gemm: w: wanted n a multiple of 8 and k of {step} on a GPU, got {n} and {k}")
    call.aligned(x=a, w=b, y=o, **{key: v for key, v in added.items() if v and key in ("bias", "residual", "gate")})
    epilogue = "gate_residual" if gate is not None else EPILOGUES[activation]
    _kernels.cuda_gemm(call.place(), epilogue, (m, n, k), _operands(x=a, w=b, y=o, **added))


def gemm_qkv(
    x: Any,
    w: Any,
    q: Any,
    k: Any,
    v: Any,
    *,
    bias: Any = None,
    x_scale: Any = None,
    w_scale: Any = None,
    stream: int | None = None,
    threads: int | None = None,
) -> None:
    """[q | k | v] = x w^T + bias, the columns sent to three places in one launch (three on the CPU).

    Args:
        x: [m, c]; float32; on a GPU bfloat16, or with scales uint8 whose bits are e4m3.
        w: as for `gemm`, of 3 n rows; n is a multiple of 32 on the CPU, of 64 on a GPU.
        q, k, v: [m, n]; float32; on a GPU bfloat16.
        bias: [3 n] of q's dtype.
        x_scale, w_scale, stream, threads: as for `gemm`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: the projections before self-attention in DreamZero's released `CausalWanModel`.
    """
    call = Arguments("gemm_qkv", stream)
    a = call.array("x", x, 2)
    m, c = a.shape
    first = call.array("q", q, (m, None), written=True)
    n = first.shape[1]
    parts = {"q": first, **{s: call.array(s, p, (m, n), written=True) for s, p in (("k", k), ("v", v))}}
    panels = (3 * n // _kernels.PANEL, c, _kernels.PANEL)
    step = 64 if call.cuda else _kernels.PANEL
    if n % step:
        raise ShapeError(f"gemm_qkv: q: wanted columns a multiple of {step}, got {n}")
    b = call.array("w", w, (3 * n, c) if call.cuda else panels, whole=not call.cuda)
    wide = "bfloat16" if call.cuda else "float32"
    call.dtypes(wide, **parts)
    added = {
        "bias": call.optional("bias", bias, (3 * n,), wide),
        "x_scale": call.optional("x_scale", x_scale, (m,), "float32"),
        "w_scale": call.optional("w_scale", w_scale, (3 * n,), "float32"),
    }
    if not call.cuda:
        call.only_on_gpu(x_scale=x_scale, w_scale=w_scale)
        call.dtypes("float32", x=a, w=b)
        ops, rows, each = _ops(threads), np.from_dlpack(w), n // _kernels.PANEL
        offsets = None if bias is None else np.from_dlpack(bias)
        for i, part in enumerate((q, k, v)):
            ops.gemm(x, rows[i * each : (i + 1) * each], part, None if bias is None else offsets[i * n : (i + 1) * n])
        return
    step = _channels(call, a, b, x_scale, w_scale)
    if c % step:
        raise ShapeError(f"gemm_qkv: x: wanted columns a multiple of {step} on a GPU, got {c}")
    call.aligned(x=a, w=b, **parts, **({"bias": added["bias"]} if added["bias"] else {}))
    _kernels.cuda_gemm(call.place(), "qkv", (m, 3 * n, c), _operands(x=a, w=b, **parts, **added))


def layer_norm(
    x: Any,
    y: Any,
    *,
    eps: float = 1e-6,
    weight: Any = None,
    bias: Any = None,
    shift: Any = None,
    scale: Any = None,
    time_row: Any = None,
    y_scale: Any = None,
    stream: int | None = None,
    threads: int | None = None,
) -> None:
    """y = (LN(x) * weight + bias) * (1 + scale[t]) + shift[t]: a norm, and its modulation by a timestep, in one pass.

    Args:
        x: [rows, cols]; float32; on a GPU bfloat16, at most 8192 columns.
        y: [rows, cols] of x's dtype.
        eps: added to the variance.
        weight, bias: float32 [cols], both or none.
        shift, scale: float32 [times, cols], both or none, of one row stride.
        time_row: int32 [rows], the row t of shift and scale; None: row 0.
        y_scale: GPU with wgmma only: float32 [rows], takes the scale of each row; y is then uint8, the bits of e4m3, as
            `gemm` wants them.
        stream, threads: as for `attention`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: adaptive layer norm of DiT (arXiv:2212.09748), as the blocks of DreamZero's released
    `CausalWanModel` apply it.
    """
    call = Arguments("layer_norm", stream)
    a = call.array("x", x, 2)
    rows, cols = a.shape
    o = call.array("y", y, a.shape, written=True)
    call.together(weight=weight, bias=bias)
    call.together(shift=shift, scale=scale)
    if time_row is not None and shift is None:
        raise InputError("layer_norm: time_row: wanted shift and scale beside it, got none")
    added = {
        "weight": call.optional("weight", weight, (cols,), "float32"),
        "bias": call.optional("bias", bias, (cols,), "float32"),
        "shift": call.optional("shift", shift, (None, cols), "float32"),
        "scale": call.optional("scale", scale, (None, cols), "float32"),
        "time_row": call.optional("time_row", time_row, (rows,), "int32"),
    }
    if shift is not None:
        one, other = added["shift"], added["scale"]
        if (one.shape, one.stride) != (other.shape, other.stride):
            raise ShapeError(
                f"layer_norm: scale: wanted shape and row stride of shift, {one.shape} and {one.stride}, got "
                f"{other.shape} and {other.stride}"
            )
    call.dtypes("bfloat16" if call.cuda else "float32", x=a)
    if not call.cuda:
        call.only_on_gpu(y_scale=y_scale)
        call.dtypes("float32", y=o)
        _ops(threads).layer_norm(x, y, eps, weight, bias, shift, scale, time_row)
        return
    call.at_most_columns(cols)
    added["y_scale"] = call.optional("y_scale", y_scale, (rows,), "float32", written=True)
    call.dtypes("bfloat16" if y_scale is None else "uint8", y=o)
    if y_scale is not None and (cols % 4 or a.stride % 4 or o.stride % 4):
        raise ShapeError(
            f"layer_norm: y: wanted columns and row strides that are multiples of 4 with y_scale, got {cols}, "
            f"{a.stride} and {o.stride}"
        )
    _kernels.cuda_layer_norm(call.place(), eps, (rows, cols), _operands(x=a, y=o, **added))


def qk_norm_rope(
    x: Any,
    y: Any,
    *,
    eps: float = 1e-6,
    weight: Any = None,
    cos: Any = None,
    sin: Any = None,
    stream: int | None = None,
    threads: int | None = None,
) -> None:
    """y = rope(x / rms(x) * weight), the root mean square over all heads of a row.

    Args:
        x: [rows, heads, head_dim], queries or keys; float32; on a GPU bfloat16.
        y: [rows, heads, head_dim] of x's dtype; may be x; contiguous on a GPU.
        eps: added to the mean square.
        weight: float32 [heads * head_dim]; None: no norm.
        cos, sin: float32 [rows, head_dim / 2], the turn of each pair (2i, 2i + 1); None: no rotation.
        stream, threads: as for `attention`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: RMSNorm (arXiv:1910.07467) and rotary embedding (arXiv:2104.09864), over the full width as
    in DreamZero's released `CausalWanModel`. On a GPU this is `qk_norm_rope_cachewrite` with one part; programs give it
    three.
    """
    call = Arguments("qk_norm_rope", stream)
    a = call.array("x", x, 3)
    rows, heads, d = a.shape
    o = call.array("y", y, a.shape, written=True)
    call.together(cos=cos, sin=sin)
    if cos is not None and d % 2:
        raise ShapeError(f"qk_norm_rope: head_dim of x: wanted an even one to be rotated, got {d}")
    norm = call.optional("weight", weight, (heads * d,), "float32")
    turns = [call.optional(n, v, (rows, d // 2), "float32", whole=True) for n, v in (("cos", cos), ("sin", sin))]
    call.dtypes("bfloat16" if call.cuda else "float32", x=a, y=o)
    if not call.cuda:
        _ops(threads).qk_norm_rope(x, y, eps, weight, cos, sin)
        return
    call.at_most_columns(heads * d)
    if d % 2:
        raise ShapeError(f"qk_norm_rope: head_dim of x: wanted an even one on a GPU, got {d}")
    call.aligned(2, x=a, y=o, **({"weight": norm} if norm else {}))
    if o.stride != heads * d:
        raise ShapeError(f"qk_norm_rope: y: wanted contiguous rows on a GPU, got a row stride of {o.stride}")
    part = (a.address, a.stride, o.address, norm.address if norm else 0, cos is not None)
    rope = tuple(t.address if t else 0 for t in turns)
    _kernels.cuda_qk_norm_rope(call.place(), eps, (rows, heads, d), [part], rope)


def add(x: Any, y: Any, *, stream: int | None = None) -> None:
    """y += x, for what several attentions give to one sum.

    Args:
        x: [rows, cols], contiguous; float32; on a GPU bfloat16.
        y: [rows, cols] of x's dtype, contiguous.
        stream: as for `attention`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: text and image attention of DreamZero's released `CausalWanModel` are summed.
    """
    call = Arguments("add", stream)
    a = call.array("x", x, 2, whole=True)
    o = call.array("y", y, a.shape, written=True, whole=True)
    call.dtypes("bfloat16" if call.cuda else "float32", x=a, y=o)
    if not call.cuda:
        to = np.from_dlpack(y)
        np.add(to, np.from_dlpack(x), out=to)
        return
    _kernels.cuda_add(call.place(), a.address, o.address, a.shape[0] * a.shape[1])


def quantize_rows(x: Any, y: Any, scale: Any, *, stream: int | None = None) -> None:
    """y = x / scale in e4m3, scale the least that keeps a row within 448. GPU only.

    Args:
        x: bfloat16 [rows, cols].
        y: uint8 [rows, cols], takes the bits of e4m3 (a torch tensor's `.view(torch.uint8)`).
        scale: float32 [rows], takes what y must be multiplied with.
        stream: as for `attention`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: OCP 8-bit floating point (E4M3), a scale a token as in arXiv:2209.05433.
    """
    call = Arguments("quantize_rows", stream)
    a = call.array("x", x, 2)
    o = call.array("y", y, a.shape, written=True)
    s = call.array("scale", scale, (a.shape[0],), written=True)
    if not call.cuda:
        raise DeviceError("quantize_rows: x: wanted an array on a GPU, got one in the CPU's memory")
    call.dtypes("bfloat16", x=a)
    call.dtypes("uint8", y=o)
    call.dtypes("float32", scale=s)
    if a.shape[1] % 8 or o.stride % 16:
        raise ShapeError(
            f"quantize_rows: wanted columns a multiple of 8 and a row stride of y of 16, got {a.shape[1]}, {o.stride}"
        )
    call.aligned(x=a, y=o)
    _kernels.cuda_quantize_rows(call.place(), a.shape, _operands(x=a, y=o, scale=s))


COEFFICIENTS = 12  # of a step: eleven float32, and an int32 that says whether the modality still moves


class Modality(NamedTuple):
    """Arguments of `sampler_step` for video or actions, float32 on a GPU, contiguous.

    x [n] is updated in place; conditional, unconditional [n] (None: no guidance) are velocities of this step; velocity,
    last [n] and history [3, n] are the solver's own from step to step; coefficients [steps, 12] are what it multiplies
    with, in the order of StepCoefficients (kernels/include/wamcore/kernels/cuda/sampler_step.h).
    """

    x: Any
    conditional: Any
    unconditional: Any
    velocity: Any
    last: Any
    history: Any
    coefficients: Any
    guidance: float = 1.0


def sampler_step(
    modalities: Sequence[Modality], step: Any, ticket: Any, *, executed: bool = True, stream: int | None = None
) -> None:
    """Guidance and one update of a flow solver (UniPC of order 2, or Euler) for video and actions. GPU only.

    Args:
        modalities: one or two `Modality`, float32.
        step: int32 [1], which step this is; counted up.
        ticket: int32 [1], 0 between calls.
        executed: False for a skipped step, which takes the velocity of the step before.
        stream: as for `attention`.

    Raises:
        ShapeError, InputError, DeviceError: see the module.

    Source: UniPC (arXiv:2302.04867) predicting the data of a flow, as in DreamZero's released action head; on the CPU
    sessions step by themselves. bfloat16 is refused: the solver subtracts nearly equal numbers.
    """
    call = Arguments("sampler_step", stream)
    if not 1 <= len(modalities) <= 2:
        raise InputError(f"sampler_step: modalities: wanted one or two, got {len(modalities)}")
    given, steps = [], None
    for i, m in enumerate(modalities):
        at = f" of modalities[{i}]"
        x = call.array("x" + at, m.x, 1, written=True)
        if not call.cuda:
            raise DeviceError(f"sampler_step: x{at}: wanted an array on a GPU, got one in the CPU's memory")
        n, written = x.shape[0], {"written": True}
        rows = {
            "conditional": (call.array("conditional" + at, m.conditional, (n,))),
            "unconditional": call.optional("unconditional" + at, m.unconditional, (n,), "float32"),
            "velocity": call.array("velocity" + at, m.velocity, (n,), **written),
            "last": call.array("last" + at, m.last, (n,), **written),
            "history": call.array("history" + at, m.history, (3, n), whole=True, **written),
            "coefficients": call.array("coefficients" + at, m.coefficients, (steps, COEFFICIENTS), whole=True),
        }
        steps = rows["coefficients"].shape[0]
        call.dtypes("float32", **{name + at: a for name, a in {"x": x, **rows}.items() if a})
        given.append(([x.address, *(a.address if a else 0 for a in rows.values())], n, float(m.guidance)))
    counters = [call.optional(n, a, (1,), "int32", written=True) for n, a in (("step", step), ("ticket", ticket))]
    if None in counters:
        raise InputError("sampler_step: step and ticket: wanted arrays, got None")
    _kernels.cuda_sampler_step(call.place(), given, tuple(c.address for c in counters), steps, executed)


@functools.lru_cache(maxsize=16)
def multiprocessors(gpu: int = 0) -> int:
    """Multiprocessors of a GPU. Raises DeviceError."""
    return _kernels.cuda_multiprocessors(gpu)
