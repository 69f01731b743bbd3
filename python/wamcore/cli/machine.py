"""What this machine and this installation are, for reports."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from .. import __version__
from .._core import cpu_isa

PACKAGES = ("numpy", "mujoco", "pillow", "imageio-ffmpeg", "matplotlib", "torch", "safetensors")


def cpu_model() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Features that the kernel reports; empty where it reports none."""
    return set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), None)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str | None]:
    """Versions of the optional packages, None where one is missing."""
    out: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = None
    return out


def commit() -> str | None:
    """The commit of the checkout this runs from; None for an installed package."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"]
    try:
        tracked = subprocess.run(["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True)
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if tracked.returncode == 0 and done.returncode == 0 else None


def describe() -> dict:
    """All of it, for JSON."""
    return {
        "wamcore": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": cores(),
        "kernels": cpu_isa(),
        "int8_kernels": cpu_isa("int8"),
        "bf16_kernels": cpu_isa("bfloat16"),
        "load_average": os.getloadavg()[0],  # over the last minute: more than the cores means that others compute too
        "packages": versions(),
    }


def sha256(folder: Path) -> str:
    """Hash over names and contents of a checkpoint's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
