"""Drivers that are compiled on the user's machine, against a simulator that is installed there."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .. import _core
from .._core import ConfigError, RobotError

DRIVERS = ("mujoco",)
HERE = Path(__file__).resolve().parent


def build_driver(name: str = "mujoco", *, folder: Path | None = None, rebuild: bool = False) -> Path:
    """Compiles a driver, or finds it where it was compiled before, and returns the shared library for `load`.

    Args:
        name: "mujoco", the physics of an MJCF file by the installed mujoco package's own library; no cameras.
        folder: where it is kept; None for wamcore/drivers in the user's cache folder.
        rebuild: compile even if it is there.

    Raises:
        ConfigError: no such driver, or the simulator or a C++ compiler is missing.
        RobotError: the compiler refuses; the message has its words.
    """
    if name not in DRIVERS:
        raise ConfigError(f"build_driver: wanted one of {', '.join(DRIVERS)}, got '{name}'")
    package = mujoco_package()
    library, compiler = mujoco_library(package), find_compiler()
    source = HERE / "mujoco_driver.cpp"
    command = [
        *compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{include_dir()}",
        f"-I{package / 'include'}", str(source), str(library), f"-Wl,-rpath,{library.parent}",
    ]  # fmt: skip
    made_of = "\0".join(
        [*command, _core.__version__, source.read_text(), (include_dir() / "wamcore/hal_abi.h").read_text()]
    )
    folder = folder or cache_folder()
    target = folder / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if target.is_file() and not rebuild:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / "driver.so"
            done = subprocess.run([*command, "-o", str(draft)], capture_output=True, text=True)
            if done.returncode:
                raise RobotError(f"build_driver: {compiler[0]} refuses {source.name}:\n{done.stderr.strip()}")
            os.replace(draft, target)  # what bears the name is whole
    except OSError as e:
        raise ConfigError(f"build_driver: {folder}: {e.strerror}") from e
    return target


def mujoco_package() -> Path:
    """The folder of the installed mujoco package, which is not imported for it."""
    found = importlib.util.find_spec("mujoco")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("build_driver: mujoco is not installed: pip install 'wamcore[sim]'")
    return Path(next(iter(found.submodule_search_locations)))


def mujoco_library(package: Path) -> Path:
    """Its shared library, beside which the headers must lie."""
    libraries = sorted(package.glob("libmujoco.so*"))
    if not libraries or not (package / "include" / "mujoco" / "mujoco.h").is_file():
        raise ConfigError(f"build_driver: {package} holds no libmujoco.so with its headers")
    return libraries[0]


def include_dir() -> Path:
    """wamcore's own headers: the installed ones, or those of the checkout that this module was built from."""
    beside = Path(_core.__file__).resolve().parent / "include"
    for folder in (Path(_core.__file__).parent / "include", beside, HERE.parents[2] / "csrc" / "include"):
        if (folder / "wamcore" / "hal_abi.h").is_file():
            return folder
    raise ConfigError("build_driver: wamcore/hal_abi.h is missing: install the package with `pip install .`")


def find_compiler() -> list[str]:
    """CXX, or the first C++ compiler there is."""
    named = os.environ.get("CXX", "").split()
    for words in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(words[0]):
            return words
    raise ConfigError(f"build_driver: found no C++ compiler ({named[0] if named else 'c++, g++, clang++'}); set CXX")


def cache_folder() -> Path:
    """Where compiled drivers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wamcore" / "drivers"
