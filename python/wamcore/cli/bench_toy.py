"""A flow whose exact velocity is known, with two ways round an obstacle: what guidance does to seams, by itself."""

from __future__ import annotations

import math

import numpy as np

HORIZON, EXECUTED, STRENGTH = 24, 12, 10.0


class Bimodal:
    """Chunks of one joint that go over or under an obstacle: two Gaussians, and the exact velocity of their flow."""

    def __init__(self):
        t = np.arange(HORIZON) / HORIZON
        arc = 0.8 * np.sin(math.pi * t)
        self.modes = np.stack([arc, -arc])
        kernel = 0.1**2 * np.exp(-0.5 * ((t[:, None] - t) / 0.25) ** 2) + 1e-5 * np.eye(HORIZON)
        self.variance, self.axes = np.linalg.eigh(kernel)

    def velocity(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """E[noise - data | x] at noise level sigma; x [n, horizon]."""
        tau = 1 - sigma
        spread = tau**2 * self.variance + sigma**2
        residual = (x @ self.axes)[:, None] - tau * self.modes @ self.axes  # [n, mode, horizon]
        log = -0.5 * (residual**2 / spread).sum(-1)
        weight = np.exp(log - log.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        scaled = residual / spread
        data = (self.modes @ self.axes)[None] + tau * self.variance * scaled
        return (weight[..., None] * (sigma * scaled - data)).sum(1) @ self.axes.T

    def sample(self, rng, n: int, steps: int, plan: np.ndarray | None = None, frozen: int = 0) -> np.ndarray:
        """Chunks [n, horizon]; with `plan` guided as `csrc/flow/prefix_guidance.h` does for an Euler solver."""
        x = rng.standard_normal((n, HORIZON))
        weight = prefix_weights(frozen, HORIZON - EXECUTED)
        for k in range(steps):
            sigma, following = 1 - k / steps, 1 - (k + 1) / steps
            v = self.velocity(x, sigma)
            if plan is not None:
                t = 1 - sigma
                formula = (t * t + sigma * sigma) / (t * sigma) if t > 0 else STRENGTH
                pull = min(STRENGTH, 1 / sigma if k == steps - 1 else formula)
                v = v - pull * (plan - (x - sigma * v)) * weight
            x = x + (following - sigma) * v
        return x


def prefix_weights(frozen: int, rows: int) -> np.ndarray:
    i = np.arange(HORIZON)
    start = min(frozen, rows)
    c = np.clip((rows - i) / (rows - start + 1), 0, 1)
    return np.where(i >= rows, 0.0, np.where(i < start, 1.0, c * np.expm1(c) / np.expm1(1)))


def sweep(n: int = 500, seed: int = 0) -> list[dict]:
    """99 % seam jump (rad) and share of seams that change sides, for plain switching and for guidance."""
    flow, out = Bimodal(), []
    for steps in (4, 10):
        for delay in (3, 8):
            rng = np.random.default_rng(seed)
            plan = flow.sample(rng, n, 50)
            for method in ("async_switch", "rtc_guided"):
                # as the runner has it: the row of the tick in which the new chunk takes over is frozen as well
                new = flow.sample(rng, n, steps, plan if method == "rtc_guided" else None, delay + 1)
                old_step = np.abs(plan[:, delay] - plan[:, delay - 1])
                jump = (np.abs(new[:, delay] - plan[:, delay - 1]) - old_step).clip(0)
                flips = float(np.mean((new[:, HORIZON // 2] > 0) != (plan[:, HORIZON // 2] > 0)))
                p99 = float(np.quantile(jump, 0.99))
                out.append({"steps": steps, "delay": delay, "method": method, "jump_p99": p99, "flips": flips})
    return out
