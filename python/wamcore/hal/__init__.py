"""Robot drivers that come with the package. What needs a simulator (`wamcore[sim]`) is imported on first use."""

from .._core import FaultInjector, MockHal, ReplayHal
from .._core import load_hal as load
from .lerobot import LeRobot
from .replay import replay

__all__ = ["FaultInjector", "LeRobot", "MockHal", "MuJoCo", "ReplayHal", "build_driver", "load", "replay"]


def __getattr__(name: str):
    if name == "MuJoCo":
        from .mujoco import MuJoCo

        return MuJoCo
    if name == "build_driver":
        from .build import build_driver

        return build_driver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
