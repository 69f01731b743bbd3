"""Generated files are what their generator writes."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wgmma_header():
    spec = importlib.util.spec_from_file_location("generate_wgmma", ROOT / "scripts/generate_wgmma.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert (ROOT / "kernels/cuda/wgmma_sm90.cuh").read_text() == generator.text()
