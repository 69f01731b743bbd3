"""Fixtures that every Python test may use. The tests of the PyTorch reference are left out where torch is missing."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if HAS_TORCH else ["test_reference*.py"]


def pytest_report_header():
    return None if HAS_TORCH else "torch is not installed: test_reference*.py are left out"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout that the tests belong to."""
    return ROOT


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """The CMake build folder with the C++ tests; `make test` names it in WAMCORE_BUILD_DIR."""
    named = os.environ.get("WAMCORE_BUILD_DIR")
    if not named:
        pytest.skip("WAMCORE_BUILD_DIR is not set: `make test` builds the C++ tests and sets it")
    assert (Path(named) / "CTestTestfile.cmake").is_file(), f"WAMCORE_BUILD_DIR={named} is no build with tests"
    return Path(named)


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """Every file of the checkout that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def run(command: list, **kwargs) -> str:
    """Runs a command that must succeed; returns what it printed on standard output."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout
