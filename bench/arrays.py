"""Random arrays in the memory of the device that is measured, and torch where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
from wamcore import DeviceError, _core

SETS = 3  # of inputs, in rotation


def load_torch():
    """torch, or None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch


class Arrays:
    """Makes arrays: numpy's on the CPU, torch's on a GPU."""

    def __init__(self, device: str, threads: int = 1, seed: int = 0):
        self.torch = load_torch()
        self.device, self.threads = device, threads
        self.dtype = "float32" if device == "cpu" else "bfloat16"
        self._random = np.random.default_rng(seed)
        if device == "cpu":
            if self.torch is not None:
                self.torch.set_num_threads(threads)
            return
        usable, why = _core.cuda_status(0)
        if not usable:
            raise DeviceError(f"bench: wanted a GPU for --device cuda, got none: {why}")
        if self.torch is None or not self.torch.cuda.is_available():
            what = "no torch" if self.torch is None else f"torch {self.torch.__version__}, which sees no GPU"
            raise DeviceError(f"bench: wanted torch for CUDA on --device cuda (arrays, events, baselines), got {what}")
        self.torch.manual_seed(seed)

    def random(self, *shape: int, std: float = 1.0, wide: bool = False):
        """Normal numbers; wide: in float32 on every device."""
        if self.device == "cpu":
            return self._random.standard_normal(shape, dtype=np.float32) * np.float32(std)
        dtype = self.torch.float32 if wide else self.torch.bfloat16
        return self.torch.randn(*shape, device="cuda", dtype=dtype) * std

    def empty(self, *shape: int):
        if self.device == "cpu":
            return np.empty(shape, np.float32)
        return self.torch.empty(*shape, device="cuda", dtype=self.torch.bfloat16)

    def rows(self, values: list[int]):
        """int32 row numbers."""
        if self.device == "cpu":
            return np.asarray(values, np.int32)
        return self.torch.tensor(values, dtype=self.torch.int32, device="cuda")

    def tensor(self, array):
        """The same memory as a torch tensor."""
        return self.torch.from_numpy(array) if self.device == "cpu" else array
