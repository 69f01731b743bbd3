"""wamcore: an embedded inference runtime for World Action Models."""

try:
    from ._core import ConfigError, DeviceError, Error, InputError, RobotError, ShapeError, WeightError, __version__
except ModuleNotFoundError as e:
    if e.name != f"{__name__}._core":
        raise
    raise ImportError(
        "wamcore: the compiled module is missing beside these sources: install the package with `pip install .`, "
        "or build it with CMake and link _core*.so into this folder"
    ) from e

__all__ = [
    "ConfigError",
    "DeviceError",
    "Error",
    "InputError",
    "RobotError",
    "ShapeError",
    "WeightError",
    "__version__",
]
