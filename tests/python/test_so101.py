"""The example that drives LeRobot's SO-101 over simulated servos, where LeRobot is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/so101/drive.py"


@pytest.mark.skipif(
    importlib.util.find_spec("lerobot") is None, reason="wants LeRobot: examples/so101/requirements.txt"
)
def test_the_arm_is_driven_and_broken_policies_do_not_move_it():
    done = subprocess.run([sys.executable, EXAMPLE, "--seconds", "3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as it should be" in done.stdout
