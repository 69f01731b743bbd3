"""What a machine with a GPU is asked: does everything compute what it should, and how fast.

    bench/device_check build         compiles the library, the plugin and the checks, with what the machine has
    bench/device_check correctness   kernels, programs, recorded sequences and sessions against their references
    bench/device_check bench         the benchmarks, one after another

The last two take less than 8 minutes each: they say first how the time is divided, end what takes longer, and list it
as not run. They print a short table last, and write all rows with --json. A row that fails, hangs or takes the device
with it never stops the others; the exit status tells whether all passed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 450  # s for all parts of a command, so that it ends within 8 minutes; what was not run by then is listed
SHORTEST = 8  # s: in less, no part would have started
# Rows of docs/verified_on_device.md, in its order; every row of the check has one of these names.
NAMES = (
    "ln_modulate",
    "ln_modulate_e4m3",
    "qk_norm_rope_cachewrite",
    "sampler_step",
    "patchify, unpatchify",
    "sinusoid",
    "activation",
    "add",
    "gemm_plain",
    "gemm_sm80",
    "gemm_sm90",
    "gemm_fp8_sm90",
    "gemm_fp8_sm89",
    "quantize_rows",
    "quantize_rows_sm89",
    "attention_sm80",
    "attention_sm90",
    "programs",
    "programs, fp8",
    "programs, sm80 kernels",
    "golden sequences",
    "golden sessions",
    "sessions",
    "sessions, sm80 kernels",
    "doctor",
    "memcheck",
    "racecheck",
)
GOLDEN_TOLERANCE = 0.027  # relative l2 of one tensor, as in tests/python/test_golden_cuda.py


class Clock:
    """Time that is left."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())


@dataclass(frozen=True)
class Part:
    """A part of a command."""

    name: str
    about: float  # s, with 16 cores: an estimate as long as no device has run it
    kept: float  # s of BUDGET that nothing before it may use; what parts before it left comes on top
    run: Callable[[float], list[dict]]  # its rows, in at most so many seconds


def run_parts(parts: list[Part], seconds: float) -> list[dict]:
    """All rows. Says first how the time is divided, then what came of each part; a part without time is a row."""
    clock, share = Clock(seconds), seconds / BUDGET
    print(f"{len(parts)} parts, at most {seconds:.0f} s; the times of each are estimates for 16 cores", flush=True)
    for part in parts:
        kept = f"{part.kept * share:.0f} s kept for it" if part.kept else "in what the others leave"
        print(f"  {part.name:<28} about {part.about:3.0f} s, {kept}", flush=True)
    rows: list[dict] = []
    for i, part in enumerate(parts):
        limit, began = clock.left() - share * sum(p.kept for p in parts[i + 1 :]), time.monotonic()
        found = part.run(limit) if limit >= SHORTEST * share else [row(part.name, "-", "not run", "out of time")]
        took = time.monotonic() - began
        print(f"[{i + 1} of {len(parts)}] {part.name}: {summary(found)}; {took:.0f} s of {max(limit, 0):.0f} s, "
              f"{clock.left():.0f} s left", flush=True)  # fmt: skip
        rows += found
    return rows


def row(kernel: str, shape: str, verdict: str, why: str = "", **more) -> dict:
    """One line of the report; error and tolerance are None where there is nothing to measure."""
    return {"kernel": kernel, "shape": shape, "verdict": verdict, "why": why, "error": None, "tolerance": None, **more}


def measured(kernel: str, shape: str, error: float, tolerance: float) -> dict:
    """A row whose verdict is its error."""
    passed = math.isfinite(error) and error <= tolerance
    return row(kernel, shape, "ok" if passed else "FAILED", error=error, tolerance=tolerance)


