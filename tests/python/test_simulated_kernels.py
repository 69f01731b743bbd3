"""wamcore.kernels on arrays that claim to lie on a GPU, by a plugin whose GPU is the simulated machine: arguments reach
the kernels' own source by the way that a real plugin takes.
"""

import os
import shutil
import sys
from pathlib import Path

from conftest import run


def test_every_kernel_through_the_plugins_table(build_dir: Path, tmp_path: Path):
    plugin, driver = build_dir / "tests/simt/libsim_plugin.so", build_dir / "tests/cpp/libfake_driver.so"
    shutil.copy(driver, tmp_path / "libcuda.so.1")
    environment = {
        "WAMCORE_CUDA_PLUGIN": str(plugin),
        "WAMCORE_FAKE_DRIVER": "0 13000 1 90",
        "LD_LIBRARY_PATH": str(tmp_path),
    }
    here = Path(__file__).parent
    text = run([sys.executable, here / "simulated_calls.py"], env={**os.environ, **environment})
    assert text.split() == [word for check in ("attention", "products", "rows", "sampler") for word in (check, "ok")]
