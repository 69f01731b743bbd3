"""Muon: momentum, then the nearest orthogonal matrix; float32, batched by shape, for CPUs without bfloat16."""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.distributed as dist

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the published optimiser


def orthogonalise(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Drives the singular values of each matrix of x [N, rows, columns] towards 1."""
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = torch.baddbmm(a * x, torch.baddbmm(b * s, s, s, alpha=c), x)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For the hidden matrices of a model. With several processes each does its share and all exchange the updates."""

    def __init__(self, parameters, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                shapes[p.shape].append(p)
            updates = []
            for shape, parameters in shapes.items():
                gradients = torch.stack([p.grad for p in parameters])
                momentum = self._momentum(parameters[0], gradients)
                momentum.lerp_(gradients, 1 - group["momentum"])
                ahead = gradients.lerp(momentum, group["momentum"])
                update = torch.zeros_like(ahead)
                update[rank::world] = orthogonalise(ahead[rank::world])
                updates.append(update * max(1, shape[0] / shape[1]) ** 0.5)
            if world > 1:
                flat = torch.cat([u.flatten() for u in updates])
                dist.all_reduce(flat)
                parts = flat.split([u.numel() for u in updates])
                updates = [part.view_as(u) for part, u in zip(parts, updates, strict=True)]
            for parameters, update in zip(shapes.values(), updates, strict=True):
                for p, u in zip(parameters, update, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u, alpha=group["lr"])

    def _momentum(self, first: torch.nn.Parameter, like: torch.Tensor) -> torch.Tensor:
        """One buffer for all parameters of a shape, kept with the first of them."""
        state = self.state[first]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(like)
        return state["momentum"]
