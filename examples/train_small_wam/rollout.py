"""Many worlds in step with one batched policy: the family's closed loop on the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from wamcore.reference.dit import CausalWanModel
from wamcore.reference.schedule import Euler, UniPC, flow_match_sigmas, timesteps, unipc_sigmas
from wamcore.reference.umt5 import UmT5Encoder
from wamcore.reference.vae import CausalVae
from wamcore.sim import SceneCamera, Tabletop, inverse_kinematics

from .codec import to_image, to_tensor
from .expert import expert
from .model import HORIZON
from .text import tokenize, vocabulary
from .windows import Statistics

CHUNKS = {"touch": 6, "moving": 8, "push": 12}  # an episode's limit
PIXEL_WORLDS = 16  # worlds of a batch whose pictures are compared: decoding is dear
MOVED = 0.15  # a pixel, -1..1, that differs by more from the last picture seen counts as moving


@dataclass
class Sampler:
    steps: int = 4
    solver: str = "unipc"
    shift: float = 5.0


class Policy:
    """The model with a cache of what was seen, for a batch of worlds that call in step."""

    def __init__(self, dit: CausalWanModel, text: UmT5Encoder, vae: CausalVae, statistics: Statistics):
        self.dit, self.text, self.vae, self.statistics = dit, text, vae, statistics
        self.vocab = vocabulary()

    def begin(self, instructions: list[str], sampler: Sampler, seed: int) -> None:
        length = self.dit.cfg["text_len"]
        ids = torch.tensor([tokenize(t, self.vocab, length) for t in instructions])
        self.rows = self.text.prompt_embedding(ids, (ids != 0).long())
        self.sampler, self.random = sampler, torch.Generator().manual_seed(seed)
        self.cache, self.start = None, 0

    def select(self, keep: torch.Tensor) -> None:
        """Goes on with some of the worlds, bool [B]."""
        self.rows = self.rows[keep]
        self.cache = self.cache and [(k[keep], v[keep]) for k, v in self.cache]

    def act(self, latents: torch.Tensor, q: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """The next block.

        Args:
            latents: [B, frames, z, h, w] seen since the last call; after a full window only the newest counts.
            q: [B, 4], rad.

        Returns: predicted latents [B, 2, z, h, w] and joint targets, rad [B, 16, 4].
        """
        if self.start == 0 or self.start >= self.dit.cfg["local_attn_size"]:
            self.cache, self.start, latents, at = None, 1, latents[:, -1:], 0
        else:
            at = self.start - latents.shape[1]
        batch, seen = latents.shape[:2]
        still = torch.zeros(batch, seen)
        _, _, self.cache = self.dit(latents.transpose(1, 2), still, self.rows, None, self.cache, at)
        x, a = self._denoise(latents, torch.from_numpy(self.statistics.state(q)).float()[:, None])
        self.start += 2
        return x.transpose(1, 2), self.statistics.targets(a.numpy().astype(np.float64), q)

    def _denoise(self, latents, state):
        s, batch = self.sampler, len(latents)
        x = torch.randn(batch, latents.shape[2], 2, *latents.shape[3:], generator=self.random)
        a = torch.randn(batch, HORIZON, 4, generator=self.random)
        kind, table = (UniPC, unipc_sigmas) if s.solver == "unipc" else (Euler, flow_match_sigmas)
        sigmas = table(s.steps, s.shift)
        solver_x, solver_a = kind(sigmas), kind(sigmas)
        for i, t in enumerate(timesteps(sigmas).clamp(max=999)):
            times = t.expand(batch, 2), t.expand(batch, HORIZON)
            v, w, _ = self.dit(x, times[0], self.rows, None, self.cache, self.start, None, a, times[1], state)
            x, a = solver_x.step(i, x, v), solver_a.step(i, a, w)
        return x, a


@dataclass
class Outcome:
    """How a batch of episodes went."""

    success: list[bool] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)  # decided, and failed
    ticks: list[int] = field(default_factory=list)  # until success
    errors: dict[str, list[float]] = field(default_factory=dict)  # means over live worlds and blocks
    strip: list[np.ndarray] = field(default_factory=list)  # pictures of the first worlds: predicted, then actual

    def note(self, name: str, values: torch.Tensor) -> None:
        self.errors.setdefault(name, []).extend(values.flatten().tolist())


def worlds(task: str, seeds: range, camera: SceneCamera) -> list[Tabletop]:
    return [Tabletop(seed, task, camera) for seed in seeds]


def camera() -> SceneCamera:
    first = Tabletop()
    return SceneCamera(first.model)


@torch.no_grad()
def run(policy: Policy, task: str, seeds: range, sampler: Sampler, blind: bool = False, strips: int = 0) -> Outcome:
    """Runs one episode per seed, every chunk to its end; `blind` takes the colour out of the instruction.

    Worlds leave the batch when they are decided, except the first `strips`, whose pictures are kept.
    """
    view = camera()
    everyone, out = worlds(task, seeds, view), Outcome()
    thing = "push the thing" if task == "push" else "touch the thing"
    policy.begin([thing if blind else w.instruction for w in everyone], sampler, seed=int(seeds[0]))
    batch, picture = everyone, np.stack([w.frame() for w in everyone])
    latents = policy.vae.encode_frame(to_tensor(picture))[:, None]
    rows = [[p] for p in picture[:strips]], [[p] for p in picture[:strips]]
    for _ in range(CHUNKS[task]):
        live = np.array([not w.done for w in batch])
        keep = live | (np.arange(len(batch)) < strips)
        if not live.any() or not keep.any():
            break
        batch, latents, picture = [w for w, k in zip(batch, keep, strict=True) if k], latents[keep], picture[keep]
        policy.select(torch.from_numpy(keep))
        predicted, targets = policy.act(latents, np.stack([w.q for w in batch]))
        pictures = _execute(batch, targets)
        seen = policy.vae.encode_frame(to_tensor(pictures.reshape(-1, *picture.shape[1:])))
        seen = seen.unflatten(0, (len(batch), 2))
        _compare(out, policy.vae, Seen(predicted, seen, latents[:, -1:], pictures, picture), live[keep])
        for i in range(strips):
            rows[0][i].extend(to_image(policy.vae.decode_frame(predicted[i])))
            rows[1][i].extend(pictures[i])
        latents, picture = seen, pictures[:, -1]
    out.success = [w.success is True for w in everyone]
    out.wrong = [w.success is False for w in everyone]
    out.ticks = [w.decided_at or w.tick for w in everyone]
    out.strip = [np.stack([np.concatenate(row[i], 1) for row in rows]) for i in range(strips)]
    view.close()
    return out


def _execute(batch: list[Tabletop], targets: np.ndarray) -> np.ndarray:
    """Runs a chunk in every world; pictures after 8 and 16 ticks, uint8 [B, 2, H, W, 3]."""
    pictures = []
    for w, chunk in zip(batch, targets, strict=True):
        for tick, target in enumerate(chunk, 1):
            w.step(np.clip(target, w.position_min, w.position_max))
            if tick % (HORIZON // 2) == 0:
                pictures.append(w.frame())
    return np.stack(pictures).reshape(len(batch), 2, *pictures[0].shape)


@dataclass
class Seen:
    """A block: what was predicted, what came, and what was seen last before it."""

    predicted: torch.Tensor  # latents [B, 2, z, h, w]
    latents: torch.Tensor  # [B, 2, z, h, w]
    before: torch.Tensor  # [B, 1, z, h, w]
    pictures: np.ndarray  # uint8 [B, 2, H, W, 3]
    picture: np.ndarray  # uint8 [B, H, W, 3]


def _compare(out: Outcome, vae: CausalVae, block: Seen, live: np.ndarray) -> None:
    """Errors of the predicted block and, for scale, of repeating the last picture and of the codec itself."""
    chosen = torch.from_numpy(live)
    out.note("latent", ((block.predicted - block.latents) ** 2).mean((2, 3, 4))[chosen])
    out.note("latent_copy", ((block.before - block.latents) ** 2).mean((2, 3, 4))[chosen])
    some = np.flatnonzero(live)[:PIXEL_WORLDS]
    real = to_tensor(block.pictures[some].reshape(-1, *block.picture.shape[1:])).unflatten(0, (-1, 2))
    copy = to_tensor(block.picture[some])[:, None]
    moved = ((real - copy).abs().amax(2, keepdim=True) > MOVED).float()
    share = moved.sum((2, 3, 4)) * 3
    images = {"copy": copy}
    for name, z in (("model", block.predicted), ("codec", block.latents)):
        images[name] = vae.decode_frame(z[some].flatten(0, 1)).clamp(-1, 1).unflatten(0, (-1, 2))
    for name, image in images.items():
        out.note(f"moving_{name}", (((image - real) ** 2) * moved).sum((2, 3, 4))[share > 0] / share[share > 0])


def baseline(task: str, seeds: range, kind: str) -> Outcome:
    """The expert, or an arm that goes to random places, 0.8 s each, at the expert's pace."""
    view, out = camera(), Outcome()
    for w in worlds(task, seeds, view):
        rng, goal = np.random.default_rng([5, w.tick, len(out.success)]), w.q
        for tick in range(CHUNKS[task] * HORIZON):
            if tick % HORIZON == 0:
                goal = inverse_kinematics(rng.uniform(0.2, 0.37), rng.uniform(-0.7, 0.7), rng.uniform(0.015, 0.15))
            w.step(expert(w) if kind == "expert" else w.q + np.clip(goal - w.q, -0.12, 0.12))
            if w.done:
                break
        out.success.append(w.success is True)
        out.wrong.append(w.success is False)
        out.ticks.append(w.decided_at or w.tick)
    view.close()
    return out
