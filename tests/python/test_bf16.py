"""The bundled model in bfloat16 on the CPU beside float32, on every instruction set of the machine."""

import numpy as np
import wamcore as wam
from test_int8 import error, run

ISAS = ("portable", "avx2", "avx512", "neon")
GATE = 4e-3  # relative L2 error of the motion of four chunks


def test_bf16_moves_the_arm_as_float32_does():
    seed = int(np.random.default_rng().integers(1 << 30))
    exact, _ = run("", "float32", seed)
    for isa in ISAS:
        if result := run(isa, "bfloat16", seed, "bfloat16"):
            moves, ran = result
            assert ran == [isa]
            print(f"{isa}: {error(moves, exact):.5f} of the motion")
            assert 1e-6 < error(moves, exact) < GATE, isa


def test_bf16_says_what_ran():
    model = wam.load("tabletop", threads=1, dtype="bfloat16")
    assert model.dtype == "bfloat16"
    session = wam.Session(model, steps=1)
    session.set_prompt("touch the red block")
    session.infer(wam.Observation({"scene": np.zeros((64, 96, 3), np.uint8)}, [0.0, 1.2, -1.6, -1.2]))
    runs = {(o["operation"], o["precision"]): o["runs"] for o in session.operations}
    assert runs["gemm", "bfloat16, sums float32"] and runs["feed_forward", "bfloat16, sums float32"]
    assert runs["gemm", "int8, sums int32"] == 0
