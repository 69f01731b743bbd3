"""Every instruction set that this CPU has gives the same chunk; one that is not there is a clear error."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wamcore  # noqa: F401 (it maps its library into this process)

RUN = """
import json, sys
import numpy as np
import wamcore as wam
from wamcore._core import cpu_isa

model = wam.load("tabletop", threads=2)
session = wam.Session(model, steps=2, seed=int(sys.argv[1]))
session.set_prompt("touch the red block")
rng = np.random.default_rng(int(sys.argv[1]))
chunks, starts = [], []
for i in range(3):  # after the first one, which starts the context, as many frames as the model looks back on
    frames = 1 if i == 0 else len(session.frame_offsets())
    images = {n: rng.integers(0, 256, (frames, h, w, 3), dtype=np.uint8) for n, h, w in model.embodiment.cameras}
    limits = model.embodiment.limits
    q = rng.uniform(limits.position_min, limits.position_max)
    chunks.append(session.infer(wam.Observation(images, q)).q.tolist())
    starts.append(session.context_start)
print(json.dumps([cpu_isa(), chunks, starts]))
"""


def run(isa: str, seed: int = 0) -> subprocess.CompletedProcess:
    environment = {**os.environ, "WAMCORE_CPU_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", RUN, str(seed)], capture_output=True, text=True, env=environment, timeout=300
    )


def chunks_of(isa: str, seed: int) -> np.ndarray:
    done = run(isa, seed)
    if "DeviceError: WAMCORE_CPU_ISA" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert done.returncode == 0, done.stderr
    used, chunks, starts = json.loads(done.stdout)
    assert used == isa
    assert starts[0] < starts[1] < starts[2], f"no chunk read the memory: {starts}"
    return np.array(chunks)


@pytest.fixture(scope="module")
def portable() -> tuple[int, np.ndarray]:
    seed = int(np.random.default_rng().integers(1 << 30))
    return seed, chunks_of("portable", seed)


@pytest.mark.parametrize("isa", ["avx2", "avx512", "neon"])
def test_an_instruction_set_agrees_with_the_portable_kernels(isa, portable):
    seed, want = portable
    # rad; three chunks feed each other through the memory, in float32
    np.testing.assert_allclose(chunks_of(isa, seed), want, atol=2e-4)


# No CPU has both avx2 and neon, so at least one of these is refused by name.
@pytest.mark.parametrize("isa", ["mmx", "avx2", "neon", "amx"])
def test_an_instruction_set_that_is_not_there(isa):
    done = run(isa)
    if isa != "mmx" and done.returncode == 0:
        assert json.loads(done.stdout)[0] == {"amx": "avx512"}.get(isa, isa)  # floats have no tiles
        return
    assert done.returncode != 0
    assert "DeviceError: WAMCORE_CPU_ISA: wanted one that this CPU has (portable" in done.stderr
    assert done.stderr.rstrip().endswith(f"got {isa}")


# Few machines have AMX, so this looks at what was compiled; tests/cpp/test_amx.cpp computes with it in memory.
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 only")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
def test_products_on_tiles_are_compiled():
    maps = Path("/proc/self/maps").read_text()
    files = {f for f in re.findall(r"(/.*\.so\S*)", maps) if Path(f).name.startswith(("libwamcore.", "_core."))}
    commands = [["objdump", "-d", "--no-show-raw-insn", path] for path in sorted(files)]
    text = "".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    code = re.findall(r"\t(ldtilecfg|tile\w+|tdp\w+) *([^\n]*)", text)
    assert {"ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored"} <= {name for name, _ in code}
    blocks = " ".join(name + " " + registers.replace("%tmm", "") for name, registers in code if name.startswith("tdp"))
    for product in ("tdpbssd", "tdpbf16ps"):  # of two tiles of rows and two of weights
        assert f"{product} 6,4,0 {product} 6,5,2 {product} 7,4,1 {product} 7,5,3" in blocks
