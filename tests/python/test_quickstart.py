"""The two quickstarts of the README are the files in examples/, to the letter, and they run."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wamcore
from conftest import run
from robots import SinePolicy

PACKAGE = Path(wamcore._core.__file__).parent
MODEL = Path(wamcore.__file__).parent / "models" / "tabletop"


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


@pytest.mark.parametrize(
    ("name", "language"),
    [("quickstart.py", "python"), ("quickstart.cpp", "cpp"), ("driver.py", "python"), ("driver.h", "cpp")],
)
def test_the_readme_shows_the_file(root, name, language):
    assert (root / "examples" / name).read_text() in code_blocks((root / "README.md").read_text(), language)


@pytest.mark.parametrize(
    ("name", "most"), [("quickstart.py", 15), ("quickstart.cpp", 20), ("driver.py", 15), ("driver.h", 25)]
)
def test_it_is_short(root, name, most):
    """Every line counts but blank ones, comments and the docstring."""
    lines = (root / "examples" / name).read_text().splitlines()
    code = [line for line in lines if line.strip() and not re.match(r'\s*(//|#(?!include)|""")', line)]
    assert len(code) <= most


def environment() -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}


def test_python_runs(root):
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    out = run([sys.executable, root / "examples" / "quickstart.py"], env=environment())
    assert "16 targets 50 ms apart" in out
    assert re.search(r"touch the \w+ block: (None|True|False); [1-9]\d* chunks", out)


class Bus:
    """A vendor's library with two joints that are where they are told to be."""

    def __init__(self, port):
        self.log, self.q = [port], [0.1, -0.1]

    def angles(self):
        return self.q

    def speeds(self):
        return [0.0, 0.0]

    def enable(self, q):
        self.log.append("enable")

    def move(self, q, until):
        self.q = list(q)

    def halt(self):
        self.log.append("halt")

    def close(self):
        self.log.append("close")


def test_the_driver_in_python_drives(root):
    names = {"wam": wamcore, "Bus": Bus}
    exec((root / "examples" / "driver.py").read_text(), names)
    arm = names["Arm"]()
    limits = wamcore.JointLimits(["shoulder", "elbow"], [-1, -1], [1, 1], [2, 2], [20, 20])
    with wamcore.VirtualRunner(SinePolicy(), arm, limits, parameters={"port": "usb"}) as runner:
        runner.run(2.0)
        assert runner.stats["chunks"] > 0
    assert arm.bus.log == ["usb", "enable", "halt", "halt", "close"] and arm.bus.q[1] > 0.2


def test_custom_hal_runs(root):
    out = run([sys.executable, root / "examples" / "custom_hal.py"], env=environment())
    assert re.match(r"[1-9]\d* chunks", out)


def test_cpp_runs(tmp_path, root):
    if not (PACKAGE / "lib" / "libwamcore.so").exists():
        pytest.skip("wamcore is not installed as a package, so there is no library to link with")
    program = tmp_path / "quickstart"
    source, link = root / "examples" / "quickstart.cpp", [f"-L{PACKAGE / 'lib'}", "-lwamcore", "-pthread"]
    where = [f"-I{PACKAGE / 'include'}", f"-Wl,-rpath,{PACKAGE / 'lib'}"]
    run(["c++", "-std=c++20", source, "-o", program, *where, *link])
    done = re.fullmatch(
        r"(\d+) chunks, (\d+) refused\nthe wrist went from (-?[\d.]+) to (-?[\d.]+) rad\n", run([program, MODEL])
    )
    chunks, refused, before, after = map(float, done.groups())
    assert chunks >= 2 and refused == 0
    assert before == -1.2 and abs(after - before) > 0.05  # rad: the arm has really moved
    nothing = subprocess.run([program, tmp_path], capture_output=True, text=True)
    assert nothing.returncode == 1 and nothing.stdout.startswith("stopped: ")
