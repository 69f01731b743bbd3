"""The arguments of one call of `wamcore.kernels`, checked the same way for both devices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _kernels
from ._core import DeviceError, InputError, ShapeError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # device types of DLPack
MOST_COLUMNS = 8192  # a GPU's block keeps its row in registers


class Array(NamedTuple):
    """What a kernel wants to know of an array."""

    shape: tuple[int, ...]
    stride: int  # elements from one row (first axis) to the next
    dtype: str
    address: int


class Arguments:
    """Takes the arrays of one call; the first one says on which device all must lie."""

    def __init__(self, function: str, stream: int | None):
        self.function = function
        self._stream = stream
        self._first: tuple[str, tuple[int, int], Any] | None = None

    @property
    def cuda(self) -> bool:
        return self._first is not None and self._first[1][0] == CUDA

    @property
    def gpu(self) -> int:
        return self._first[1][1]

    def array(
        self, name: str, given: Any, wanted: int | Sequence[int | None], *, written: bool = False, whole: bool = False
    ) -> Array:
        """An array of so many axes, or of that shape (None: any length), contiguous inside each row.

        written: rows must not overlap, and the memory must not be read-only. whole: contiguous altogether.
        """
        facts = self._describe(name, given)
        kind, number, dtype, shape, strides, address, can_write = facts
        self._same_device(name, (kind, number), given)
        fail = f"{self.function}: {name}: wanted "
        if isinstance(wanted, int):
            if len(shape) != wanted:
                raise ShapeError(f"{fail}{wanted} axes, got {list(shape)}")
        elif len(shape) != len(wanted) or any(w is not None and w != s for w, s in zip(wanted, shape, strict=True)):
            said = ", ".join("any" if w is None else str(w) for w in wanted)
            raise ShapeError(f"{fail}[{said}], got {list(shape)}")
        if written and not can_write:
            raise InputError(f"{fail}memory that can be written, got a read-only array")
        return Array(shape, self._row_stride(fail, shape, strides, written, whole), dtype, address)

    def optional(self, name: str, given: Any, wanted: Sequence[int | None], dtype: str, **checks: bool) -> Array | None:
        """As `array`, of a dtype, for what may be None."""
        if given is None:
            return None
        out = self.array(name, given, wanted, **checks)
        self.dtypes(dtype, **{name: out})
        return out

    def dtypes(self, wanted: str, **arrays: Array) -> None:
        for name, a in arrays.items():
            if a.dtype != wanted:
                where = "on a GPU" if self.cuda else "on the CPU"
                raise InputError(f"{self.function}: {name}: wanted {wanted} {where}, got {a.dtype}")

    def together(self, where: str = "", **pair: Any) -> None:
        """Options that say something only beside each other."""
        if len({value is None for value in pair.values()}) > 1:
            raise InputError(f"{self.function}: {' and '.join(pair)}: wanted both or none{where}, got one")

    def named(self, pairs: Sequence[tuple[Array, Array]]) -> dict[str, Array]:
        """Segments by the names that messages use."""
        return {
            f"{kind} of segments[{i}]": a for i, pair in enumerate(pairs) for kind, a in zip("kv", pair, strict=True)
        }

    def aligned(self, elements: int | None = None, /, **arrays: Array) -> None:
        """Rows start at multiples of so many elements (None: of 16 bytes), as the GPU's wide loads want."""
        size = {"uint8": 1, "bfloat16": 2, "float32": 4}
        for name, a in arrays.items():
            wanted = 16 if elements is None else elements * size[a.dtype]
            row = a.stride * size[a.dtype] if len(a.shape) > 1 else 0
            if a.address % wanted or row % wanted:
                raise ShapeError(
                    f"{self.function}: {name}: wanted rows that start at multiples of {wanted} bytes, got an address "
                    f"that is {a.address % wanted} off and a row stride of {a.stride} elements"
                )

    def at_most_columns(self, columns: int) -> None:
        if columns > MOST_COLUMNS:
            raise ShapeError(f"{self.function}: x: wanted at most {MOST_COLUMNS} columns on a GPU, got {columns}")

    def only_on_gpu(self, **options: Any) -> None:
        for name, value in options.items():
            if value is not None:
                raise DeviceError(f"{self.function}: {name}: wanted arrays on a GPU with it, got them on the CPU")

    def place(self) -> _kernels.Place:
        """The GPU and the stream of the call."""
        stream = self._stream
        if stream is None:
            torch = sys.modules.get("torch")
            ours = torch is not None and isinstance(self._first[2], torch.Tensor)
            stream = torch.cuda.current_stream(self.gpu).cuda_stream if ours else 0
        return _kernels.Place(self.gpu, stream)

    def _describe(self, name: str, given: Any) -> tuple:
        on_gpu = hasattr(given, "__dlpack_device__") and given.__dlpack_device__()[0] in (CUDA, CUDA_MANAGED)
        # stream -1: nobody waits; what is still being computed for the array is on the stream that the kernel goes to.
        facts = _kernels.describe(given.__dlpack__(stream=-1) if on_gpu else given)
        if facts is None:
            raise InputError(f"{self.function}: {name}: wanted an array that speaks DLPack, got {type(given).__name__}")
        return facts

    def _same_device(self, name: str, device: tuple[int, int], given: Any) -> None:
        kind = {CUDA_HOST: CPU, CUDA_MANAGED: CUDA}.get(device[0], device[0])
        device = (kind, device[1] if kind == CUDA else 0)
        if kind not in (CPU, CUDA):
            raise DeviceError(
                f"{self.function}: {name}: wanted an array on the CPU or a CUDA GPU, got DLPack device type {kind}"
            )
        if self._first is None:
            self._first = (name, device, given)
        elif device != self._first[1]:
            raise DeviceError(
                f"{self.function}: {name}: wanted it on {_device_name(self._first[1])} like {self._first[0]}, "
                f"got it on {_device_name(device)}"
            )

    def _row_stride(self, fail: str, shape: Sequence[int], strides: Sequence[int], written: bool, whole: bool) -> int:
        """Libraries give arrays without elements, and axes of length 1, strides that mean nothing."""
        inner, empty = 1, 0 in shape
        for size, stride in zip(reversed(shape[1:]), reversed(strides[1:]), strict=True):
            if not empty and size > 1 and stride != inner:
                raise ShapeError(f"{fail}each row contiguous, got strides {list(strides)} for {list(shape)}")
            inner *= size
        if empty or shape[0] <= 1:
            return inner
        if (whole or len(shape) == 1) and strides[0] != inner:
            raise ShapeError(f"{fail}a contiguous array, got strides {list(strides)} for {list(shape)}")
        if strides[0] < inner and (written or strides[0] < 0):
            raise ShapeError(f"{fail}rows that do not overlap, got strides {list(strides)} for {list(shape)}")
        return strides[0]


def _device_name(device: tuple[int, int]) -> str:
    return "the CPU" if device[0] == CPU else f"cuda:{device[1]}"
