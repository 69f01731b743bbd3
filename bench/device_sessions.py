"""The Python half of `bench/device_check correctness`: sessions on a GPU beside the same sessions on the CPU.

Called as `device_sessions.py FILE [KERNELS]`; appends a line of JSON a row to FILE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
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
        kernels = os.environ.get("WAMCORE_CUDA_KERNELS")
        verdict = "skipped" if dtype == "fp8" and kernels == "sm80" else "FAILED"
        return device_check.row(name, shape, verdict, str(e))
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


def main(file: str, kernels: str = "") -> int:
    name = device_check.sessions_of(kernels)
    with open(file, "a") as out:

        def tell(rows: list[dict]) -> None:
            out.writelines(json.dumps(r) + "\n" for r in rows)
            out.flush()

        for model in bundled():
            for dtype in TOLERANCE:
                tell([session_row(name, model, dtype)])
        if not kernels:
            tell([doctor_row()])
            tell(golden_rows())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
