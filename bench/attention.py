"""Attention over keys that lie in several places, beside torch's with and without the concatenation it needs."""

from __future__ import annotations

from collections.abc import Iterator

from wamcore import kernels

from . import cases
from .arrays import SETS, Arrays
from .cases import AttentionCase
from .report import Side, Unavailable

DEFINITION = (
    "softmax(q k^T / sqrt(head_dim)) v of one layer; keys and values lie in segments: memory, frames, registers"
)


def rows(arrays: Arrays, scale: str) -> Iterator[tuple[AttentionCase, list[Side]]]:
    for case in cases.attention(scale, arrays.dtype):
        yield case, sides(case, arrays)


class Inputs:
    """Rotating inputs of one case: q, segments, and the segments concatenated."""

    def __init__(self, case: AttentionCase, arrays: Arrays):
        heads, d = case.heads, case.head_dim
        self.arrays = arrays
        self.q = [arrays.random(case.queries, heads, d) for _ in range(SETS)]
        self.segments = [
            [(arrays.random(n, heads, d), arrays.random(n, heads, d)) for n in case.segments] for _ in range(SETS)
        ]
        self.out = arrays.empty(case.queries, heads, d)

    def tensors(self, i: int):
        """q, keys and values of set i as torch tensors [rows, heads, head_dim], without a copy."""
        tensor = self.arrays.tensor
        return tensor(self.q[i]), [tensor(k) for k, _ in self.segments[i]], [tensor(v) for _, v in self.segments[i]]


def as_heads(rows):
    """[rows, heads, head_dim] as SDPA wants it, [1, heads, rows, head_dim], without a copy."""
    return rows.transpose(0, 1).unsqueeze(0)


def sides(case: AttentionCase, arrays: Arrays) -> list[Side]:
    inputs = Inputs(case, arrays)
    out = [Side("wamcore", "segments read in place", lambda: ours(inputs, 1), baseline=False)]
    if arrays.device == "cuda":
        for splits in (2, 3):
            what = f"segments read in place, keys in {splits} parts, their merge included"
            out.append(Side(f"wamcore, split-KV {splits}", what, lambda s=splits: ours(inputs, s), baseline=False))
    for name in ("cudnn", "flash") if arrays.device == "cuda" else ("",):
        label = f"torch SDPA {name}".rstrip()
        joined, concat = "keys and values concatenated before", "their concatenation included"
        out.append(Side(label, joined, lambda n=name: torch_sdpa(inputs, n, False), whole=False))
        out.append(Side(f"{label} + concat", concat, lambda n=name: torch_sdpa(inputs, n, True)))
    if arrays.device == "cuda" and cases.compiles(case):
        joined = "compiled; keys and values concatenated before"
        out.append(Side("torch FlexAttention", joined, lambda: flex(inputs), whole=False))
    return out


def ours(inputs: Inputs, splits: int):
    arrays, out = inputs.arrays, inputs.out
    extra = {"threads": arrays.threads} if arrays.device == "cpu" else {"splits": splits}

    def call(i: int):
        kernels.attention(inputs.q[i % SETS], inputs.segments[i % SETS], out, **extra)
        return out

    return call


def torch_sdpa(inputs: Inputs, backend: str, concat: bool):
    torch = inputs.arrays.torch
    if torch is None:
        raise Unavailable("torch is not installed")
    attend = torch.nn.functional.scaled_dot_product_attention
    sets = [inputs.tensors(i) for i in range(SETS)]
    if not concat:  # each head's rows together, which suits them best
        sets = [tuple(as_heads(a).contiguous() for a in (q, torch.cat(k), torch.cat(v))) for q, k, v in sets]

    @torch.no_grad()
    def call(i: int):
        q, k, v = sets[i % SETS]
        # joined where they lie, row after row: a plain copy, the fastest that torch has
        return attend(*map(as_heads, (q, torch.cat(k), torch.cat(v)))) if concat else attend(q, k, v)

    if not backend:
        return call
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[backend]

    def pinned(i: int):
        with sdpa_kernel(kind):
            return call(i)

    return pinned


def flex(inputs: Inputs):
    torch = inputs.arrays.torch
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    sets = [inputs.tensors(i) for i in range(SETS)]
    sets = [tuple(as_heads(a).contiguous() for a in (q, torch.cat(k), torch.cat(v))) for q, k, v in sets]
    return lambda i: compiled(*sets[i % SETS])
