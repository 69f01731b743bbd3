"""Training windows: latents, states and action chunks of the blocks that inference would meet.

A runtime may replan before a chunk has ended, so the blocks a window looks back at span 8, 12 or 16 ticks, while the
block to predict always starts now and spans 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import data
from .model import BLOCKS, DIT, HORIZON
from .text import tokenize, vocabulary

STRIDES = (8, 12, 16)  # ticks from one replanning to the next
SLACK = 8  # ticks a window may reach beyond the end of its episode, where the arm holds still


@dataclass
class Statistics:
    """What values are normalised with."""

    state_low: np.ndarray  # [4], rad
    state_high: np.ndarray
    action_low: np.ndarray  # [16, 4], rad, relative to the state at the start of the block
    action_high: np.ndarray

    def state(self, q: np.ndarray) -> np.ndarray:
        return np.clip(2 * (q - self.state_low) / (self.state_high - self.state_low) - 1, -1, 1)

    def action(self, relative: np.ndarray) -> np.ndarray:
        return 2 * (relative - self.action_low) / (self.action_high - self.action_low) - 1

    def targets(self, action: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Joint targets, rad [..., 16, 4], of normalised actions from the state q, rad [..., 4]."""
        return (action + 1) / 2 * (self.action_high - self.action_low) + self.action_low + q[..., None, :]


class Episodes:
    """The joint data of all shards, end to end; with `latents` of those that are encoded."""

    def __init__(self, folder: Path, latents: bool = True):
        indices = data.shards(folder)
        if latents:
            indices = [i for i in indices if (folder / f"latents_{i:03d}.npy").exists()]
        parts = [np.load(folder / f"shard_{i:03d}.npz") for i in indices]
        self.ticks = np.concatenate([p["ticks"] for p in parts])
        self.q = np.concatenate([p["q"] for p in parts])
        self.action = np.concatenate([p["action"] for p in parts])
        self.labelled = np.concatenate([p["labelled"] for p in parts])
        self.kind = np.concatenate([p["kind"] for p in parts])
        texts = np.concatenate([p["text"] for p in parts])
        vocab = vocabulary()
        self.ids = np.array([tokenize(str(t), vocab, DIT["text_len"]) for t in texts])
        self.action_start = np.concatenate([[0], np.cumsum(self.ticks)[:-1]])
        self.q_start = self.action_start + np.arange(len(self.ticks))
        self.frame_start = np.concatenate([[0], np.cumsum(self.ticks // data.FRAME_TICKS + 1)[:-1]])
        if latents:
            self.latents = np.concatenate([np.load(folder / f"latents_{i:03d}.npy") for i in indices])

    def statistics(self) -> Statistics:
        """Quantiles over all starts of a block; targets beyond the end of an episode are its last."""
        episode, start = self._starts()
        step = np.minimum(start[:, None] + np.arange(HORIZON), self.ticks[episode][:, None] - 1)
        relative = self.action[self.action_start[episode][:, None] + step]
        relative = relative - self.q[self.q_start[episode] + start][:, None]
        low, high = np.quantile(relative, (0.01, 0.99), axis=0)
        state_low, state_high = np.quantile(self.q, (0.01, 0.99), axis=0)
        return Statistics(*(v.astype(np.float32) for v in (state_low, state_high, low, high)))

    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        episode = np.repeat(np.arange(len(self.ticks)), self.ticks - SLACK)
        return episode, np.concatenate([np.arange(n) for n in self.ticks - SLACK])

    def windows(self, rng: np.random.Generator, count: int, statistics: Statistics) -> dict[str, np.ndarray]:
        """A batch of windows of BLOCKS blocks.

        Returns: clean [B, 7, z, 4, 6], future [B, C, 2, z, 4, 6], action [B, C, 16, 4] and state [B, C, 4] normalised,
            labelled [B, C, 16], inside [B, C] (0: the block lies beyond the episode's end), ids [B, text_len].
        """
        episode = rng.integers(len(self.ticks), size=count)
        ticks = self.ticks[episode]
        stride = rng.choice(STRIDES, count)
        fits = (BLOCKS - 1) * stride + HORIZON <= ticks + SLACK
        stride = np.where(fits | (rng.random(count) < 0.4), stride, STRIDES[0])
        room = ticks + SLACK - (BLOCKS - 1) * stride - HORIZON
        first = rng.integers(0, np.maximum(room, 0) // data.FRAME_TICKS + 1) * data.FRAME_TICKS
        first = np.where(rng.random(count) < 0.25, 0, first)
        start = first[:, None] + stride[:, None] * np.arange(BLOCKS)  # [B, C], tick of each block
        halves = first[:, None] + np.concatenate([[0], np.arange(1, 2 * BLOCKS - 1)]) * stride[:, None] // 2
        future = start[:, :, None] + np.array((HORIZON // 2, HORIZON))
        step = start[:, :, None] + np.arange(HORIZON)
        action = self.action[self.action_start[episode][:, None, None] + np.minimum(step, ticks[:, None, None] - 1)]
        q = self.q[self.q_start[episode][:, None] + np.minimum(start, ticks[:, None])]
        labelled = self.labelled[self.action_start[episode][:, None, None] + np.minimum(step, ticks[:, None, None] - 1)]
        return {
            "clean": self._frames(episode, halves).astype(np.float32),
            "future": self._frames(episode, future).astype(np.float32),
            "action": statistics.action(action - q[:, :, None]).astype(np.float32),
            "state": statistics.state(q).astype(np.float32),
            "labelled": labelled.astype(np.float32),
            "inside": (start < ticks[:, None] - SLACK // 2).astype(np.float32),
            "ids": self.ids[episode],
        }

    def _frames(self, episode: np.ndarray, tick: np.ndarray) -> np.ndarray:
        shape = (-1,) + (1,) * (tick.ndim - 1)
        tick = np.minimum(tick, self.ticks[episode].reshape(shape))
        return self.latents[self.frame_start[episode].reshape(shape) + tick // data.FRAME_TICKS]
