"""Robot drivers that come with the package. `MuJoCo` is imported on first use: it needs the extra `wamcore[sim]`."""

from .._core import FaultInjector, MockHal, ReplayHal
from .._core import load_hal as load
from .build import build_driver
from .lerobot import LeRobot
from .replay import replay

__all__ = ["FaultInjector", "LeRobot", "MockHal", "MuJoCo", "ReplayHal", "build_driver", "load", "replay"]


def __getattr__(name: str):
    if name == "MuJoCo":
        from .mujoco import MuJoCo

        return MuJoCo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
