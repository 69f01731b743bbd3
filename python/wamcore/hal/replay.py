"""A flight record as a robot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .._core import CameraInfo, Clock, ReplayHal
from ..record import FlightRecord, read_record


def replay(
    record: FlightRecord | str | Path,
    *,
    clock: Clock | None = None,
    cameras: Sequence[CameraInfo] = (),
    tolerance: float = math.inf,
) -> ReplayHal:
    """A driver that measures what was recorded, whatever it is told, and compares what it is told.

    Args:
        record: a flight record or its file.
        clock: the runner's clock; None for the machine's.
        cameras: their frames are black, for a record holds no pictures.
        tolerance: rad; a command further from the recorded one is a fault.

    Raises:
        InputError: the file is no flight record.
        ConfigError: the record is empty.
    """
    r = record if isinstance(record, FlightRecord) else read_record(record)
    return ReplayHal(r.joints, r.t_ns, r.measured, r.command, clock=clock, cameras=list(cameras), tolerance=tolerance)
