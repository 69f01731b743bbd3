"""The bundled model in bfloat16 on the CPU beside float32, on every instruction set of the machine."""

import numpy as np
import pytest
from test_int8 import error, run, runs_of_a_chunk

ISAS = ("portable", "avx2", "avx512", "amx", "neon", "neon_mmla")
GATE = 4e-3  # relative L2 error of the motion of four chunks


@pytest.fixture(scope="module")
def exact() -> tuple[int, np.ndarray]:
    """A seed, and the motion that float32 makes of it."""
    seed = int(np.random.default_rng().integers(1 << 30))
    return seed, run("", "float32", seed)[0]


@pytest.mark.parametrize("isa", ISAS)
def test_bf16_moves_the_arm_as_float32_does(isa, exact):
    seed, want = exact
    moves, ran = run(isa, "bfloat16", seed, "bfloat16")
    assert ran == [isa]
    print(f"{isa}: {error(moves, want):.5f} of the motion")
    assert 1e-6 < error(moves, want) < GATE


def test_bf16_says_what_ran():
    runs = runs_of_a_chunk("bfloat16")
    assert runs["gemm", "bfloat16, sums float32"] and runs["feed_forward", "bfloat16, sums float32"]
    assert runs["gemm", "int8, sums int32"] == 0
