"""`wamcore bench`: where the time of an inference goes, beside the PyTorch reference where torch is installed; and, by
the modules of the top-level folder `bench`, kernels, layers and forwards beside PyTorch's."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from .._core import ConfigError, Observation, RobotError, Session
from ..loading import find, load
from . import bench_runtime, bench_trace, machine
from .tables import quantiles, stage_quantiles, table

DEFINITION = (
    "wall time of one Session.infer, float32: frames and joints in, joint targets out; preprocessing, image encoding, "
    "memory update and all flow steps included; text is encoded before (once per prompt), no picture is decoded; "
    "random pictures; the reference is timed by the same rules, call by call in turn, in a process of its own, "
    "after 20 ms of rest each"
)
PAUSE = 0.02  # s before every call: the other side's idle threads spin for a while after theirs
WARM_UP = 10  # two contexts, so that every shape has been met; inferences that are not counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    benches = kernel_benches().BENCHES
    what = "a bundled model, a checkpoint folder, or a benchmark: " + "; ".join(f"{k}: {v}" for k, v in benches.items())
    add("model", nargs="?", default="tabletop", metavar="WHAT", help=f'{what}; "runtime": see below')
    add("-n", type=int, metavar="N", help="inferences or calls to count (default: 60 inferences, 100 calls)")
    add("--steps", type=int, metavar="K", help="flow steps (default: as the checkpoint says)")
    add("--threads", type=int, help="to compute with, on both sides (default: all cores)")
    add("--device", default="auto", help='"auto", "cpu", "cpu-ops" or "cuda"')
    add("--dtype", default="auto", help="of the large products, where the device has a choice: see wamcore.load")
    add("--no-reference", action="store_true", help="leave the PyTorch reference out")
    add("--compiled", action="store_true", help="also time the reference through torch.compile (compiles for minutes)")
    add("--trace", action="store_true", help="of a model on the CPU: also each operation's time, rate and share")
    add("--json", type=Path, metavar="FILE", help="also write JSON")
    of_kernels = parser.add_argument_group(f"bench {', '.join(benches)}").add_argument
    of_kernels("--smoke", action="store_true", help="tiny sizes and two calls, to see that everything runs")
    of_kernels("--only", default="", metavar="TEXT", help="cases with this in their name, e.g. 14b")
    of_kernels("--seconds", type=float, default=3.0, metavar="S", help="most for a case (default: 3)")
    of_kernels("--peak-tflops", type=float, metavar="X", help="for the roofline, instead of what is measured")
    of_kernels("--peak-gbs", type=float, metavar="X", help="for the roofline, instead of what is measured")
    bench_runtime.add_arguments(parser)


def kernel_benches():
    """The module of `bench/` that runs benchmarks. The wheel has the folder as wamcore.bench; in a checkout it lies at
    the top."""
    if importlib.util.find_spec("wamcore.bench") is None:
        folder = Path(__file__).resolve().parents[3] / "bench"
        if not (folder / "run.py").is_file():
            raise ConfigError("bench: wanted the folder `bench` installed as wamcore.bench, got an incomplete package")
        spec = importlib.util.spec_from_file_location(
            "wamcore.bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules["wamcore.bench"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["wamcore.bench"])
    return importlib.import_module("wamcore.bench.run")


def run(args: argparse.Namespace) -> int:
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise ConfigError(f"--threads: wanted 1 to 1024, got {args.threads}")
    if args.trace and (args.model == "runtime" or args.model in kernel_benches().BENCHES):
        raise ConfigError(f"--trace: wanted a model, got the benchmark '{args.model}'")
    if args.model == "runtime":
        return bench_runtime.run(args)
    if args.model in kernel_benches().BENCHES:
        return kernel_benches().run(args)
    args.n = 60 if args.n is None else args.n
    if not 1 <= args.n <= 100_000:
        raise ConfigError(f"-n: wanted 1 to 100000, got {args.n}")
    report = measure(args)
    print(tell(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def observations(model, count: int) -> list[Observation]:
    """Random pictures: one frame for the first call, as many as the model wants for the others."""
    random, robot = np.random.default_rng(0), model.embodiment
    middle = np.add(robot.limits.position_min, robot.limits.position_max) / 2
    state = middle if len(middle) == robot.state_dim else np.zeros(robot.state_dim)
    out = []
    for i in range(count):
        frames = 1 if i == 0 else len(robot.frame_offsets)
        pictures = {n: random.integers(0, 256, (frames, h, w, 3), np.uint8) for n, h, w in robot.cameras}
        out.append(Observation(pictures, state, i))
    return out


def measure(args: argparse.Namespace) -> dict:
    """Times both sides call by call in turn, so that whatever else the machine does hits them alike."""
    model = load(args.model, device=args.device, threads=args.threads, dtype=args.dtype)
    session = Session(model, steps=args.steps)
    session.set_prompt_tokens([1, 2, 3])
    seen = observations(model, 16)
    peers, why = ([], "not asked for") if args.no_reference else references(args, model)
    ours: list[tuple[float, bool, dict]] = []  # s, whether a context began, ns of each stage
    theirs: dict[str, list[float]] = {peer.name: [] for peer in peers}
    try:
        for i in range(WARM_UP + args.n):
            observation = seen[0] if i == 0 else seen[1 + i % (len(seen) - 1)]
            time.sleep(PAUSE)
            began = time.perf_counter()
            session.infer(observation)
            seconds, trace = time.perf_counter() - began, session.trace
            others = {}
            for peer in peers:
                time.sleep(PAUSE)
                others[peer.name] = peer.infer()
            if i >= WARM_UP:
                ours.append((seconds, trace["counts"]["context_resets"] > 0, trace["stages"]))
                for name, other in others.items():
                    theirs[name].append(other)
    finally:
        for peer in peers:
            peer.close()
    rows = {"wamcore": [s for s, _, _ in ours], "continued": [s for s, new, _ in ours if not new]}
    rows["new context"] = [s for s, new, _ in ours if new]
    report = {
        "schema": 1,
        "definition": DEFINITION,
        "model": {"path": args.model, "sha256": machine.sha256(find(args.model)), "parameters": model.parameters},
        "device": model.device,
        "dtype": model.dtype,
        "threads": model.threads,
        "steps": len(session.steps_run),
        "chunk_ms": {k: quantiles([s * 1e3 for s in v]) for k, v in rows.items()},
        "stages_ms": stage_quantiles([stages for _, _, stages in ours]),
        "references_ms": {name: quantiles([s * 1e3 for s in seconds]) for name, seconds in theirs.items()},
        "no_reference_because": why,
        "machine": machine.describe(),
    }
    if args.trace:
        report["trace"] = bench_trace.measure(model, session, seen, args.n)
    return report


class Peer:
    """The reference in a process of its own; it works only while we wait for it."""

    def __init__(self, command: list[str]):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.name = self._line()

    def _line(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            error = self._process.stderr.read().strip().splitlines() or ["no message"]
            raise RobotError(f"bench: the reference's process ended: {error[-1]}")
        return line

    def infer(self) -> float:
        """Seconds of one inference."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._process.stderr.close()


