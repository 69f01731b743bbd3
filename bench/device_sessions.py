"""The Python half of `bench/device_check correctness`: sessions on a GPU beside the same sessions on the CPU.

Called as the C++ half is, `device_sessions.py --kernels NAME --from ROW --json FILE`: appends a line of JSON a row to
FILE, and ends behind a row that may have lost the device (status 3) or hangs (4); the next process goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import device_check
import numpy as np
import wamcore
from wamcore import Session, _core
from wamcore.cli.bench import observations
from wamcore.loading import bundled, load

# Distance of the chunks, relative to how far the CPU's moves from its mean. Estimates: a pass in bf16 was measured to
# be off by up to 1.4e-2 on the simulated machine, and a chunk adds several up.
TOLERANCE = {"bfloat16": 0.1, "fp8": 0.4}
PATIENCE = 60  # s for a session, the CPU's included
LOST, HUNG = 3, 4  # exit statuses
CHUNKS = 6  # a context and the beginning of the next


def chunks(model, seed: int) -> np.ndarray:
    """[chunks, horizon, dof] of one session, whose noise and pictures depend on the seed alone."""
    random, session = np.random.default_rng(seed), Session(model)
    session.set_prompt("touch the red block")
    dim = model.embodiment.action_dim
    out = []
    for obs in observations(model, CHUNKS):
        noise = (
            random.standard_normal(model.latent_shape).astype(np.float32),
            random.standard_normal((model.horizon, dim)).astype(np.float32),
        )
        out.append(session.infer(obs, noise=noise).q)
    return np.stack(out).astype(np.float64)


def session_row(name: str, model: str, dtype: str) -> dict:
    """One bundled model on both devices."""
    began, seed = time.monotonic(), int.from_bytes(os.urandom(4), "little")
    shape = f"{model}, {dtype}, {CHUNKS} chunks, noise {seed}"
    try:
        got = chunks(load(model, device="cuda", dtype=dtype), seed)
        want = chunks(load(model, device="cpu"), seed)
    except wamcore.Error as e:
        return device_check.row(name, shape, "FAILED", str(e))
    spread = np.linalg.norm(want - want.mean(axis=1, keepdims=True))
    row = device_check.measured(name, shape, float(np.linalg.norm(got - want) / spread), TOLERANCE[dtype])
    return row | {"seconds": time.monotonic() - began}


def doctor_row() -> dict:
    """`wamcore doctor` ran a chunk on the GPU."""
    done = subprocess.run([sys.executable, "-m", "wamcore", "doctor"], capture_output=True, text=True)
    usable, sentence = _core.cuda_status()
    ran = any(line.split()[:1] == ["cuda"] and "ran a chunk" in line for line in done.stdout.splitlines())
    return device_check.row("doctor", sentence, "ok" if usable and ran else "FAILED", "" if ran else done.stdout[-300:])


def golden_rows() -> list[dict]:
    """Recorded closed loops of the release, by the tests that the CPU passes."""
    name = "golden sessions"
    if not device_check.golden_folders():
        return [device_check.row(name, "-", "unavailable", "WAMCORE_GOLDEN names no folder")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(
            [*command, "tests/python/test_golden_head.py"],
            cwd=device_check.ROOT,
            env={**os.environ, "WAMCORE_TEST_DEVICE": "cuda"},
            capture_output=True,
            text=True,
        )
        if not report.exists():
            return [device_check.row(name, "-", "FAILED", device_check.last_line(done.stdout + done.stderr))]
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [golden_row(name, case) for case in cases] or [device_check.row(name, "-", "FAILED", "no test ran")]


def golden_row(name: str, case: ElementTree.Element) -> dict:
    """What pytest says about one test."""
    for tag, verdict in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "unavailable")):
        found = case.find(tag)
        if found is not None:
            return device_check.row(name, case.get("name"), verdict, (found.get("message") or "")[:300])
    return device_check.row(name, case.get("name"), "ok", seconds=float(case.get("time") or 0))


def checks(kernels: str) -> list[Callable[[], list[dict]]]:
    """What is to be done, in order, each with its rows as the result."""
    name = device_check.sessions_of(kernels)
    sessions = [functools.partial(watched, name, model, dtype) for model in bundled() for dtype in TOLERANCE]
    return sessions if kernels else [*sessions, lambda: [doctor_row()], golden_rows]


class Hung(Exception):
    """A session that takes too long, as a row."""


def watched(name: str, model: str, dtype: str) -> list[dict]:
    """One session on a thread that can be left behind."""
    out: list[dict] = []
    thread = threading.Thread(target=lambda: out.append(session_row(name, model, dtype)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not out and thread.is_alive():
        raise Hung(device_check.row(name, f"{model}, {dtype}", "FAILED", "hangs", seconds=PATIENCE))
    return out or [device_check.row(name, f"{model}, {dtype}", "FAILED", "ended without a result")]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", default="")
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    failed = False
    with open(args.json, "a") as out:

        def tell(index: int, rows: list[dict]) -> None:
            out.writelines(json.dumps({"index": index, **r}) + "\n" for r in rows)
            out.flush()

        for index, check in enumerate(checks(args.kernels)):
            if index < args.start:
                continue
            try:
                rows = check()
            except Hung as e:
                tell(index, list(e.args))
                return HUNG
            tell(index, rows)
            failed = failed or any(r["verdict"] == "FAILED" for r in rows)
            if any(r["verdict"] == "FAILED" and r["error"] is None for r in rows):
                return LOST  # or not, but a new process knows nothing of it
    return 1 if failed else 0


if __name__ == "__main__":
    # not sys.exit, which would wait for a thread that hangs
    status = main()
    sys.stdout.flush()
    os._exit(status)
