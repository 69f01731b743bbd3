"""The gate on what the compiler made of CUDA kernels, on listings as cuobjdump prints them."""

import importlib.util
import json
from pathlib import Path

import pytest

USAGE = """
arch = sm_80
 Function _ZN3wam7kernels4cuda4goodILi4EEEvNS1_1PE:
  REG:40 STACK:0 SHARED:64 LOCAL:0 CONSTANT[0]:408 TEXTURE:0
 Function _ZN3wam7kernels4cuda5spillEv:
  REG:255 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:408 TEXTURE:0
 Function _ZN3wam7kernels4cuda5shareEv:
  REG:168 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:408 TEXTURE:0
"""
SASS = """
	code for sm_80
		Function : _ZN3wam7kernels4cuda4goodILi4EEEvNS1_1PE
        /*0000*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;       /* 0x00 */
        /*0010*/              @!P0 EXIT ;                                      /* 0x00 */
		Function : _ZN3wam7kernels4cuda5spillEv
        /*0000*/                   STL [R1], R2 ;                              /* 0x00 */
        /*0010*/               @P1 LDL.LU R2, [R1] ;                           /* 0x00 */
		Function : _ZN3wam7kernels4cuda5shareEv
        /*0000*/                   USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xe8 ;    /* 0x00 */
"""


@pytest.fixture
def gate(root: Path, monkeypatch):
    spec = importlib.util.spec_from_file_location("cuda_resources", root / "scripts" / "cuda_resources.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "read", lambda library, flag: (USAGE if "usage" in flag else SASS).splitlines())
    return module


def run(gate, tmp_path: Path, monkeypatch, kernels: dict, size: int = 100) -> int:
    library, table = tmp_path / "lib.so", tmp_path / "table.json"
    library.write_bytes(b"x" * 10)
    table.write_text(json.dumps({"library_bytes": size, "kernels": kernels}))
    monkeypatch.setattr("sys.argv", ["cuda_resources.py", str(library), str(table)])
    return gate.main()


GOOD = {"good<4>": {"registers": 40, "hot": True, "needs": ["HMMA"]}}
SPILL = {"spill": {"registers": 255, "hot": False}, "share": {"registers": 168, "hot": True}}


def test_kernels_within_their_limits_pass(gate, tmp_path, monkeypatch, capsys):
    assert run(gate, tmp_path, monkeypatch, GOOD | SPILL) == 0
    assert "3 kernels within their limits" in capsys.readouterr().out


def test_patterns_and_alternatives(gate, tmp_path, monkeypatch):
    rows = {"good<*": {"registers": 40, "hot": True, "needs": ["HGMMA|HMMA"]}}
    assert run(gate, tmp_path, monkeypatch, rows | SPILL) == 0
    assert run(gate, tmp_path, monkeypatch, rows | SPILL | {"other*": SPILL["spill"]}) == 1


def test_an_architecture_that_emulates_is_held_to_nothing(gate, tmp_path, monkeypatch, capsys):
    arch = next(line.split("=")[1].strip() for line in USAGE.splitlines() if line.startswith("arch"))
    row = {"registers": 8, "hot": True, "needs": ["QMMA"]}
    assert run(gate, tmp_path, monkeypatch, GOOD | SPILL | {"spill": row | {"emulated": [arch]}}) == 0
    assert run(gate, tmp_path, monkeypatch, GOOD | SPILL | {"spill": row | {"emulated": ["sm_1"]}}) == 1
    assert "255 registers, allowed are 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kernels, size, complaint",
    [
        (GOOD | SPILL | {"spill": {"registers": 255, "hot": True}}, 100, "16 bytes of stack in a hot kernel"),
        (GOOD | SPILL | {"spill": {"registers": 255, "hot": True}}, 100, "1 LDL in a hot kernel"),
        (GOOD | SPILL | {"spill": {"registers": 254, "hot": False}}, 100, "255 registers, allowed are 254"),
        (
            GOOD | SPILL | {"share": {"registers": 176, "hot": True}},
            100,
            "168 registers to be shared out, wanted are 176",
        ),
        ({"good<4>": {"registers": 40, "hot": True, "needs": ["HGMMA"]}} | SPILL, 100, "no HGMMA in its machine code"),
        (GOOD, 100, "spill: the table has no row for it"),
        (GOOD | SPILL | {"gone": {"registers": 1, "hot": True}}, 100, "gone: in the table, but not in the library"),
        (GOOD | SPILL, 9, "10 bytes, allowed are 9"),
    ],
)
def test_each_fault_fails(gate, tmp_path, monkeypatch, capsys, kernels, size, complaint):
    assert run(gate, tmp_path, monkeypatch, kernels, size) == 1
    assert complaint in capsys.readouterr().out
