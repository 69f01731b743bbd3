"""Flight records: the last seconds of a run at servo rate, as a Runner writes them with `dump=folder`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ._core import InputError

FORMAT = "wamcore flight record 1"
DTYPES = {"F64": np.float64, "U64": np.uint64, "I64": np.int64, "U8": np.uint8}
COLUMNS = ("t_ns", "tick", "command", "reference", "measured", "obs_age", "seam", "chunk", "phase", "reason")
LIMITS = ("position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max")
MAX_HEADER = 1 << 20  # bytes


@dataclass
class FlightRecord:
    """n servo cycles of dof joints, oldest first.

    Attributes:
        why: how the run ended.
        joints: names, in the order of the columns.
        t_ns: monotonic time, ns, uint64 [n].
        tick: position on the time line, control ticks, float64 [n].
        command, reference, measured: rad, float64 [n, dof]; `reference` is before the safety filter, NaN for none.
        obs_age: s since the observation of the chunk in execution, float64 [n]; NaN for none.
        seam: rad between two chunks in the cycle where one takes over, else 0, float64 [n].
        chunk: its sequence number, int64 [n]; -1 for none.
        phase, reason: names, str [n]; what the safety filter did and which stage was the first to change the command.
        limits: {position_min, position_max, velocity_max, acceleration_max, jerk_max: float64 [dof]}.
    """

    why: str
    joints: list[str]
    t_ns: np.ndarray
    tick: np.ndarray
    command: np.ndarray
    reference: np.ndarray
    measured: np.ndarray
    obs_age: np.ndarray
    seam: np.ndarray
    chunk: np.ndarray
    phase: np.ndarray
    reason: np.ndarray
    limits: dict[str, np.ndarray] = field(default_factory=dict)


def read_record(path: str | Path) -> FlightRecord:
    """Reads a flight record.

    Args:
        path: the file.

    Raises:
        InputError: it is no flight record, or it is damaged.
    """
    data = Path(path).read_bytes()
    try:
        header, body, metadata = _open(data)
        columns = {name: _column(header, body, name) for name in (*COLUMNS, *LIMITS)}
        joints = metadata["joints"].split(",")
        rows = len(columns["t_ns"])
        for name in COLUMNS:
            wide = name in ("command", "reference", "measured")
            if columns[name].shape != ((rows, len(joints)) if wide else (rows,)):
                raise ValueError(f"column {name} has shape {columns[name].shape}")
        columns["t_ns"] = columns["t_ns"].astype(np.uint64)
        for name in ("phase", "reason"):
            columns[name] = np.array(metadata[f"{name}s"].split(","))[columns[name]]
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as e:
        raise InputError(f"read_record: {path} is no flight record: {e}") from e
    limits = {name: columns.pop(name) for name in LIMITS}
    return FlightRecord(why=metadata["why"], joints=joints, limits=limits, **columns)


def _open(data: bytes) -> tuple[dict, memoryview, dict]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER, len(data) - 8):
        raise ValueError("its header has no sensible size")
    header = json.loads(data[8 : 8 + size])
    metadata = header["__metadata__"]
    if metadata.get("format") != FORMAT:
        raise ValueError(f"wanted format '{FORMAT}', got '{metadata.get('format')}'")
    return header, memoryview(data)[8 + size :], metadata


def _column(header: dict, body: memoryview, name: str) -> np.ndarray:
    entry = header[name]
    (begin, end), kind = entry["data_offsets"], np.dtype(DTYPES[entry["dtype"]])
    if not 0 <= begin <= end <= len(body) or end - begin != kind.itemsize * int(np.prod(entry["shape"])):
        raise ValueError(f"column {name} does not lie in the file")
    return np.frombuffer(body[begin:end], kind).reshape(entry["shape"]).copy()
