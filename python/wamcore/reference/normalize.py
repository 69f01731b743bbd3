"""Scaling of states and actions between robot units and the range the model works in."""

import torch

MODES = ("q99", "min_max", "mean_std", "binary", "scale")
RANGES = {"q99": ("q01", "q99"), "min_max": ("min", "max")}


def statistic(stats, name, x):
    """One statistic in the dtype of x: [dim], or [horizon, dim] cut to the rows of x."""
    value = torch.as_tensor(stats[name]).to(x)
    return value[: x.shape[-2]] if value.ndim == 2 else value


def normalize(x, stats, mode):
    """Robot units to model range.

    Args:
        x: float [..., dim], or [..., horizon, dim] for statistics per row of the horizon.
        stats: dict of min, max, mean, std, q01, q99, those that the mode needs; each [dim] or [horizon, dim].
        mode: one of MODES.

    Raises:
        ValueError: unknown mode.
    """
    if mode in RANGES:
        low, high = (statistic(stats, name, x) for name in RANGES[mode])
        flat = low == high
        scaled = 2 * (x - low) / torch.where(flat, 1, high - low) - 1
        where_flat = x if mode == "q99" else torch.zeros_like(x)
        return torch.where(flat, where_flat, scaled).clamp(-1, 1)
    if mode == "mean_std":
        mean, std = statistic(stats, "mean", x), statistic(stats, "std", x)
        return torch.where(std == 0, x, (x - mean) / torch.where(std == 0, 1, std))
    if mode == "binary":
        return (x > 0.5).to(x)
    if mode == "scale":
        largest = torch.maximum(statistic(stats, "min", x).abs(), statistic(stats, "max", x).abs())
        return torch.where(largest == 0, 0, x / torch.where(largest == 0, 1, largest))
    raise ValueError(f"normalize: wanted a mode of {MODES}, got {mode!r}")


def denormalize(x, stats, mode):
    """Model range to robot units; the model's output is not clipped.

    Args: as normalize.

    Raises:
        ValueError: unknown mode, or "scale", which has no inverse.
    """
    if mode in RANGES:
        low, high = (statistic(stats, name, x) for name in RANGES[mode])
        return (x + 1) / 2 * (high - low) + low
    if mode == "mean_std":
        return x * statistic(stats, "std", x) + statistic(stats, "mean", x)
    if mode == "binary":
        return (x > 0.5).to(x)
    raise ValueError(f"denormalize: wanted a mode of {MODES[:-1]}, got {mode!r}")