def execute(command: list, limit: float, environment: dict | None = None) -> tuple[int | None, str]:
    """Exit status (None: it took too long and was killed) and everything it printed."""
    if limit <= 0:
        return None, ""
    try:
        # in a group of its own, so that what it started ends with it: a sanitizer's program, a test's session
        running = subprocess.Popen(
            [str(c) for c in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as e:
        return 127, str(e)
    try:
        text, _ = running.communicate(timeout=limit)
    except subprocess.TimeoutExpired as e:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stdout.close()
        text = e.stdout or b""
        return None, text if isinstance(text, str) else text.decode(errors="replace")
    return running.returncode, text


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]


def program_rows(command: list, limit: float, environment: dict | None = None, name: str = "") -> list[dict]:
    """All rows of a run of the C++ program, or of device_sessions.py, which is started again behind a row that ended
    it. name: of rows that it could not write itself and does not list either.
    """
    name = name or command[1]
    rows: list[dict] = []
    clock, start, silent = Clock(limit), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(1000):
            log = Path(folder) / f"{attempt}.jsonl"
            status, text = execute([*command, "--from", start, "--json", log], clock.left(), environment)
            got = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            rows += got
            start = got[-1]["index"] + 1 if got else start
            if status in (0, 1):
                return rows
            if status is None:
                left = [row(n, s, "not run", "out of time") for i, (n, s) in listed(command).items() if i >= start]
                return rows + (left or [row(name, f"from row {start} on", "not run", "out of time")])
            if status in (3, 4) and got:
                continue
            kernel, shape = listed(command).get(start, (name, f"row {start}"))
            rows.append(row(kernel, shape, "FAILED", f"the program ended with status {status}: {last_line(text)}"))
            silent = 0 if got else silent + 1
            if status in (2, 127) or silent == 3:  # it does not even start
                return rows
            start += 1
    return rows


def listed(command: list) -> dict[int, tuple[str, str]]:
    """Kernel and shape of each row of the C++ program, by its number; empty where it cannot say."""
    status, text = execute([*command, "--list"], 20)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")] if status == 0 else []
    return {line["index"]: (line["kernel"], line["shape"]) for line in lines}


def sanitizer_rows(check: str, program: Path, limit: float) -> list[dict]:
    """Small cases of all kernels under one of compute-sanitizer's tools."""
    name = (check, "all kernels, small")
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return [row(*name, "unavailable", "there is no compute-sanitizer")]
    command = [tool, "--tool", check, "--error-exitcode", "9", program, "kernels", "--tiny", "--seed", "1"]
    began = time.monotonic()
    status, text = execute(command, limit)
    return [{**judge_sanitizer(name, status, text), "seconds": time.monotonic() - began}]


def judge_sanitizer(name: tuple[str, str], status: int | None, text: str) -> dict:
    """What a report of compute-sanitizer means."""
    # only in its own lines, and before its count of errors: a device that it refuses fails the program's first call
    own = "\n".join(line for line in text.splitlines() if line.startswith("========="))
    for refusal in ("Device not supported", "LibraryNotLoaded", "Unable to find", "not supported on this"):
        if refusal in own:
            return row(*name, "unavailable", f"compute-sanitizer says: {refusal}")
    if status is None:
        return row(*name, "not run", "out of time")
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
    if not summary:
        return row(*name, "FAILED", f"no summary: {last_line(text)}")
    clean = status == 0 and re.search(r"SUMMARY: 0 ", summary[-1])
    return row(*name, "ok" if clean else "FAILED", "" if clean else summary[-1])


def golden_folders() -> list[Path]:
    return [Path(p) for p in os.environ.get("WAMCORE_GOLDEN", "").split(":") if p]


def golden_rows(program: Path, limit: float) -> list[dict]:
    """Recorded sequences of the release, where WAMCORE_GOLDEN says that they are there."""
    name, rows = "golden sequences", []
    if not golden_folders():
        return [row(name, "-", "unavailable", "WAMCORE_GOLDEN names no folder")]
    clock = Clock(limit)
    for folder in golden_folders():
        manifest = json.loads((folder / "manifest.json").read_text())["files"]
        for file, entry in manifest.items():
            config = entry.get("config") or {}
            if not file.startswith("dit_") or "timesteps_video_action" not in config:
                continue
            kind = "dit_ti2v_weights" if "ti2v" in file else "dit_i2v_weights"
            known = manifest.get(f"{kind}.safetensors", {}).get("config") or {}
            given = {
                "dit": {k: v for k, v in config.items() if k in known},
                "timesteps": config["timesteps_video_action"],
            }
            weights = folder / f"{kind}.safetensors"
            command = [program, "golden", folder / file, weights, json.dumps(given)]
            status, text = execute(command, clock.left())
            if status is None:
                rows.append(row(name, file, "not run", "out of time"))
            elif status:
                rows.append(row(name, file, "FAILED", last_line(text)))
            else:
                errors = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.strip()]
                worst = max(errors, key=lambda e: math.inf if math.isnan(e) else e, default=math.nan)
                rows.append(measured(name, file, worst, GOLDEN_TOLERANCE))
    return rows or [row(name, "-", "unavailable", "no recorded sequence in WAMCORE_GOLDEN")]


