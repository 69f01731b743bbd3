"""Units of a robot.toml. Inside everything is rad, m and s."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .table import Table

ANGLES = {"rad": 1.0, "deg": math.pi / 180}  # rad
LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # m


@dataclass(frozen=True)
class Units:
    """What one unit of a file's numbers is."""

    angle: float = 1.0  # rad
    length: float = 1.0  # m

    def of(self, kind: str) -> float:
        """What one unit of a joint of this kind is, rad or m."""
        return self.angle if kind == "hinge" else self.length

    def word(self, kind: str) -> str:
        """Its name."""
        return next(w for w, v in (ANGLES if kind == "hinge" else LENGTHS).items() if v == self.of(kind))


def read_units(table: Table) -> Units:
    """The keys `angle` and `length` of a table. Neither has a default: degrees taken for radians move a robot far."""
    return Units(
        ANGLES[table.text("angle", choices=tuple(ANGLES))], LENGTHS[table.text("length", choices=tuple(LENGTHS))]
    )
