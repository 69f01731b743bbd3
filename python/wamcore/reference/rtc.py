"""Continuing a plan while a chunk is sampled: real-time chunking without the backward pass.

After Black, Galliker and Levine, "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339), with the
identity in place of the Jacobian of the predicted data.
"""

import math

import torch


def prefix_weights(frozen, rows, horizon):
    """How much each row of a chunk is pulled toward the plan, float [horizon].

    Args:
        frozen: leading rows that will have been executed; they weigh 1.
        rows: rows that the plan has; later ones weigh 0, those between fall off.
        horizon: rows of a chunk.
    """
    start = min(frozen, rows)
    i = torch.arange(horizon, dtype=torch.float64)
    c = ((rows - i) / (rows - start + 1)).clamp(0, 1)
    w = torch.where(i < start, 1.0, c * torch.expm1(c) / (math.e - 1))
    return torch.where(i < rows, w, 0.0)


def pull(sigma, following, strength, multistep):
    """Weight of the pull at noise level `sigma`, in a step to `following`; see csrc/flow/prefix_guidance.h."""
    if following == 0:
        return min(strength, 1 / sigma)
    t = 1 - sigma
    formula = (t * t + sigma * sigma) / (t * sigma) if t > 0 else strength
    return min(strength, formula, 1 / sigma if multistep else strength)


def guide(x, velocity, sigma, weight, target, mask):
    """The velocity (data to noise) with the pull toward `target` [rows, dim] where `mask` is not zero."""
    predicted = x - sigma * velocity
    return velocity - weight * torch.where(mask > 0, target - predicted, 0.0) * mask


def with_prefix(action, prefix):
    """The action [1, horizon, dim] with its leading rows replaced by the known ones [rows, dim], if there are any."""
    if prefix is None:
        return action
    action = action.clone()
    action[0, : len(prefix)] = prefix
    return action
