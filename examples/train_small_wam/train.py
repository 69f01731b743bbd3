"""Joint flow training of video and actions: one model learns what will be seen together with what to do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .model import BLOCKS, SmallWam
from .muon import Muon
from .parallel import average_gradients, launch
from .progress import Progress
from .resume import Resume
from .text import vocabulary
from .windows import Episodes

ACTION_WEIGHT = 6.0  # normalised actions vary about half as much as latents do, and matter more
MATRIX_RATE, OTHER_RATE = 0.02, 2e-3
EMA = 0.998


@dataclass
class Plan:
    """How long and how wide to train; learning rates follow the iteration, never the clock."""

    iterations: int
    windows: int = 32  # per iteration, over all processes; a window is 4 chunks
    decay_from: float = 0.5  # the part of the run with full learning rates
    compile: bool = False
    device: str = "cpu"
    save_every: int = 100
    start_from: str = ""  # weights to begin with


def train(folder: Path, out: Path, plan: Plan, workers: int) -> None:
    """Trains on the shards in `folder` and writes the averaged weights to `out`; continues an interrupted run."""
    if not out.exists():
        launch(_train, workers, folder, out, plan)


def noise_levels(count: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels of video and action, 0..1 [count, C]: half of the windows alike, half with the video noisier."""
    action = torch.rand(count, BLOCKS, device=device)
    noisier = 1 - torch.rand(count, BLOCKS, device=device) ** 3
    return torch.where(torch.rand(count, 1, device=device) < 0.5, action, noisier), action


def losses(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared errors of the velocities of video and actions."""
    video, action = batch["future"], batch["action"]
    s_video, s_action = noise_levels(len(video), video.device)
    noise_video, noise_action = torch.randn_like(video), torch.randn_like(action)
    at = s_video[..., None, None, None, None]
    noisy_video = video + at * (noise_video - video)
    noisy_action = action + s_action[..., None, None] * (noise_action - action)
    times = ((1000 * s).floor().clamp(max=999) for s in (s_video, s_action))
    v, a = model(batch["clean"], noisy_video, noisy_action, batch["state"], *times, batch["ids"])
    error_v = ((v - (noise_video - video)) ** 2).mean((2, 3, 4, 5))
    error_a = ((a - (noise_action - action)) ** 2).mean(-1)
    inside = batch["inside"]
    known = batch["labelled"] * inside[..., None]
    return (error_v * inside).sum() / inside.sum(), (error_a * known).sum() / known.sum()


def hidden_matrices(model: SmallWam) -> list[torch.nn.Parameter]:
    names = [(n, p) for n, p in model.named_parameters() if p.ndim == 2 and "blocks." in n]
    return [p for n, p in names if "pos_embedding" not in n]


def rate(i: int, plan: Plan) -> float:
    """Factor of the learning rates at iteration i: a short rise, a hold, a straight fall."""
    return min(1.0, (i + 1) / 50) * min(1.0, (1 - i / plan.iterations) / (1 - plan.decay_from) + 0.01)


def _train(rank: int, world: int, folder: Path, out: Path, plan: Plan) -> None:
    torch.manual_seed(0)
    model = SmallWam(len(vocabulary())).to(plan.device)
    if plan.start_from:
        model.load_state_dict(torch.load(plan.start_from, weights_only=True, map_location=plan.device)["model"])
    parameters = list(model.parameters())
    matrices = hidden_matrices(model)
    chosen = set(map(id, matrices))
    others = [p for p in parameters if id(p) not in chosen]
    optimisers = [
        Muon(matrices, lr=MATRIX_RATE),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    average = [p.detach().clone() for p in parameters]
    resume = Resume(out, model, optimisers, average)
    first = resume.restore(plan.device)
    if plan.compile:
        model.compile_layers()
    episodes = Episodes(folder)
    statistics = Episodes(folder, latents=False).statistics()
    bar = Progress("wam", plan.iterations, done=first)
    smooth_v = smooth_a = weight = 0.0
    for i in range(first, plan.iterations):
        for optimiser, peak in zip(optimisers, (MATRIX_RATE, OTHER_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * rate(i, plan)
        rng = np.random.default_rng([3, rank, i])
        torch.manual_seed(1000 * i + rank)
        batch = episodes.windows(rng, plan.windows // world, statistics)
        batch = {k: torch.from_numpy(v).to(plan.device) for k, v in batch.items()}
        loss_v, loss_a = losses(model, batch)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=False)
        (loss_v + ACTION_WEIGHT * loss_a).backward()
        average_gradients(parameters)
        for optimiser in optimisers:
            optimiser.step()
        keep = min(EMA, (i + 1) / (i + 20))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
        if rank:
            continue
        smooth_v, smooth_a = 0.98 * smooth_v + 0.02 * loss_v.item(), 0.98 * smooth_a + 0.02 * loss_a.item()
        weight = 0.98 * weight + 0.02
        cost = f"cpu {time.process_time():.0f} s a process"
        bar.advance(note=f"video {smooth_v / weight:.4f} action {smooth_a / weight:.4f} {cost}")
        if (i + 1) % plan.save_every == 0:
            resume.save(i + 1)
    if rank == 0:
        torch.save({"model": averaged(model, average)}, out)


def averaged(model: SmallWam, average: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's state with its parameters replaced by their running means."""
    state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    for (name, _), value in zip(model.named_parameters(), average, strict=True):
        state[name] = value.detach().cpu().clone()
    return state


def load(path: Path) -> SmallWam:
    """The averaged weights of a finished or an interrupted run."""
    saved = torch.load(path, weights_only=True, map_location="cpu")
    model = SmallWam(len(vocabulary()))
    model.load_state_dict(saved["model"])
    if "average" in saved:
        model.load_state_dict(averaged(model, saved["average"]))
    return model.eval()
