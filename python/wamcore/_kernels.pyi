"""Single operations on arrays in CPU memory. Array: float32 of any library that speaks DLPack; never converted."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any  # float32, contiguous after the first axis
Rows: TypeAlias = Any  # int32 [rows]

PANEL: int

def pack_weight(w: Array) -> NDArray[np.float32]: ...

class Ops:
    def __init__(self, device: str = "cpu", threads: int = 1) -> None: ...
    @property
    def threads(self) -> int: ...
    def attention(
        self,
        q: Array,
        spans: Sequence[tuple[Array, Array]],
        out: Array,
        scale: float,
        accumulate: bool = False,
        bias: Array | None = None,
    ) -> None: ...
    def gemm(
        self,
        x: Array,
        w: Array,
        y: Array,
        bias: Array | None = None,
        activation: str = "none",
        residual: Array | None = None,
        gate: Array | None = None,
        gate_row: Rows | None = None,
    ) -> None: ...
    def layer_norm(
        self,
        x: Array,
        y: Array,
        eps: float = 1e-6,
        weight: Array | None = None,
        bias: Array | None = None,
        shift: Array | None = None,
        scale: Array | None = None,
        time_row: Rows | None = None,
    ) -> None: ...
    def qk_norm_rope(
        self,
        x: Array,
        y: Array,
        eps: float = 1e-6,
        weight: Array | None = None,
        cos: Array | None = None,
        sin: Array | None = None,
    ) -> None: ...

def attention_ref(
    q: Array,
    spans: Sequence[tuple[Array, Array]],
    out: Array,
    scale: float,
    accumulate: bool = False,
    bias: Array | None = None,
) -> None: ...
def gemm_ref(
    x: Array,
    w: Array,
    y: Array,
    bias: Array | None = None,
    activation: str = "none",
    residual: Array | None = None,
    gate: Array | None = None,
    gate_row: Rows | None = None,
) -> None: ...
def layer_norm_ref(
    x: Array,
    y: Array,
    eps: float = 1e-6,
    weight: Array | None = None,
    bias: Array | None = None,
    shift: Array | None = None,
    scale: Array | None = None,
    time_row: Rows | None = None,
) -> None: ...
def qk_norm_rope_ref(
    x: Array,
    y: Array,
    eps: float = 1e-6,
    weight: Array | None = None,
    cos: Array | None = None,
    sin: Array | None = None,
) -> None: ...
