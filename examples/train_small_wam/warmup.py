"""A cheap first phase: what the instruction names, found in one picture.

A token of the codec covers 32x32 pixels and often several blocks, so that picking the named one takes the feed-forward
layers long to learn. Here a sample is one clean frame, the state and every fourth action at the highest noise: fewer
tokens than a third of a full block, through the same parameters.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from wamcore.reference.dit_layers import rope_angles, video_angles

from . import data
from .model import GRID, HORIZON, TOKENS, SmallWam, rms, turn
from .muon import Muon
from .parallel import average_gradients, launch
from .progress import Progress
from .resume import Resume
from .text import vocabulary
from .train import MATRIX_RATE, OTHER_RATE, hidden_matrices
from .windows import SLACK, Episodes, Statistics

STEPS = (3, 7, 11, 15)  # which of the block's actions
BATCH = 512  # samples per iteration, over all processes
LEVEL = 999  # timestep of the actions
SAVE_EVERY = 50  # iterations


def warm_up(folder: Path, out: Path, iterations: int, workers: int, start_from: str = "") -> None:
    """Trains on single frames and writes weights to `out` for the full training; continues an interrupted run."""
    if not out.exists():
        launch(_run, workers, folder, out, iterations, start_from)


def samples(episodes: Episodes, rng: np.random.Generator, count: int, statistics: Statistics) -> dict:
    """Single frames with the actions that follow; half of them are first frames of an episode."""
    episode = rng.integers(len(episodes.ticks), size=count)
    ticks = episodes.ticks[episode]
    start = rng.integers(0, (ticks - SLACK) // data.FRAME_TICKS) * data.FRAME_TICKS
    start = np.where(rng.random(count) < 0.5, 0, start)
    step = np.minimum(start[:, None] + np.array(STEPS), ticks[:, None] - 1)
    at = episodes.action_start[episode][:, None] + step
    q = episodes.q[episodes.q_start[episode] + start]
    relative = np.zeros((count, HORIZON, 4), np.float32)
    relative[:, list(STEPS)] = episodes.action[at] - q[:, None]
    return {
        "frame": episodes.latents[episodes.frame_start[episode] + start // data.FRAME_TICKS].astype(np.float32),
        "action": statistics.action(relative)[:, list(STEPS)].astype(np.float32),
        "state": statistics.state(q).astype(np.float32),
        "labelled": episodes.labelled[at].astype(np.float32),
        "ids": episodes.ids[episode],
    }


class Single:
    """The forward of a sample: [frame | actions | state]."""

    def __init__(self, wam: SmallWam):
        self.wam = wam
        head_dim = wam.cfg["dim"] // wam.cfg["num_heads"]
        frame = video_angles(0, 1, GRID[0] // 2, GRID[1] // 2, head_dim)
        registers = rope_angles(torch.tensor(STEPS), head_dim), rope_angles(torch.tensor([0]), head_dim)
        self.angles = torch.cat([frame, *registers]).float()[:, None]
        n = TOKENS + len(STEPS) + 1
        self.bias = torch.zeros(n, n)
        self.bias[:TOKENS, TOKENS:] = -1e9  # the clean frame does not see what is noisy

    def __call__(self, frame, action, state, ids):
        wam, dit = self.wam, self.wam.dit
        prompts, of_sample = ids.unique(dim=0, return_inverse=True)  # few, and dearer than all the rest
        text = dit.text_embedding(wam.prompts(prompts))
        t = torch.full((len(frame),), float(LEVEL))
        x = wam._patches(frame)
        x = torch.cat([x, wam._actions(action, t), dit.state_encoder(state[:, None])], 1)
        _, e0 = wam._time(torch.tensor([0.0, float(LEVEL)]))
        rows = torch.tensor([0] * TOKENS + [1] * (len(STEPS) + 1))
        for block in dit.blocks:
            shift1, scale1, gate1, shift2, scale2, gate2 = (block.modulation + e0)[rows].unbind(1)
            width, eps = x.shape[-1:], wam.cfg["eps"]
            z = torch.addcmul(shift1, F.layer_norm(x, width, eps=eps), 1 + scale1)
            x = x + self._attend(block.self_attn, z) * gate1
            cross = block.cross_attn
            rows_of_text = [u[of_sample] for u in wam._text_rows(cross, text)]
            x = x + wam._cross_attention(cross, block.norm3(x), *rows_of_text)
            z = torch.addcmul(shift2, F.layer_norm(x, width, eps=eps), 1 + scale2)
            x = x + block.ffn(z) * gate2
        return dit.action_decoder(x[:, TOKENS:-1])

    def _attend(self, attention, z):
        wam = self.wam

        def rotated(linear, norm):
            u = rms(linear(z)[..., wam.halves], norm.weight[wam.halves], wam.cfg["eps"])
            return turn(u.unflatten(-1, (attention.heads, -1)), self.angles).transpose(1, 2)

        q, k = rotated(attention.q, attention.norm_q), rotated(attention.k, attention.norm_k)
        v = attention.v(z).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        out = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + self.bias, -1) @ v
        return attention.o(out.transpose(1, 2).flatten(2))


def _run(rank: int, world: int, folder: Path, out: Path, iterations: int, start_from: str) -> None:
    torch.manual_seed(0)
    wam = SmallWam(len(vocabulary()))
    if start_from:
        wam.load_state_dict(torch.load(start_from, weights_only=True)["model"])
    forward, parameters, matrices = Single(wam), list(wam.parameters()), hidden_matrices(wam)
    chosen = set(map(id, matrices))
    others = [p for p in parameters if id(p) not in chosen]
    optimisers = [Muon(matrices, lr=MATRIX_RATE), torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98))]
    for group in optimisers[1].param_groups:
        group["weight_decay"] = 0.0
    episodes, statistics = Episodes(folder), Episodes(folder, latents=False).statistics()
    resume = Resume(out, wam, optimisers)
    first = resume.restore()
    bar, smooth = Progress("warm up", iterations, done=first), None
    sigma = LEVEL / 1000
    for i in range(first, iterations):
        factor = min(1.0, (i + 1) / 30) * (1.0 if i < 0.7 * iterations else 0.5)
        for optimiser, peak in zip(optimisers, (MATRIX_RATE, OTHER_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * factor
        torch.manual_seed(1000 * i + rank)
        batch = samples(episodes, np.random.default_rng([6, rank, i]), BATCH // world, statistics)
        batch = {k: torch.from_numpy(v) for k, v in batch.items()}
        noise = torch.randn_like(batch["action"])
        noisy = batch["action"] + sigma * (noise - batch["action"])
        velocity = forward(batch["frame"], noisy, batch["state"], batch["ids"])
        error = ((noisy - sigma * velocity - batch["action"]) ** 2).mean(-1)  # of the clean actions
        loss = (error * batch["labelled"]).sum() / batch["labelled"].sum()
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            if p.grad is None:  # the parts that only video needs
                p.grad = torch.zeros_like(p)
        average_gradients(parameters)
        for optimiser in optimisers:
            optimiser.step()
        if rank == 0:
            smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
            bar.advance(note=f"action {smooth:.4f} cpu {time.process_time():.0f} s a process")
            if (i + 1) % SAVE_EVERY == 0:
                resume.save(i + 1)
    if rank == 0:
        torch.save({"model": wam.state_dict()}, out)
