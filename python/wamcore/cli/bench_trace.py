"""`wamcore bench --trace`: where the time of a chunk goes, operation by operation in each step of the model."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from .._kernels import multiply_adds
from .tables import table

DEFINITION = (
    "inferences of their own, after the timed ones, with every operation timed: ms a chunk, wall time; threads that "
    "work at once have a share each, `wait` is what they leave of a step; `between` is no operation's; flop of the "
    "definitions, bytes read and written at least; peak: float32 multiply-adds of registers alone, on as many threads"
)
MOST = 30  # inferences
FLOAT = "float32"


def measure(model, session, seen: list, n: int) -> dict:
    """Runs chunks with operations timed. Raises DeviceError where the device cannot."""
    n, stages = min(n, MOST), 0
    session.time_operations(True)
    try:
        for i in range(n):
            session.infer(seen[1 + i % (len(seen) - 1)])
            stages += sum(ns for name, ns in session.trace["stages"].items() if name != "text")
        times = session.operation_times
    finally:
        session.time_operations(False)
    peak, total = peak_gflops(model.threads), stages / n * 1e-6
    rows = [row(o, n, total, peak) for o in times]
    between = total - sum(r["ms"] for r in rows)
    return {"definition": DEFINITION, "n": n, "ms": total, "between_ms": between, "peak_gflops": peak, "rows": rows}


def row(o: dict, n: int, total: float, peak: float) -> dict:
    """One operation in one step: of a chunk, and its rates. None: not counted."""
    gflops = o["flop"] / o["ns"] if o["flop"] and o["ns"] else None
    return {
        **{key: o[key] for key in ("step", "operation", "precision")},
        "calls": o["calls"] / n,
        "ms": o["ns"] / n * 1e-6,
        "share": o["ns"] / n * 1e-6 / total,
        "gflops": gflops,
        "gbs": o["bytes"] / o["ns"] if o["bytes"] and o["ns"] else None,
        "of_peak": gflops / peak if gflops and o["precision"].startswith(FLOAT) else None,
    }


def peak_gflops(threads: int, rounds: int = 7, flop: int = 500_000_000) -> float:
    """What the CPU's float32 units give at best with so many threads: the best of some rounds."""
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            done = sum(pool.map(multiply_adds, [flop] * threads))
            best = max(best, done / (time.perf_counter() - began) * 1e-9)
    return best


def tell(trace: dict) -> str:
    """The table for people."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        (
            r["step"],
            r["operation"] + (" int8" if r["precision"].startswith("int8") else ""),
            f"{r['calls']:.0f}",
            f"{r['ms']:.3f}",
            f"{r['share']:.1%}",
            number(r["gflops"], ".1f"),
            number(r["gbs"], ".1f"),
            number(r["of_peak"], ".0%"),
        )
        for r in trace["rows"]
    ]
    rows.append(
        ("between", "", "", f"{trace['between_ms']:.3f}", f"{trace['between_ms'] / trace['ms']:.1%}", "", "", "")
    )
    rows.append(("all stages", "", "", f"{trace['ms']:.3f}", "100.0%", "", "", ""))
    head = ("step", "operation", "calls", "ms", "share", "GFLOP/s", "GB/s", "of peak")
    lines = [table(rows, head, text=(0, 1)), "", f"  float32 peak: {trace['peak_gflops']:.0f} GFLOP/s"]
    return "\n".join([*lines, f"  traced: {trace['definition']}"])
