"""What is measured: one table, cases.json, for the benchmarks and the tests, and the arithmetic of each case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("cases.json").read_text())
ELEMENT = {"float32": 4, "bfloat16": 2, "float8_e4m3fn": 1}  # bytes


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformer; tokens are rows of a pass."""

    name: str
    layers: int
    heads: int
    head_dim: int
    ffn: int
    text: int  # context tokens
    image: int  # context tokens; 0: none
    frame_tokens: int
    block_frames: int
    actions: int
    states: int
    latent_channels: int
    grid: tuple[int, int]  # latent height and width
    action_dim: int
    width: int = 0

    def __post_init__(self):
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "width", self.width or self.heads * self.head_dim)

    @property
    def registers(self) -> int:
        return self.actions + self.states

    @property
    def tokens(self) -> int:
        """Rows of a denoise pass: a block of frames, actions and states."""
        return self.block_frames * self.frame_tokens + self.registers

    def segments(self, cached_frames: int) -> tuple[int, ...]:
        """Keys of a denoise pass, as they lie: memory, this block's frames, actions and states."""
        parts = (cached_frames * self.frame_tokens, self.block_frames * self.frame_tokens, self.registers)
        return tuple(n for n in parts if n)


MODELS = {name: ModelShape(name, **sizes) for name, sizes in TABLE["models"].items()}


@dataclass(frozen=True)
class Case:
    """One group of rows: what is computed, and how much of it there is."""

    model: str
    name: str
    dtype: str
    flop: float = field(default=0.0, kw_only=True)
    bytes: float = field(default=0.0, kw_only=True)  # that must cross the memory's interface at least once


@dataclass(frozen=True)
class AttentionCase(Case):
    queries: int
    segments: tuple[int, ...]  # keys of each
    heads: int
    head_dim: int

    @property
    def keys(self) -> int:
        return sum(self.segments)


@dataclass(frozen=True)
class GemmCase(Case):
    product: str
    m: int
    n: int
    k: int
    epilogue: str


@dataclass(frozen=True)
class ElementwiseCase(Case):
    kernel: str
    rows: int  # numbers, for the sampler
    heads: int
    head_dim: int


@dataclass(frozen=True)
class StackCase(Case):
    """Whole layers: one, or all of a model."""

    layers: int
    cached_frames: int

    @property
    def shape(self) -> ModelShape:
        return MODELS[self.model]


@dataclass(frozen=True)
class ChunkCase(Case):
    steps: int


def compiles(case: Case) -> bool:
    """Whether torch.compile's baselines of this case are worth the time that compiling takes."""
    rule = TABLE["compiled"]
    if isinstance(case, StackCase):
        return case.model in rule["stacks"] and case.cached_frames == rule["cached_frames"]
    return case.model in rule["kernels"]


def scale_of(device: str, smoke: bool) -> str:
    """Which column of the table is measured."""
    return "smoke" if smoke else "full" if device == "cuda" else "cpu"


def _models(scale: str, bench: str) -> list[tuple[ModelShape, dict]]:
    column = TABLE["scales"][scale]
    return [(MODELS[name], column.get("cut", {}).get(name, {})) for name in column.get(bench, column["models"])]


def attention_work(queries: int, keys: int, heads: int, head_dim: int, element: int) -> tuple[float, float]:
    """FLOP of both products, and bytes of queries, keys, values and output."""
    return 4.0 * queries * keys * heads * head_dim, 2.0 * element * (queries + keys) * heads * head_dim


def gemm_work(m: int, n: int, k: int, element: int, out: int) -> tuple[float, float]:
    """FLOP, and bytes of both operands and the result; bias, gate and residual are left out."""
    return 2.0 * m * n * k, float(element) * (m * k + n * k) + float(out) * m * n


def attention(scale: str, dtype: str) -> Iterator[AttentionCase]:
    for model, cut in _models(scale, "attention"):
        heads = cut.get("heads", model.heads)
        of = f" of {model.heads}" if heads != model.heads else ""
        for frames in TABLE["cached_frames"]["attention"]:
            parts = model.segments(frames)
            flop, moved = attention_work(model.tokens, sum(parts), heads, model.head_dim, ELEMENT[dtype])
            name = f"{model.tokens} queries x {sum(parts)} keys, {heads}{of} heads x {model.head_dim}"
            yield AttentionCase(
                model.name, name, dtype, model.tokens, parts, heads, model.head_dim, flop=flop, bytes=moved
            )


def gemm(scale: str, dtype: str) -> Iterator[GemmCase]:
    for model, cut in _models(scale, "gemm"):
        for batch in TABLE["guidance_batches"]:
            m, rows = batch * model.tokens, cut.get("rows")
            if rows and batch > 1:
                continue  # the same rows again
            of = f" of {m}" if rows else ""
            m = rows or m
            for product, shape in TABLE["products"].items():
                n, k = (times * getattr(model, size) for times, size in (shape["n"], shape["k"]))
                flop, moved = gemm_work(m, n, k, ELEMENT[dtype], min(4, max(2, ELEMENT[dtype])))
                name = f"{product}: {m}{of} x {k} to {n}"
                epilogue = shape["epilogue"]
                yield GemmCase(model.name, name, dtype, product, m, n, k, epilogue, flop=flop, bytes=moved)


