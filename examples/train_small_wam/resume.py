"""What an interrupted training continues from, to the bit: weights, optimisers, running means and the iteration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch


class Resume:
    """The state of a training run, on disk beside the weights that it will make.

    Args:
        out: where the finished weights go; the state lies at the same place, ending in `.resume.pt`.
        model, optimisers: what is trained, and by what.
        average: running means of the parameters, updated in place; none by default.
    """

    def __init__(self, out: Path, model, optimisers: Sequence, average: Sequence[torch.Tensor] = ()):
        self.path = out.with_suffix(".resume.pt")
        self.model, self.optimisers, self.average = model, optimisers, average

    def restore(self, device: str = "cpu") -> int:
        """Loads what was saved, if anything was; returns the iteration to go on with."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True, map_location=device)
        self.model.load_state_dict(state["model"])
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        for mean, value in zip(self.average, state.get("average", ()), strict=True):
            mean.copy_(value)
        return state["iteration"]

    def save(self, iteration: int) -> None:
        """Saves all that changes, in one step: an interruption leaves the old state or the new one."""
        state = {"model": self.model.state_dict(), "iteration": iteration}
        state["optimisers"] = [o.state_dict() for o in self.optimisers]
        if self.average:
            state["average"] = list(self.average)
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)
