"""Single operations on arrays in CPU memory. Array: float32 of any library that speaks DLPack; never converted."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any  # float32, contiguous after the first axis
Rows: TypeAlias = Any  # int32 [rows]

PANEL: int

def pack_weight(w: Array) -> NDArray[np.float32]: ...
def multiply_adds(flop: int) -> int: ...

class Ops:
    def __init__(self, device: str = "cpu", threads: int | None = 1) -> None: ...
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

# What wamcore.kernels calls once it has checked its arguments.
Operands: TypeAlias = Mapping[str, tuple[int, int]]  # address, row stride in elements

class Place:
    def __init__(self, gpu: int, stream: int) -> None: ...

def describe(array: Any) -> tuple[int, int, str, tuple[int, ...], tuple[int, ...], int, bool] | None: ...
def cuda_attention(
    place: Place,
    q: tuple[int, int],
    out: tuple[int, int],
    lse: int,
    sizes: tuple[int, int, int],
    segments: Sequence[tuple[int, int, int, int]],
    scale: float,
    splits: int,
) -> None: ...
def cuda_gemm(place: Place, epilogue: str, sizes: tuple[int, int, int], operands: Operands) -> None: ...
def cuda_layer_norm(place: Place, eps: float, sizes: tuple[int, int], operands: Operands) -> None: ...
def cuda_qk_norm_rope(
    place: Place,
    eps: float,
    sizes: tuple[int, int, int],
    parts: Sequence[tuple[int, int, int, int, bool]],
    rope: tuple[int, int],
) -> None: ...
def cuda_sampler_step(
    place: Place,
    modalities: Sequence[tuple[Sequence[int], int, float]],
    counters: tuple[int, int],
    steps: int,
    executed: bool,
) -> None: ...
def cuda_add(place: Place, x: int, y: int, count: int) -> None: ...
def cuda_quantize_rows(place: Place, sizes: tuple[int, int], operands: Operands) -> None: ...
def cuda_multiprocessors(gpu: int) -> int: ...
def attention_splits(blocks: int, slots: int, key_tiles: int) -> int: ...
def gemm_choice(m: int, n: int, k: int, multiprocessors: int, fp8: bool = False) -> tuple[int, int, int]: ...