def references(args: argparse.Namespace, model) -> tuple[list[Peer], str]:
    """The reference's processes, or why there are none."""
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            return [], f"{package} is not installed"
    steps = [] if args.steps is None else ["--steps", str(args.steps)]
    command = [sys.executable, "-m", "wamcore.reference.timing", str(find(args.model)), "--threads", str(model.threads)]
    compiled = [Peer([*command, *steps, "--compile"])] if args.compiled else []
    return [Peer([*command, *steps]), *compiled], ""


def tell(report: dict) -> str:
    """The report for people."""
    chunk = report["chunk_ms"]
    rows = [("wamcore, whole chunk", chunk["wamcore"])]
    rows += [(f"  {k}", chunk[k]) for k in ("continued", "new context") if chunk[k]["n"]]
    rows += [(f"  stage {k}", q) for k, q in report["stages_ms"].items()]
    rows += report["references_ms"].items()
    machine_ = report["machine"]
    lines = [
        f"{report['model']['path']}: {report['model']['parameters'] / 1e6:.1f} M parameters, "
        f"{report['steps']} flow steps, {report['device']} in {report['dtype']} with {report['threads']} threads",
        f"{machine_['cpu']}, {machine_['cores']} cores, {machine_['kernels']} kernels; wamcore {machine_['wamcore']}"
        + (f" at {machine_['commit']}" if machine_["commit"] else ""),
        "",
        table([(k, f"{q['p50']:.2f}", f"{q['p99']:.2f}", q["n"]) for k, q in rows], ("ms", "median", "p99", "n")),
        "",
    ]
    for name, times in report["references_ms"].items():
        ratio = times["p50"] / chunk["wamcore"]["p50"]
        lines.append(f"  ratio of the medians, {name} / wamcore: {ratio:.2f}")
    if report["no_reference_because"]:
        lines.append(f"  reference: {report['no_reference_because']}")
    lines.append(f"  measured: {report['definition']}")
    if "trace" in report:
        lines += ["", bench_trace.tell(report["trace"])]
    return "\n".join(lines)
