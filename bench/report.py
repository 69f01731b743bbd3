"""Rows of a benchmark: what was timed, how long it took, and what that is worth."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

from wamcore.cli.tables import quantiles

from .cases import Case, floor_ms
from .timing import Call, measure

SCHEMA = 1


class Unavailable(Exception):
    """A side that cannot run here; the message says why."""


@dataclass(frozen=True)
class Side:
    """One way to compute a case. `make` prepares it and gives the call; it may raise Unavailable."""

    name: str
    timed: str  # what the call includes
    make: Callable[[], Call]
    baseline: bool = True
    task: str = ""  # sides of one task compute the same, and are compared with each other
    whole: bool = True  # False: a baseline that starts from more than we do, and is no fair match


@dataclass(frozen=True)
class Roofline:
    """What the device can do at best."""

    tflops: dict[str, float]  # by dtype
    gbs: float
    source: str  # "measured in this run", "given"

    def floor(self, case: Case) -> tuple[float, str] | None:
        """The least time, ms, and what binds; None where the dtype's peak is not known."""
        peak = self.tflops.get(case.dtype)
        return None if peak is None else floor_ms(case.flop, case.bytes, peak, self.gbs)


def run_case(case: Case, sides: list[Side], clock, n: int, seconds: float) -> list[dict]:
    """Times every side that can run; a row of plain data each, ours first."""
    calls: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for side in sides:
        try:
            call = side.make()
            call(0)
            clock.wait()
            calls[side.name] = call
        except Unavailable as e:
            missing[side.name] = str(e)
        except RuntimeError as e:  # a backend of torch that refuses a shape is a result, not an end
            if not side.baseline:
                raise
            missing[side.name] = f"{type(e).__name__}: {str(e).splitlines()[0][:200]}"
    times = measure(calls, clock, n, seconds)
    calls.clear()
    gc.collect()  # graphs and compiled functions hold tens of GB in cycles
    rows = []
    for side in sides:
        row = {"model": case.model, "case": case.name, "dtype": case.dtype, "side": side.name, "timed": side.timed}
        row |= {
            "baseline": side.baseline,
            "task": side.task,
            "whole": side.whole,
            "flop": case.flop,
            "bytes": case.bytes,
        }
        if side.name in missing:
            rows.append(row | {"unavailable": missing[side.name]})
        else:
            rows.append(row | {"ms": quantiles(times[side.name])})
    return rows


def judge(rows: list[dict], case: Case, roofline: Roofline) -> list[dict]:
    """Adds to the rows of one case: speeds, the share of the roofline, and how baselines compare with us.

    ratio: of a baseline, its time over that of our first side of its task; of ours, that of the best whole baseline of
    its task over our time. Above 1 we are faster.
    """
    timed = [row for row in rows if "ms" in row]
    for row in timed:
        ms = row["ms"]["p50"]
        row["tflops"], row["gbs"] = row["flop"] / ms / 1e9, row["bytes"] / ms / 1e6
        floor = roofline.floor(replace(case, flop=row["flop"], bytes=row["bytes"]))
        if floor is not None:
            row["roofline"] = {"floor_ms": floor[0], "bound": floor[1], "fraction": floor[0] / ms}
        others = [r for r in timed if r["task"] == row["task"] and r["baseline"] != row["baseline"]]
        if row["baseline"] and others:
            row["ratio"] = ms / others[0]["ms"]["p50"]
        elif fair := [r["ms"]["p50"] for r in others if r["whole"]]:
            row["ratio"] = min(fair) / ms
    return rows
