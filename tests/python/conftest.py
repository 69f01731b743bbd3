"""Leaves out the tests of the PyTorch reference where torch is not installed."""

import importlib.util

HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if HAS_TORCH else ["test_reference*.py"]


def pytest_report_header():
    return None if HAS_TORCH else "torch is not installed: test_reference*.py are left out"
