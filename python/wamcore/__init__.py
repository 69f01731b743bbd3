"""wamcore: an embedded inference runtime for World Action Models."""

try:
    from ._core import (
        PHASES,
        REASONS,
        ActionChunk,
        CameraInfo,
        Clock,
        Command,
        ConfigError,
        Description,
        DeviceError,
        Error,
        Hal,
        HalConfig,
        InputError,
        JointInfo,
        JointLimits,
        ManualClock,
        MockHal,
        Mode,
        Observation,
        Policy,
        RobotError,
        Runner,
        SafetyFilter,
        ShapeError,
        State,
        Status,
        StopKind,
        SystemClock,
        VirtualRunner,
        WeightError,
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

__all__ = [
    "PHASES",
    "REASONS",
    "ActionChunk",
    "CameraInfo",
    "Clock",
    "Command",
    "ConfigError",
    "Description",
    "DeviceError",
    "Error",
    "Hal",
    "HalConfig",
    "InputError",
    "JointInfo",
    "JointLimits",
    "ManualClock",
    "MockHal",
    "Mode",
    "Observation",
    "Policy",
    "RobotError",
    "Runner",
    "SafetyFilter",
    "ShapeError",
    "State",
    "Status",
    "StopKind",
    "SystemClock",
    "VirtualRunner",
    "WeightError",
    "__version__",
    "observe",
]