def elementwise(scale: str, dtype: str) -> Iterator[ElementwiseCase]:
    for model, _ in _models(scale, "elementwise"):
        m, wide, element = model.tokens, model.heads * model.head_dim, ELEMENT[dtype]
        latents = model.latent_channels * model.block_frames * model.grid[0] * model.grid[1]
        numbers = latents + model.actions * model.action_dim
        for kernel, rows, flop, moved, name in (
            ("ln_modulate", m, 8.0 * m * wide, 2.0 * element * m * wide, f"{m} x {wide}"),
            ("qk_norm_rope", m, 2 * 10.0 * m * wide, 4.0 * element * m * wide, f"queries and keys, {m} x {wide}"),
            ("quantize_rows", m, 3.0 * m * wide, (element + 1.0) * m * wide, f"{m} x {wide}"),
            ("sampler_step", numbers, 20.0 * numbers, 40.0 * numbers, f"{numbers} numbers"),
        ):
            yield ElementwiseCase(
                model.name,
                f"{kernel}: {name}",
                dtype,
                kernel,
                rows,
                model.heads,
                model.head_dim,
                flop=flop,
                bytes=moved,
            )


def pass_work(model: ModelShape, rows: int, keys: int, element: int) -> tuple[float, float]:
    """FLOP of one layer's products and attentions for `rows` rows that see `keys` keys and the context; bytes of the
    weights, of the keys and values that are not this pass's, and of the rows in and out."""
    d, inner, context = model.width, model.heads * model.head_dim, model.text + model.image
    weights = 6 * d * inner + 2 * d * model.ffn
    flop = 2.0 * rows * weights + 4.0 * rows * (keys + context) * inner
    return flop, float(element) * (weights + 2 * (keys - rows + context) * inner + 2 * rows * d)


def layer_work(model: ModelShape, cached_frames: int, element: int) -> tuple[float, float]:
    """`pass_work` of a denoise pass."""
    return pass_work(model, model.tokens, sum(model.segments(cached_frames)), element)


def stack(scale: str, dtype: str, bench: str) -> Iterator[StackCase]:
    """Cases of "layer" (one) and "forward" (all of a model's)."""
    for model, _ in _models(scale, bench):
        layers = 1 if bench == "layer" else model.layers
        frames_of = TABLE["cached_frames"]
        for frames in frames_of.get(model.name, frames_of[bench]):
            flop, moved = (layers * x for x in layer_work(model, frames, ELEMENT[dtype]))
            keys = sum(model.segments(frames))
            name = f"{layers} layer{'s' * (layers > 1)}, {model.tokens} rows, {keys} keys"
            yield StackCase(model.name, name, dtype, layers, frames, flop=flop, bytes=moved)


def chunk(scale: str, dtype: str) -> Iterator[ChunkCase]:
    """A chunk of so many executed steps; `chunk_with` says what it costs with so many frames remembered."""
    for model, _ in _models(scale, "chunk"):
        for steps in TABLE["chunk_steps"][scale]:
            yield ChunkCase(model.name, f"{steps} executed step{'s' * (steps > 1)}", dtype, steps)


def chunk_with(case: ChunkCase, frames: int, dtype: str) -> ChunkCase:
    """With the work of the memory's update (whole layers are counted) and of the steps, without guidance."""
    model, element = MODELS[case.model], ELEMENT[dtype]
    update = pass_work(model, _observed(model, frames), frames * model.frame_tokens, element)
    step = layer_work(model, frames, element)
    flop, moved = (model.layers * (u + case.steps * s) for u, s in zip(update, step, strict=True))
    plural = "s" * (frames > 1)
    name = f"{case.name}, {frames} frame{plural} remembered"
    return ChunkCase(case.model, name, dtype, case.steps, flop=flop, bytes=moved)


def in_one_pass(case: ChunkCase, frames: int, dtype: str) -> ChunkCase:
    """The same chunk with the observed frames in the first step's pass: the same products and attentions, but weights,
    context and remembered keys are read once less.
    """
    model, element = MODELS[case.model], ELEMENT[dtype]
    seen, keys = _observed(model, frames), sum(model.segments(frames))
    both = pass_work(model, seen + model.tokens, keys, element)[1]
    moved = model.layers * (both + (case.steps - 1) * layer_work(model, frames, element)[1])
    return replace(chunk_with(case, frames, dtype), bytes=moved)


def _observed(model: ModelShape, frames: int) -> int:
    """Rows that the update adds; they are among the remembered ones."""
    return min(frames, model.block_frames) * model.frame_tokens


def waves(blocks: int, slots: int) -> tuple[float, int]:
    """How many times `blocks` of equal length fill `slots`, and how many rounds that takes."""
    return blocks / slots, -(-blocks // slots)


def attention_blocks(case: AttentionCase, splits: int = 1, tile: int = 128) -> int:
    """Blocks of the sm_90a kernel: tiles of queries x heads x parts of the keys."""
    return -(-case.queries // tile) * case.heads * splits


def floor_ms(flop: float, moved: float, tflops: float, gbs: float) -> tuple[float, str]:
    """The least time, ms, at `tflops` TFLOP/s and `gbs` GB/s, and which of the two binds."""
    compute, memory = flop / tflops / 1e9, moved / gbs / 1e6
    return (compute, "compute") if compute >= memory else (memory, "memory")
