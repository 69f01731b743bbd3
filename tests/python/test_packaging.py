"""What the installed package holds, links, exports and imports."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wamcore
from conftest import run

PACKAGE = Path(wamcore._core.__file__).parent
LIBRARIES = sorted([*PACKAGE.glob("*.so"), *(PACKAGE / "lib").glob("*.so")])


def test_the_tests_see_an_installed_package(root: Path):
    assert root not in Path(wamcore.__file__).parents or ".venv" in wamcore.__file__


def test_version_has_one_source(root: Path):
    header = (root / "csrc/include/wamcore/version.h").read_text()
    version = re.search(r'#define WAMCORE_VERSION "(.*)"', header)[1]
    assert importlib.metadata.version("wamcore") == version
    assert wamcore.__version__ == wamcore._core.__version__ == version
    assert f'set(PACKAGE_VERSION "{version}")' in (PACKAGE / "lib/cmake/wamcore/wamcoreConfigVersion.cmake").read_text()
    assert run([sys.executable, "-m", "wamcore", "--version"]) == f"wamcore {version}\n"


def test_wheel_contents(root: Path):
    names = {f.as_posix() for f in importlib.metadata.files("wamcore") if "__pycache__" not in f.parts}
    # whatever the checkout has below python/ and in the public headers is installed, byte code and built files aside
    python = {p.relative_to(root / "python") for p in (root / "python" / "wamcore").rglob("*") if p.is_file()}
    python |= {
        Path("wamcore") / p.relative_to(root) for p in (root / "bench").iterdir() if p.suffix in (".py", ".json")
    }
    wanted = {p.as_posix() for p in python if "__pycache__" not in p.parts and p.suffix != ".so"}
    wanted |= {f"wamcore/include/wamcore/{p.name}" for p in (root / "csrc/include/wamcore").glob("*.h")}
    wanted |= {"wamcore/lib/libwamcore.so", "wamcore/lib/pkgconfig/wamcore.pc"}
    wanted |= {f"wamcore/lib/cmake/wamcore/wamcore{x}.cmake" for x in ("Config", "ConfigVersion", "Targets")}
    assert wanted <= names, f"missing from the wheel: {sorted(wanted - names)}"
    extra = {n for n in names - wanted if not re.match(r"wamcore-[\w.]+\.dist-info/|\.\./", n)}
    extra = {n for n in extra if not re.fullmatch(r"wamcore/_(core|kernels)\.\S+\.so", n)}
    assert extra == {"wamcore/lib/cmake/wamcore/wamcoreTargets-release.cmake"}, "unexpected files in the wheel"


@pytest.mark.parametrize("wanted", ["", "0", "1"])
def test_only_a_build_with_cuda_asks_for_its_compiler(root: Path, wanted):
    """`WAMCORE_CUDA=1 pip install .`, as the build backend reads it, and the packages of `make cuda`."""
    reader = pytest.importorskip("scikit_build_core.settings.skbuild_read_settings").SettingsReader
    environment = {"WAMCORE_CUDA": wanted} if wanted else {}
    settings = reader.from_file(root / "pyproject.toml", {}, state="wheel", env=environment).settings
    packages = [requirement.split("==")[0] for requirement in settings.build.requires]
    if wanted == "1":
        assert settings.cmake.define["WAMCORE_CUDA"] == "ON"
        assert {"nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime"} <= set(packages)
        assert all(re.fullmatch(r"[\w-]+==13\.0\.\d+", requirement) for requirement in settings.build.requires)
    else:
        assert settings.cmake.define["WAMCORE_CUDA"] == "OFF" and not packages


def test_a_misspelt_wish_for_cuda_stops_the_build(root: Path, tmp_path):
    done = subprocess.run(["cmake", "-S", root, "-B", tmp_path, "-DWAMCORE_CUDA=MAYBE"], capture_output=True, text=True)
    assert done.returncode and "WAMCORE_CUDA must be AUTO, ON or OFF, got 'MAYBE'" in done.stderr


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name.split(".")[0])
def test_links_nothing_but_the_system_and_ourselves(library: Path):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run(["readelf", "-d", library]))
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0", "libdl.so.2"}
    allowed = system | {"libwamcore.so", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert set(needed) <= allowed, f"{library.name} needs {sorted(set(needed) - allowed)}"


def test_the_library_exports_only_its_own_names():
    symbols = run(["nm", "-D", "-C", "--defined-only", PACKAGE / "lib" / "libwamcore.so"]).splitlines()
    # "address kind name"; weak instantiations of the standard library's templates are every C++ library's
    strong = [line.split(" ", 2) for line in symbols]
    foreign = [name for _, kind, name in strong if kind not in "VWuvw" and not re.search(r"\bwam::", name)]
    assert strong and not foreign, "exported, but not ours:\n" + "\n".join(foreign)


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*.so")), ids=lambda p: p.name.split(".")[0])
def test_modules_export_only_their_entry(module: Path):
    symbols = run(["nm", "-D", "--defined-only", module]).splitlines()
    strong = {line.split(" ", 2)[2] for line in symbols if line.split(" ", 2)[1] not in "VWuvw"}
    assert strong == {f"PyInit_{module.name.split('.')[0]}"}


def test_import_needs_neither_torch_nor_a_simulator():
    code = """
import sys
banned = {"torch", "mujoco", "PIL", "matplotlib", "imageio"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in banned:
            raise ImportError("refused: " + name)
sys.meta_path.insert(0, Refuse())
import wamcore
assert not banned & set(sys.modules)
"""
    run([sys.executable, "-c", code])


def test_sources_alone_say_what_is_missing(root: Path, tmp_path: Path):
    (tmp_path / "wamcore").mkdir()
    (tmp_path / "wamcore" / "__init__.py").write_text((root / "python/wamcore/__init__.py").read_text())
    done = subprocess.run(
        [sys.executable, "-c", "import wamcore"], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert done.returncode != 0 and "pip install ." in done.stderr
