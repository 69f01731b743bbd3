"""One denoise pass of the transformer on a CPU beside other runtimes: the same weights, the same inputs, errors against
float64 beside every time.

    python -m bench.peers_cpu --out peers_cpu.json                      # all sizes, 1 and 2 threads, every peer
    python -m bench.peers_cpu --sizes S --threads 1 --peers wamcore-float32 torch-eager-float32
    python -m bench.peers_cpu --isa avx2                                # those that can be held to AVX2

Every peer is a process in an environment of its own, made under --work (or named: --python torch=/path/to/python), and
has 10 minutes to get ready: "did not finish" is a result. Peers take turns in rounds, those that wait are stopped. What
was measured before is read from --out and not measured again. Sizes S, M and L are 7, 52 and 275 M parameters;
"tabletop" is the bundled model's own step. Peers embed the text in every pass; wamcore keeps its keys and values.
bench.peers_chart draws the result. ggml stands for the runtimes that are built on it: wam.cpp, the one for world action
models, says that its CPU build cannot predict.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

SIZES = ("S", "M", "L", "tabletop")  # what they are: peers/denoise_pass.py
TORCH = ("torch==2.13.0", "numpy", "safetensors")
PACKAGES = {
    "wamcore": None,  # this interpreter
    "torch": TORCH,
    "onnxruntime": (*TORCH, "onnx", "onnxscript", "onnxruntime"),
    "openvino": (*TORCH, "onnx", "onnxscript", "openvino", "nncf"),
    # built for this CPU from its source
    "ggml": (
        "--no-binary=ggml-python",
        "ggml-python==0.0.45",
        "-Ccmake.define.GGML_LLAMAFILE=ON",
        "numpy",
        "safetensors",
    ),
}
ISA = {  # what holds each library to an instruction set: PyTorch multiplies float32 by MKL
    "avx2": {
        "WAMCORE_CPU_ISA": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
HELD = ("wamcore", "torch", "openvino")  # the others take what they find
PEERS = (
    *(f"wamcore-{d}" for d in ("float32", "bfloat16", "int8")),
    *(f"torch-{how}-{d}" for how in ("eager", "compile", "freeze", "autotune") for d in ("float32", "bfloat16")),
    *(f"onnxruntime-{d}" for d in ("float32", "int8")),
    *(f"openvino-{d}" for d in ("float32", "bfloat16", "int8")),
    *(f"ggml-{d}" for d in ("float32", "int8")),
)
READY = 600.0  # s
ANSWER = 600.0  # s, for one turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--isa", choices=ISA, help="default: whatever each finds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", type=int, default=3, help="of a peer in each round, after one that is not counted")
    parser.add_argument("--out", type=Path, default=Path("peers_cpu.json"))
    parser.add_argument("--work", type=Path, default=Path(".cache/peers_cpu"))
    parser.add_argument("--python", nargs="*", default=[], metavar="FAMILY=PATH", help="interpreters that are there")
    args = parser.parse_args()
    if not all(1 <= threads <= 1024 for threads in args.threads):
        parser.error(f"--threads: wanted 1 to 1024, got {args.threads}")
    os.environ |= ISA.get(args.isa, {})
    named = dict(entry.split("=", 1) for entry in args.python)
    report = json.loads(args.out.read_text()) if args.out.exists() else {"definition": __doc__, "results": {}}
    report["machine"] = machine()
    for size in args.sizes:
        folder = args.work / size
        if not (folder / "want.npy").exists():
            run_worker(interpreter("torch", named, args.work), "prepare", folder, 2).wait()
        for threads in args.threads:
            title = f"{size}, {threads} threads" + (f", {args.isa}" if args.isa else "")
            rows = report["results"].setdefault(title, {})
            held = [p for p in args.peers if not args.isa or p.split("-")[0] in HELD]
            wanted = [p for p in held if p not in rows]
            rows.update(compare(wanted, folder, threads, args, named))
            args.out.write_text(json.dumps(report, indent=1))
            tell(title, rows)


def machine() -> dict:
    from wamcore.cli.machine import describe

    return describe()


def interpreter(family: str, named: dict, work: Path) -> str:
    """Of a peer's environment, which is made when it is not there."""
    if PACKAGES[family] is None:
        return sys.executable
    if family in named:
        return named[family]
    folder = (work / family).absolute()
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", *PACKAGES[family]], check=True)
        (folder / "done").touch()
    return str(folder / "bin/python")


def run_worker(python: str, what: str, folder: Path, threads: int) -> subprocess.Popen:
    import wamcore

    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(wamcore.__file__).parents[1]),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [python, Path(__file__).parent / "peers/denoise_pass.py", what, folder, str(threads)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{what}_{threads}.log").open("w") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
        )


def answer(process: subprocess.Popen, limit: float) -> dict | None:
    """The next line of a worker; None when there is none in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(limit) else ""
    if not line:
        process.kill()
        process.wait()
    return json.loads(line) if line else None


def compare(peers, folder: Path, threads: int, args: argparse.Namespace, named: dict) -> dict:
    """{peer: its row}, from rounds in which the peers take turns."""
    rows, alive, times = {}, {}, {}
    for peer in peers:
        try:
            python = interpreter(peer.split("-")[0], named, args.work)
        except subprocess.CalledProcessError as e:
            rows[peer] = {"did not finish": f"no environment: {e}"}
            continue
        process = run_worker(python, peer, folder, threads)
        print(f"  {peer} gets ready", file=sys.stderr, flush=True)
        ready = answer(process, READY)
        if ready is None:
            log = (folder / f"{peer}_{threads}.log").read_text().strip().splitlines()
            rows[peer] = {"did not finish": log[-1] if log else f"not ready after {READY:.0f} s"}
            continue
        rows[peer], times[peer], alive[peer] = ready, [], process
        process.send_signal(signal.SIGSTOP)
    for _ in range(args.rounds):
        for peer, process in list(alive.items()):
            process.send_signal(signal.SIGCONT)
            process.stdin.write(f"{args.passes}\n")
            got = answer(process, ANSWER)
            if got is None:
                rows[peer] = {"did not finish": f"no answer in {ANSWER:.0f} s"}
                del alive[peer]
                continue
            process.send_signal(signal.SIGSTOP)
            times[peer] += got["times"]
    for peer, process in alive.items():
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait()
        wall, cpu = 1e3 * np.array(times[peer]).T
        rows[peer] |= {"wall_ms": spread(wall), "cpu_ms": spread(cpu)}
    return rows


def spread(ms: np.ndarray) -> dict:
    return {"median": float(np.median(ms)), "min": float(ms.min()), "n": len(ms)}


def tell(title: str, rows: dict) -> None:
    print(title)
    for peer, row in rows.items():
        if "wall_ms" not in row:
            print(f"  {peer:24s} did not finish: {row['did not finish']}")
            continue
        wall, cpu = row["wall_ms"], row["cpu_ms"]
        print(
            f"  {peer:24s} wall {wall['median']:9.2f} median {wall['min']:9.2f} min | CPU {cpu['median']:9.2f} median "
            f"{cpu['min']:9.2f} min ms | error {row['error']:.1e} | ready after {row['ready_s']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
