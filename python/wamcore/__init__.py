"""wamcore: an embedded inference runtime for World Action Models.

model = wamcore.load("tabletop")
session = wamcore.Session(model, steps=4)
session.set_prompt("touch the red block")
chunk = session.infer(wamcore.observe(robot))
"""

try:
    from ._core import (
        PHASES,
        REASONS,
        ActionChunk,
        CameraInfo,
        ChannelPolicy,
        Clock,
        Command,
        ConfigError,
        Description,
        DeviceError,
        Embodiment,
        Error,
        Hal,
        HalConfig,
        InputError,
        JointInfo,
        JointLimits,
        ManualClock,
        MockHal,
        Mode,
        Model,
        Observation,
        Policy,
        RobotError,
        Runner,
        SafetyFilter,
        Session,
        ShapeError,
        State,
        Status,
        StopKind,
        SystemClock,
        VirtualRunner,
        WeightError,
        Workspace,
        __version__,
        observe,
    )
except ModuleNotFoundError as e:
    if e.name != f"{__name__}._core":
        raise
    raise ImportError(
        "wamcore: the compiled module is missing beside these sources: install the package with `pip install .`, "
        "or build it with CMake and link _core*.so into this folder"
    ) from e

from . import hal
from .loading import bundled, load
from .record import FlightRecord, read_record
from .robot import RobotProfile, read_robot

__all__ = [
    "PHASES",
    "REASONS",
    "ActionChunk",
    "CameraInfo",
    "ChannelPolicy",
    "Clock",
    "Command",
    "ConfigError",
    "Description",
    "DeviceError",
    "Embodiment",
    "Error",
    "FlightRecord",
    "Hal",
    "HalConfig",
    "InputError",
    "JointInfo",
    "JointLimits",
    "ManualClock",
    "MockHal",
    "Mode",
    "Model",
    "Observation",
    "Policy",
    "RobotError",
    "RobotProfile",
    "Runner",
    "SafetyFilter",
    "Session",
    "ShapeError",
    "State",
    "Status",
    "StopKind",
    "SystemClock",
    "VirtualRunner",
    "WeightError",
    "Workspace",
    "__version__",
    "bundled",
    "hal",
    "load",
    "observe",
    "read_record",
    "read_robot",
]


def __getattr__(name: str):
    """wamcore.kernels is loaded when it is first asked for: nothing that drives a robot needs it."""
    if name == "kernels":
        import importlib

        return importlib.import_module(".kernels", __name__)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
