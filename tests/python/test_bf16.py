"""The bundled model in bfloat16 on the CPU beside float32, on every instruction set of the machine."""

import numpy as np
from test_int8 import error, run, runs_of_a_chunk

ISAS = ("portable", "avx2", "avx512", "amx", "neon", "neon_mmla")
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
    runs = runs_of_a_chunk("bfloat16")
    assert runs["gemm", "bfloat16, sums float32"] and runs["feed_forward", "bfloat16, sums float32"]
    assert runs["gemm", "int8, sums int32"] == 0