def python_rows(args: argparse.Namespace, limit: float, kernels: str = "") -> list[dict]:
    """Sessions through the Python package, in a process of their own."""
    command = [sys.executable, ROOT / "bench" / "device_sessions.py", "--kernels", kernels]
    environment = package_environment(args) | ({"WAMCORE_CUDA_KERNELS": kernels} if kernels else {})
    return program_rows(command, limit, environment, sessions_of(kernels))


def sessions_of(kernels: str) -> str:
    return f"sessions, {kernels} kernels" if kernels else "sessions"


def package_environment(args: argparse.Namespace) -> dict:
    """Where Python finds the package that is checked, and the package its plugin."""
    package = (args.package or args.build / "package").resolve()
    found = {"PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}
    if args.plugin:
        found["WAMCORE_CUDA_PLUGIN"] = str(args.plugin.resolve())
    return found


def build(args: argparse.Namespace) -> int:
    """Plain CMake, no network; then a package folder as an installation would have it."""
    python = sys.executable
    folder = {
        name: subprocess.run([python, "-m", name, option], capture_output=True, text=True).stdout.strip()
        for name, option in (("pybind11", "--cmakedir"), ("nanobind", "--cmake_dir"))
    }
    began = time.monotonic()
    configure = ["cmake", "-S", ROOT, "-B", args.build, "-G", "Ninja", f"-DWAMCORE_CUDA_REAL={args.real}"]
    configure += ["-DWAMCORE_CUDA=ON", "-DWAMCORE_BUILD_TESTS=ON", "-DWAMCORE_BUILD_PYTHON=ON"]
    configure += [f"-DPython_EXECUTABLE={python}"]
    configure += [f"-D{name}_DIR={where}" for name, where in folder.items() if where]
    targets = ["wamcore", "wamcore_cuda", "device_check", "_core", "_kernels"]
    package = args.build / "package" / "wamcore"
    steps = [
        configure,
        ["cmake", "--build", args.build, "--parallel", args.jobs, "--target", *targets],
        *[["cmake", "--install", args.build, "--prefix", package, "--component", c] for c in ("runtime", "python")],
    ]
    for step in steps:
        if status := subprocess.run([str(s) for s in step]).returncode:
            print(f"device_check: {' '.join(map(str, step))} ended with status {status}", file=sys.stderr)
            return 1
    shutil.copytree(ROOT / "python" / "wamcore", package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so"))
    shutil.copytree(ROOT / "bench", package / "bench", dirs_exist_ok=True)
    print(f"built in {time.monotonic() - began:.0f} s: {args.build}")
    return 0


def correctness(args: argparse.Namespace) -> int:
    program = args.program or args.build / "tests" / "device" / "device_check"
    if not program.exists():
        print(f"device_check: {program} is not there: run bench/device_check build first", file=sys.stderr)
        return 2
    status, gpu = execute([program, "gpu"], 20)
    if status != 0:
        print(f"device_check: no GPU can be checked here: {last_line(gpu)}", file=sys.stderr)
        return 2
    rows = run_parts(correctness_parts(args, program), args.seconds)
    report = {"gpu": gpu.strip(), **about(), "rows": rows}
    write(args, report)
    print(tell(report))
    if args.record:
        print("\n" + record(report))
    return 0 if passed(rows) else 1


def correctness_parts(args: argparse.Namespace, program: Path) -> list[Part]:
    """What is checked. The large kernels' references are 430 s of one core, spread over all; the rest waits for the
    device, or is small."""
    tiny = ["--tiny"] if args.tiny else []
    sm80 = {"WAMCORE_CUDA_KERNELS": "sm80"}  # with the kernels of every other GPU

    def programs_sm80(limit: float) -> list[dict]:
        rows = program_rows([program, "programs", *tiny], limit, sm80)
        return [{**r, "kernel": "programs, sm80 kernels"} for r in rows]

    return [
        Part("kernels", 45, 140, lambda s: program_rows([program, "kernels", *tiny], s)),
        Part("programs", 15, 50, lambda s: program_rows([program, "programs", *tiny], s)),
        Part("programs, sm80 kernels", 15, 30, programs_sm80),
        Part("golden sequences", 5, 30, lambda s: golden_rows(program, s)),
        Part("sessions", 25, 60, lambda s: python_rows(args, s)),
        Part("sessions, sm80 kernels", 15, 30, lambda s: python_rows(args, s, "sm80")),
        Part("memcheck", 25, 50, lambda s: sanitizer_rows("memcheck", program, s)),
        Part("racecheck", 40, 60, lambda s: sanitizer_rows("racecheck", program, s)),
    ]


def passed(rows: list[dict]) -> bool:
    """Whether nothing failed and nothing was left out for lack of time."""
    return bool(rows) and all(r["verdict"] in ("ok", "skipped", "unavailable") for r in rows)


def about() -> dict:
    """What ran, and when."""
    _, commit = execute(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=8", "--match="], 10)
    clean = commit.strip() if re.fullmatch(r"[0-9a-f]{8,}(-dirty)?\s*", commit) else "unknown"
    return {"commit": clean, "date": datetime.date.today().isoformat()}


def write(args: argparse.Namespace, report: dict) -> None:
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def groups(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows by name."""
    out: dict[str, list[dict]] = {}
    for r in rows:
        out.setdefault(r["kernel"], []).append(r)
    return out


def nearest(rows: list[dict]) -> str:
    """The error that comes nearest to its tolerance."""
    known = [r for r in rows if r["error"] is not None and r["tolerance"]]
    if not known:
        return "-"
    r = max(known, key=lambda r: r["error"] / r["tolerance"])
    return f"{r['error']:.2e} of {r['tolerance']:.1e}"


def summary(rows: list[dict]) -> str:
    count = {v: sum(r["verdict"] == v for r in rows) for v in dict.fromkeys(r["verdict"] for r in rows)}
    return ", ".join(f"{n} {verdict}" for verdict, n in count.items())


def tell(report: dict) -> str:
    """What did not pass, row by row; then a line a kernel."""
    lines = [f"{report['gpu']}; wamcore at {report['commit']}, {report['date']}"]
    for r in report["rows"]:
        if r["verdict"] not in ("ok", "skipped"):
            error = "" if r["error"] is None else f" {r['error']:.2e} of {r['tolerance']:.1e}"
            lines.append(f"{r['verdict']}: {r['kernel']}, {r['shape']}{error}: {r['why']}")
    lines.append("")
    for name, rows in groups(report["rows"]).items():
        seconds = sum(r.get("seconds") or 0 for r in rows)
        lines.append(f"{name:<26} {nearest(rows):>20}  {summary(rows)}, {seconds:.0f} s")
    lines.append("all passed" if passed(report["rows"]) else "NOT all passed")
    return "\n".join(lines)


def record(report: dict) -> str:
    """Rows for docs/verified_on_device.md: only what ran to its end on this GPU."""
    found = groups(report["rows"])
    lines = []
    for name in NAMES:
        rows = [r for r in found.get(name, []) if r["verdict"] != "skipped"]
        if not rows or any(r["verdict"] in ("unavailable", "not run") for r in rows):
            continue
        result = f"{summary(rows)}; {nearest(rows)}" if nearest(rows) != "-" else summary(rows)
        lines.append(f"| `{name}` | {report['commit']} | {report['date']} | {report['gpu']} | {result} |")
    return "\n".join(lines)


# s kept for a benchmark of a model; the others run in this order in what is left. Each starts a process of its own and
# measures the roofline first, some 12 s.
BENCHES = {
    ("limits", ""): 15,
    ("attention", "dreamzero-14b"): 60,
    ("gemm", "dreamzero-14b"): 35,
    ("forward", "dreamzero-14b"): 65,
    ("chunk", "dreamzero-14b"): 95,
    ("forward", "dreamzero-5b"): 40,
    ("chunk", "dreamzero-5b"): 30,
    ("chunk", "tabletop"): 20,
    ("layer", "dreamzero-14b"): 35,
    ("elementwise", "dreamzero-14b"): 25,
    ("forward", "fast-wam-action"): 20,
}
LEFT_OVER = 20  # s that any other is likely to take
ASK = """
import json
from wamcore.cli.bench import kernel_benches
known = [n for n in kernel_benches().BENCHES if n != "limits"]
from wamcore.bench import cases
from wamcore._core import cuda_status
size = "full", "bfloat16"
of = lambda n: cases.stack(*size, n) if n in ("layer", "forward") else getattr(cases, n)(*size)
print(json.dumps([sorted({(n, c.model) for n in known for c in of(n)}), *cuda_status()]))
"""


def bench(args: argparse.Namespace) -> int:
    """Every benchmark of the package at every model, as far as the time reaches."""
    environment = package_environment(args)
    status, text = execute([sys.executable, "-c", ASK], 60, environment)
    if status != 0:
        first = "" if args.package or (args.build / "package").exists() else "; run bench/device_check build first"
        print(f"device_check: the package has no benchmarks: {last_line(text)}{first}", file=sys.stderr)
        return 2
    known, usable, sentence = json.loads(last_line_json(text))
    if not usable:
        print(f"device_check: no GPU can be measured here: {sentence}", file=sys.stderr)
        return 2
    parts, results = bench_parts([tuple(k) for k in known], args, environment)
    if not parts:
        print(f"device_check: --only: wanted a part of a benchmark's name, got '{args.only}'", file=sys.stderr)
        return 2
    rows = run_parts(parts, args.seconds)
    report = {**about(), "rows": rows, "results": results}
    write(args, report)
    for r in rows:
        print(f"{r['kernel']:<12} {r['shape']:<18} {r['verdict']:<12} {r.get('seconds', 0):5.0f} s  {r['why']}")
    if any(r["verdict"] == "not run" for r in rows):
        print("what was not run can be had by itself: bench/device_check bench --only 'gemm dreamzero-5b'")
    return 0 if passed(rows) else 1


def bench_parts(known: list[tuple[str, str]], args, environment: dict) -> tuple[list[Part], list]:
    """The benchmarks that the table of cases has, those with time of their own first; where their reports will be."""
    results: list[dict] = []
    order = [("limits", ""), *sorted(known, key=lambda k: list(BENCHES).index(k) if k in BENCHES else len(BENCHES))]
    parts = [
        Part(
            f"{name} {model}".strip(),
            BENCHES.get((name, model), LEFT_OVER),
            BENCHES.get((name, model), 0),
            lambda limit, name=name, model=model: [one_bench(name, model, limit, environment, results)],
        )
        for name, model in order
        if args.only in f"{name} {model}"
    ]
    return parts, results


def last_line_json(text: str) -> str:
    return next(line for line in reversed(text.splitlines()) if line.startswith("["))


def one_bench(name: str, model: str, limit: float, environment: dict, results: list) -> dict:
    """Runs one benchmark of one model; appends what it wrote to `results`: all, or what was known when it ended."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out.json"
        command = [sys.executable, "-m", "wamcore", "bench", name, "--device", "cuda", "--json", file]
        command += ["--only", model] if model else []
        status, text = execute(command, limit, environment)
        known = json.loads(file.read_text()) if file.exists() else None
    if known:
        results.append(known)
    seconds = time.monotonic() - began
    if status is None:
        cases = len({(r["case"], r["dtype"]) for r in known["rows"]}) if known else 0
        return row(name, model, "not run", f"out of time after {cases} cases", seconds=seconds)
    if status:
        return row(name, model, "FAILED", last_line(text), seconds=seconds)
    print(text, flush=True)
    return row(name, model, "ok", seconds=seconds)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/device_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, action in (("build", build), ("correctness", correctness), ("bench", bench)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        add = command.add_argument
        add("--build", type=Path, default=ROOT / "build" / "device", metavar="DIR", help="build folder")
        if name == "build":
            add("--real", default="90", metavar="CC", help="compute capabilities, separated by ';' (default: 90)")
            add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="default: all cores")
            continue
        add("--package", type=Path, metavar="DIR", help="folder with the package wamcore (default: of the build)")
        add("--plugin", type=Path, metavar="FILE", help="libwamcore_cuda.so built elsewhere, of the same commit")
        add("--json", type=Path, metavar="FILE", help="also write JSON")
        add("--seconds", type=float, default=BUDGET, metavar="S", help=f"for all rows (default: {BUDGET})")
        if name == "correctness":
            add("--program", type=Path, metavar="FILE", help="the C++ half (default: of the build)")
            add("--record", action="store_true", help="also print rows for docs/verified_on_device.md")
            add("--tiny", action="store_true", help="small sizes only")
        else:
            add("--only", default="", metavar="TEXT", help="benchmarks with this in their name: 'forward dreamzero-5b'")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    return args.action(args)


if __name__ == "__main__":
    sys.exit(main())
