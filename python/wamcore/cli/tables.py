"""Plain-text tables and the statistics they show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def table(rows: Sequence[Sequence[object]], head: Sequence[str], text: Sequence[int] = (0,), indent: str = "  ") -> str:
    """Lines of a table; the columns `text` are left-aligned, the others right-aligned."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        aligned = (c.ljust(w) if i in text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append(indent + "  ".join(aligned).rstrip())
    lines.insert(1, indent + "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate."""
    if not trials:
        return 0.0, 1.0
    p, n = successes / trials, trials
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def quantiles(values: Sequence[float]) -> dict[str, float | int]:
    """Median, 99th percentile, largest and number of values."""
    if not len(values):
        return {"p50": 0.0, "p99": 0.0, "max": 0.0, "n": 0}
    a = np.asarray(values, float)
    return {"p50": float(np.median(a)), "p99": float(np.percentile(a, 99)), "max": float(a.max()), "n": len(a)}


def stage_quantiles(stages: Sequence[dict[str, int]]) -> dict[str, dict[str, float | int]]:
    """Quantiles, ms, of each stage that took any time; `stages` is ns per inference."""
    names = [name for name in stages[0] if name != "text"] if stages else []  # a prompt's time is no chunk's
    out = {name: quantiles([s[name] * 1e-6 for s in stages]) for name in names}
    return {name: q for name, q in out.items() if q["max"] > 0}
