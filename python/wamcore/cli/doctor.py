"""`wamcore doctor`: what this machine and this installation can do, and one sentence for each problem."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time

import numpy as np

from .._core import Error, Observation, Session, cuda_status
from ..loading import bundled, load
from . import machine
from .tables import table

WHAT_FOR = {
    "numpy": "everything",
    "mujoco": "wamcore run",
    "pillow": "wamcore run",
    "imageio-ffmpeg": "wamcore run: MP4 instead of GIF",
    "matplotlib": "wamcore run: joints.png",
    "torch": "wamcore convert, the reference in wamcore bench",
    "safetensors": "the reference in wamcore bench",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    del args
    problems: list[str] = []
    facts, versions = machine.describe(), machine.versions()
    print(f"wamcore {facts['wamcore']}" + (f" at {facts['commit']}" if facts["commit"] else ""))
    print(f"Python {facts['python']} on {facts['system']}\n")
    processor(facts)
    for dtype in ("float32", "bfloat16", "int8"):
        backend("cpu", problems, dtype)
    backend("cpu-ops", problems)
    usable, sentence = cuda_status()
    print(f"  cuda     {sentence}" + ("" if usable else "\n"))
    if usable:
        backend("cuda", problems)
    rows = [(name, versions[name] or "missing", WHAT_FOR[name]) for name in machine.PACKAGES]
    print(table(rows, ("package", "version", "needed for"), (0, 2)), "\n")
    renderer(problems)
    servo()
    print(f"\n{len(problems)} problem" + ("" if len(problems) == 1 else "s") + (":" if problems else ""))
    for problem in problems:
        print(f"  - {problem}")
    return 1 if problems else 0


def processor(facts: dict) -> None:
    print(f"  cpu      {facts['cpu']}, {facts['cores']} cores")
    interesting = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "sve")
    features = sorted(machine.cpu_flags() & set(interesting))
    print(f"           features {' '.join(features) or 'unknown'}; kernels are the {facts['kernels']} build\n")


def backend(device: str, problems: list[str], dtype: str = "auto") -> None:
    """Runs a chunk of the bundled model, so that what is reported has really happened. Of a dtype that nothing chooses
    unasked, only the operations in it are listed."""
    if not bundled():
        problems.append("no bundled model is installed, so no backend was tried: the installation is incomplete.")
        return
    try:
        model = load(bundled()[0], device=device, dtype=dtype)
        session = Session(model)
        session.set_prompt("touch the red block")
        began = time.perf_counter()
        session.infer(blank(model))
        ms = (time.perf_counter() - began) * 1e3
    except Error as e:
        problems.append(f"backend {device} does not work in dtype {dtype}: {e}")
        return
    stages = session.trace["stages"]
    share = ", ".join(f"{k} {v * 1e-6:.1f}" for k, v in stages.items() if v)
    kind = {
        "cpu": "fused layers",
        "cpu-ops": "the plain loop over operations",
        "cuda": "recorded lists of kernels, codecs on the CPU",
    }[device]
    what = f"{kind}, {model.dtype}, {model.threads} threads"
    print(f"  {model.device:<8} {what}: ran a chunk of {bundled()[0]} in {ms:.0f} ms")
    print(f"           ms by stage: {share}")
    head = ("operation", "kernel", "precision", "runs")
    only = dtype if dtype in ("bfloat16", "int8") else ""
    rows = [tuple(o[name] for name in head) for o in session.operations if o["precision"].startswith(only)]
    print(table(rows, head, (0, 1, 2), indent=" " * 11), "\n")


def blank(model) -> Observation:
    """Grey pictures and joints in the middle of their range."""
    robot = model.embodiment
    middle = [(a + b) / 2 for a, b in zip(robot.limits.position_min, robot.limits.position_max, strict=True)]
    state = middle if len(middle) == robot.state_dim else np.zeros(robot.state_dim)
    return Observation({n: np.full((h, w, 3), 128, np.uint8) for n, h, w in robot.cameras}, state)


PROBE = """
import time
from wamcore import sim
import os, mujoco
world = sim.Tabletop()
world.frame()
began = time.perf_counter()
for _ in range(20): frame = world.frame()
from mujoco.gl_context import GLContext
print(os.environ.get("MUJOCO_GL", "default"), mujoco.__version__, (time.perf_counter() - began) / 20 * 1e3, frame.std())
world.close()
"""


def renderer(problems: list[str]) -> None:
    """In its own process: a broken OpenGL may take the process with it."""
    if importlib.util.find_spec("mujoco") is None:
        problems.append("mujoco is missing, so `wamcore run` cannot run: pip install 'wamcore[sim]'")
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, env=environment
        )
    except subprocess.TimeoutExpired:
        problems.append("rendering off screen hangs: set MUJOCO_GL=osmesa or MUJOCO_GL=egl to choose another library.")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        problems.append(
            f"rendering off screen does not work ({last}): install libosmesa6, or libegl1 and libgl1-mesa-dri, "
            "or set MUJOCO_GL=osmesa."
        )
        return
    gl, version, ms, contrast = done.stdout.split()
    print(f"  render   {gl} through MuJoCo {version}: {float(ms):.1f} ms for a frame of 96 x 64 pixels")
    if float(contrast) < 1:
        problems.append(f"rendering off screen ({gl}) gives empty pictures: set MUJOCO_GL to osmesa or egl.")


def servo() -> None:
    """Whether the servo thread of a real robot could get real-time priority: asks for it, and gives it back."""
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, *before)
        print("  realtime SCHED_FIFO is granted")
    except (AttributeError, OSError) as e:
        print(f"  realtime SCHED_FIFO is refused ({e}); simulated robots need none")
