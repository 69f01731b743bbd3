"""A C++ project of somebody else finds, links and runs wamcore: by CMake and by pkg-config, from wheel and prefix."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

CONSUMER = ROOT / "tests" / "consumer"
EXPECTED = f"wamcore {__import__('wamcore').__version__}: [2, 7]\n"


def folder(flag: str) -> str:
    return run([sys.executable, "-m", "wamcore", flag]).strip()


def configure(out: Path, *settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["cmake", "-S", CONSUMER, "-B", out, "-G", "Ninja", *settings], capture_output=True, text=True
    )


def build_and_run(out: Path, *settings: str) -> str:
    configured = configure(out, *settings)
    assert configured.returncode == 0, configured.stdout + configured.stderr
    run(["cmake", "--build", out])
    return run([out / "robot"])


@pytest.fixture(scope="module")
def prefix(build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cmake --install` makes, moved afterwards: an installation must not know where it was made."""
    made = tmp_path_factory.mktemp("made") / "here"
    run(["cmake", "--install", build_dir, "--prefix", made])
    return Path(shutil.move(made, tmp_path_factory.mktemp("moved") / "there"))


def test_cmake_finds_the_installed_wheel(tmp_path: Path):
    assert build_and_run(tmp_path, f"-DPython_EXECUTABLE={sys.executable}") == EXPECTED


def test_cmake_finds_an_install_prefix(tmp_path: Path, prefix: Path):
    assert build_and_run(tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}") == EXPECTED


@pytest.mark.parametrize("place", ["wheel", "prefix"])
def test_pkg_config(place: str, tmp_path: Path, request: pytest.FixtureRequest):
    if place == "wheel":
        path = folder("--pkgconfig-dir")
    else:
        path = request.getfixturevalue("prefix") / "lib" / "pkgconfig"
    env = os.environ | {"PKG_CONFIG_PATH": str(path)}
    run(["make", "-C", CONSUMER, f"OUT={tmp_path}"], env=env)
    assert run([tmp_path / "robot"]) == EXPECTED
    assert run(["pkg-config", "--modversion", "wamcore"], env=env).strip() == __import__("wamcore").__version__


def test_other_version_is_refused(tmp_path: Path):
    configured = configure(tmp_path, f"-DPython_EXECUTABLE={sys.executable}", "-DWANTED_VERSION=0.99")
    assert configured.returncode != 0
    assert "requested version" in configured.stderr


def test_missing_backend_is_refused_when_configuring(tmp_path: Path):
    configured = configure(tmp_path, f"-DPython_EXECUTABLE={sys.executable}", "-DWANTED_COMPONENTS=no_such_backend")
    assert configured.returncode != 0
    assert "has no backend 'no_such_backend'" in configured.stderr
