"""The bundled model in int8 on the CPU beside float32, every tile of products of bytes by name."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import wamcore as wam

RUN = """
import json, sys
import numpy as np
import wamcore as wam

rng = np.random.default_rng(int(sys.argv[1]))
model = wam.load("tabletop", threads=2, dtype=sys.argv[2])
session = wam.Session(model, seed=int(sys.argv[1]))
session.set_prompt("touch the red block")
limits = model.embodiment.limits
moves = []
for i in range(4):
    frames = 1 if i == 0 else len(session.frame_offsets())
    images = {n: rng.integers(0, 256, (frames, h, w, 3), dtype=np.uint8) for n, h, w in model.embodiment.cameras}
    q = rng.uniform(limits.position_min, limits.position_max)
    moves.append((session.infer(wam.Observation(images, q)).q - q).tolist())
ran = {o["kernel"] for o in session.operations if o["runs"] and o["precision"].startswith(sys.argv[3])}
print(json.dumps([moves, sorted(ran)]))
"""
ISAS = ("portable", "avx2", "avx512", "avx512_vnni", "amx", "neon", "neon_dotprod", "neon_mmla")


def run(isa: str, dtype: str, seed: int, precision: str = "int8") -> tuple[np.ndarray, list[str]]:
    """What four chunks move the joints by, [4, rows, joints] in rad, and the kernels that computed in `precision`.
    Skips the test where this CPU lacks the instruction set."""
    command = [sys.executable, "-c", RUN, str(seed), dtype, precision]
    environment = {**os.environ, "WAMCORE_CPU_ISA": isa}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    if "DeviceError: WAMCORE_CPU_ISA" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert done.returncode == 0, done.stderr
    moves, ran = json.loads(done.stdout)
    return np.array(moves), ran


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def runs_of_a_chunk(dtype: str) -> dict[tuple[str, str], int]:
    """How often each (operation, precision) ran for one chunk of the bundled model, loaded in `dtype`."""
    model = wam.load("tabletop", threads=1, dtype=dtype)
    assert model.dtype == dtype
    session = wam.Session(model, steps=1)
    session.set_prompt("touch the red block")
    session.infer(wam.Observation({"scene": np.zeros((64, 96, 3), np.uint8)}, [0.0, 1.2, -1.6, -1.2]))
    return {(o["operation"], o["precision"]): o["runs"] for o in session.operations}


GATE = 0.03


@pytest.fixture(scope="module")
def references() -> tuple[int, np.ndarray, np.ndarray]:
    """A seed, and the motion that float32 and the portable int8 kernels make of it."""
    seed = int(np.random.default_rng().integers(1 << 30))
    exact, none = run("", "float32", seed)
    assert none == []
    return seed, exact, run("portable", "int8", seed)[0]


@pytest.mark.parametrize("isa", ISAS)
def test_int8_moves_the_arm_as_float32_does(isa, references):
    seed, exact, portable = references
    moves, ran = run(isa, "int8", seed)
    assert ran == [isa]
    found = error(moves, exact)
    print(f"{isa}: {found:.4f} of the motion, at most {np.abs(moves - exact).max():.4f} rad")
    assert 1e-6 < found < GATE
    assert error(moves, portable) < GATE


def test_int8_is_never_chosen_unasked():
    assert wam.load("tabletop", threads=1).dtype == "float32"
    runs = runs_of_a_chunk("int8")
    assert runs["gemm", "int8, sums int32"] and runs["feed_forward", "int8, sums int32"]
    assert (
        sum(n for (name, kind), n in runs.items() if name == "gemm" and kind.startswith("float32")) > 0
    )  # heads, text
