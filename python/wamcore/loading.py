"""Finds checkpoints and loads them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ._core import ConfigError, Model

MODELS = Path(__file__).parent / "models"


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.name for p in MODELS.iterdir() if (p / "config.json").is_file()) if MODELS.is_dir() else []


def find(model: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        model: name of a bundled model, or the path of a folder with config.json.

    Raises:
        ConfigError: there is no such folder; the message names the nearest bundled model.
    """
    names, path = bundled(), Path(model)
    if isinstance(model, str) and model in names:
        return MODELS / model
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"load: wanted a folder with config.json, got '{model}', which has none")
    if path.exists():
        raise ConfigError(f"load: wanted a folder with config.json, got the file '{model}'")
    near = difflib.get_close_matches(str(model), names, 1, 0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"bundled models: {', '.join(names) or 'none'}"
    raise ConfigError(f"load: '{model}' is neither a folder nor a bundled model; {hint}")


def load(
    model: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    check_finite: bool = False,
    dtype: str = "auto",
    cores: Sequence[int] = (),
) -> Model:
    """Loads a checkpoint: config.json, embodiment.json and safetensors.

    Args:
        model: name of a bundled model ("tabletop"), or the path of a checkpoint folder.
        device: "auto", "cpu", "cpu-ops" (the plain loop over operations that "cpu" is compared with), "cuda" or
            "cuda:N".
        threads: how many to compute with, 1 to 1024; None: one for each CPU that the process may use.
        check_finite: refuse NaN and infinity in every tensor before anything else is done; without it a weight that is
            not finite is an error when the model comes to it.
        dtype: what the transformer's large products are computed in. "auto": float32 on a CPU, bfloat16 on a GPU;
            or "float32", "bfloat16", "fp8", "int8". Model.dtype says what runs.
        cores: of a CPU, that the threads stay on, one a thread (`threads` may be left out then); none: wherever the
            system puts them. The thread that infers is the first of them for as long as an inference takes. Leave out
            the core of the servo.

    Raises:
        ConfigError: there is no such model, or its configuration is not usable.
        WeightError: a weight file is malformed, does not fit the configuration or holds NaN or infinity.
        ConfigError: `cores` has one that this process may not use, one twice, or not one for each of `threads`.
        DeviceError: the device is missing, or does not have this dtype.
    """
    folder = str(find(model))
    return Model.load(folder, device=device, threads=threads, check_finite=check_finite, dtype=dtype, cores=list(cores))
