"""Each C++ test is one case here, so that one report counts everything."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest


def cpp_tests() -> list[dict]:
    named = os.environ.get("WAMCORE_BUILD_DIR")
    if not named:
        return []
    listed = subprocess.run(["ctest", "--test-dir", named, "--show-only=json-v1"], capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return json.loads(listed.stdout)["tests"]


CASES = {test["name"]: {p["name"]: p["value"] for p in test["properties"]} for test in cpp_tests()}


@pytest.mark.parametrize("name", CASES)
def test_cpp(name: str, build_dir: Path):
    done = subprocess.run(
        ["ctest", "--test-dir", build_dir, "--output-on-failure", "--no-tests=error", "-R", f"^{name}$"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "***Skipped" in done.stdout:
        pytest.skip("the program skipped itself: this CPU lacks what it needs")


def test_every_test_source_is_registered(build_dir: Path, root: Path):
    sources = {path.stem.removeprefix("test_") for path in (root / "tests" / "cpp").glob("test_*.cpp")}
    assert sources <= set(CASES), f"sources that CMake does not know: {sorted(sources - set(CASES))}"


def test_sources_that_start_threads_say_so(build_dir: Path, root: Path):
    for path in (root / "tests" / "cpp").glob("test_*.cpp"):
        if re.search(r"std::j?thread|std::async|\bThreadPool\b", path.read_text()):
            labels = CASES[path.stem.removeprefix("test_")].get("LABELS", [])
            assert "threads" in labels, f"{path.name}: register it as THREADED, so that the thread sanitizer sees it"
