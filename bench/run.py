"""`wamcore bench attention`, `gemm` and so on: times the cases of the table, tells, writes JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from wamcore import ConfigError
from wamcore.cli import machine
from wamcore.cli.tables import table

from . import cases, chunk, limits, stack
from .arrays import Arrays
from .report import SCHEMA, Roofline, judge, run_case
from .timing import CpuClock, CudaClock

BENCHES = {
    "attention": "segmented attention, beside torch's with and without the concatenation it needs",
    "gemm": "the six products of a layer with their epilogues, beside torch's",
    "elementwise": "passes over rows that memory bounds, beside torch's",
    "layer": "one layer with synthetic weights, beside the same maths in torch",
    "forward": "all layers of a denoise pass, likewise",
    "chunk": "one chunk of a session at 16, 8, 4 and 1 executed steps",
    "limits": "what the device reaches at best: the roofline of the others",
}
COLUMNS = ("ms", "median", "p99", "n", "TFLOP/s", "GB/s", "of floor", "ratio", "timed")


def run(args: argparse.Namespace) -> int:
    """One benchmark, as the command line asks for it."""
    report = measure(args)
    print(tell(report))
    return 0


def write(file: Path | None, report: dict) -> None:
    """What is known so far; whoever stops the program finds a whole file."""
    if file:
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(report, indent=1) + "\n")
        part.replace(file)


def check(args: argparse.Namespace) -> None:
    if args.n is not None and not 1 <= args.n <= 100_000:
        raise ConfigError(f"-n: wanted 1 to 100000, got {args.n}")
    if args.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device: wanted auto, cpu or cuda, got '{args.device}'")
    for name in ("seconds", "peak_tflops", "peak_gbs"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')}: wanted more than 0, got {value}")


def measure(args: argparse.Namespace) -> dict:
    """Plain data: what was asked, where it ran, and a row for each side of each case."""
    check(args)
    device = "cuda" if args.device == "cuda" else "cpu"
    arrays = Arrays(device, args.threads or machine.cores())
    clock = CudaClock(arrays.torch) if device == "cuda" else CpuClock(args.smoke)
    scale = cases.scale_of(device, args.smoke)
    n = args.n or (2 if args.smoke else 100)
    peaks = [
        row
        for case, sides in limits.rows(arrays, scale)
        for row in run_case(case, sides, clock, n if args.model == "limits" else min(n, 20), args.seconds)
    ]
    roofline = given(args, limits.roofline(peaks))
    rows: list[dict] = []
    report = {
        "schema": SCHEMA,
        "bench": args.model,
        "definition": module_of(args.model).DEFINITION
        + ("" if args.model == "chunk" else f"; {clock.how}; random data, rotating inputs"),
        "device": describe(arrays),
        "scale": {"name": scale, "what": cases.TABLE["scales"][scale]["what"]},
        "roofline": {"tflops": roofline.tflops, "gbs": roofline.gbs, "source": roofline.source},
        "rows": rows,
        "complete": False,
        "machine": machine.describe(),
    }
    for found in groups(args, arrays, scale, clock, n, peaks, roofline):
        rows += found
        write(args.json, report)
    if not rows:
        raise ConfigError(f"--only: wanted a part of a case's name, got '{args.only}', which is in none")
    report["complete"] = True
    write(args.json, report)
    return report


def groups(args, arrays: Arrays, scale: str, clock, n: int, peaks: list[dict], roofline: Roofline) -> Iterator[list]:
    """The judged rows of one case after another."""
    if args.model == "limits":
        for case, _ in limits.rows(arrays, scale):
            yield judge([r for r in peaks if r["case"] == case.name and r["dtype"] == case.dtype], case, roofline)
    elif args.model == "chunk":
        chunks = args.n or (1 if args.smoke else 25)
        for case, found in chunk.measure(args, arrays.device, arrays.threads, scale, chunks):
            yield judge(found, case, roofline)
    else:
        extra = (args.model,) if module_of(args.model) is stack else ()
        for case, sides in module_of(args.model).rows(arrays, scale, *extra):
            if args.only in f"{case.model} {case.name}":
                yield judge(run_case(case, sides, clock, n, args.seconds), case, roofline)


def module_of(bench: str):
    """The module of a benchmark: rows(arrays, scale) and DEFINITION."""
    return stack if bench in ("layer", "forward") else importlib.import_module(f".{bench}", __package__)


def given(args: argparse.Namespace, measured: Roofline) -> Roofline:
    """The roofline with what the command line says instead."""
    if args.peak_tflops is None and args.peak_gbs is None:
        return measured
    tflops = measured.tflops if args.peak_tflops is None else dict.fromkeys(cases.ELEMENT, args.peak_tflops)
    parts = [name for name, value in (("TFLOP/s", args.peak_tflops), ("GB/s", args.peak_gbs)) if value is not None]
    return Roofline(tflops, args.peak_gbs or measured.gbs, f"{' and '.join(parts)} given")


def describe(arrays: Arrays) -> dict:
    """The device, for JSON."""
    torch = arrays.torch
    version = None if torch is None else torch.__version__
    if arrays.device == "cpu":
        return {"name": "cpu", "what": machine.cpu_model(), "threads": arrays.threads, "torch": version}
    facts = torch.cuda.get_device_properties(0)
    return {
        "name": "cuda",
        "what": facts.name,
        "multiprocessors": facts.multi_processor_count,
        "memory_bytes": facts.total_memory,
        "torch": version,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "kernels": os.environ.get("WAMCORE_CUDA_KERNELS", "auto"),
    }


def tell(report: dict) -> str:
    """The report for people."""
    device, roof, machine_ = report["device"], report["roofline"], report["machine"]
    lines = [
        f"{report['bench']} on {device['what']}"
        + (f", {device['threads']} threads, {machine_['kernels']} kernels" if device["name"] == "cpu" else "")
        + f"; wamcore {machine_['wamcore']}"
        + (f" at {machine_['commit']}" if machine_["commit"] else "")
        + f"; torch {device['torch'] or 'is not installed: no baselines'}",
        f"sizes: {report['scale']['name']} ({report['scale']['what']})",
        f"roofline, {roof['source']}: "
        + ", ".join(f"{v:.3g} TFLOP/s {k}" for k, v in roof["tflops"].items())
        + f", {roof['gbs']:.4g} GB/s",
    ]
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for row in report["rows"]:
        groups.setdefault((row["model"], row["case"], row["dtype"]), []).append(row)
    for (model, case, dtype), rows in groups.items():
        lines += ["", f"{model}, {case}, {dtype}", table([cells(r) for r in rows], COLUMNS, text=(0, len(COLUMNS) - 1))]
    lines += [
        "",
        "of floor: the roofline's least time over the median; ratio: a baseline's median over ours, and for ours that "
        "of the best baseline that computes the same from the same inputs over it: above 1 ours is faster",
        f"measured: {report['definition']}",
    ]
    return "\n".join(lines)


def cells(row: dict) -> tuple:
    """One line of the table."""
    if "ms" not in row:
        return (row["side"], *["-"] * 7, f"{row['timed']}: unavailable, {row['unavailable']}")
    ms, roof = row["ms"], row.get("roofline")
    return (
        row["side"],
        f"{ms['p50']:.4g}",
        f"{ms['p99']:.4g}",
        ms["n"],
        f"{row['tflops']:.3g}",
        f"{row['gbs']:.4g}",
        f"{100 * roof['fraction']:.0f} % {roof['bound']}" if roof else "-",
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        row["timed"],
    )
