"""What the README shows is in examples/, to the letter, and runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wamcore
from conftest import run

PACKAGE = Path(wamcore._core.__file__).parent
MODEL = Path(wamcore.__file__).parent / "models" / "tabletop"


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def shown(root, name: str) -> str:
    """The code block of the README that is the file, or the part of it that matters."""
    language = {"py": "python"}.get(name.rpartition(".")[2], "cpp")
    text, blocks = (root / "examples" / name).read_text(), code_blocks((root / "README.md").read_text(), language)
    return next(b for b in blocks if b == text or (name == "driver.py" and f"\n\n{b}\n\n" in text))


@pytest.mark.parametrize(
    ("name", "most"), [("quickstart.py", 15), ("quickstart.cpp", 20), ("driver.py", 15), ("driver.h", 25)]
)
def test_the_readme_shows_the_file_and_it_is_short(root, name, most):
    """Every line counts but blank ones, comments and the docstring."""
    lines = shown(root, name).splitlines()
    code = [line for line in lines if line.strip() and not re.match(r'\s*(//|#(?!include)|""")', line)]
    assert 10 < len(code) <= most


def environment() -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}


def test_python_runs(root):
    if importlib.util.find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    out = run([sys.executable, root / "examples" / "quickstart.py"], env=environment())
    assert "16 targets 50 ms apart" in out
    assert re.search(r"touch the \w+ block: (None|True|False); [1-9]\d* chunks", out)


def test_the_driver_in_python_drives(root):
    out = run([sys.executable, root / "examples" / "driver.py"], env=environment())
    chunks, elbow = re.fullmatch(r"(\d+) chunks; the elbow stands at ([\d.]+) rad\n", out).groups()
    assert int(chunks) >= 2 and float(elbow) > 0.1


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
