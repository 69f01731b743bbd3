"""The codec: the family's causal VAE, small, with only its present-time taps trained, so that each frame stands alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch

from wamcore.reference.vae import CausalVae
from wamcore.sim.scene import COLOURS

from . import data
from .parallel import average_gradients, launch
from .progress import Progress

CONFIG = {
    "dim": 16,
    "dec_dim": 20,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temporal_downsample": [False, False, False],
    "patch_size": 2,
}
LATENT_NOISE = 0.1  # in place of a KL term: latents that differ less than this mean the same
BATCH = 32  # frames per iteration, over all processes


def build(mean=None, std=None) -> CausalVae:
    z = CONFIG["z_dim"]
    mean, std = mean or [0.0] * z, std or [1.0] * z
    return CausalVae({**CONFIG, "latents_mean": mean, "latents_std": std})


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] -> float [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_image(x: torch.Tensor) -> np.ndarray:
    """float [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def emphasis(x: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Weight of each pixel, [N, 1, H, W]: what differs from the empty scene and what is colourful counts more."""
    differs = (x - background).abs().amax(1, keepdim=True).clamp(0, 1)
    colourful = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True) - 0.3).clamp(0, 1)
    return 1 + 5 * differs + 8 * colourful


# --- training


def train(folder: Path, out: Path, iterations: int, workers: int, device: str = "cpu") -> None:
    """Trains on the frames in `folder` and writes `out`; continues a run that was interrupted."""
    if not out.exists():
        launch(_train, workers, folder, out, iterations, device)


def _train(rank: int, world: int, folder: Path, out: Path, iterations: int, device: str) -> None:
    torch.manual_seed(0)
    vae = build().to(device)
    vae.zero_past_taps()
    parameters = [p for p in vae.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    saved, first = out.with_suffix(".resume.pt"), 0
    if saved.exists():
        state = torch.load(saved, weights_only=True, map_location=device)
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["iteration"]
    frames = Frames(folder)
    background = to_tensor(frames.median()[None]).to(device)
    bar = Progress("codec", iterations, done=first)
    for i in range(first, iterations):
        rate = 2e-3 * min(1, (i + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * i / iterations)) + 1e-5
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([1, rank, i])
        torch.manual_seed(1000 * i + rank)
        if i % 50 == 0:
            frames.refresh()
        x = to_tensor(frames.sample(rng, BATCH // world)).to(device)
        z = vae.encode_frame(x)
        y = vae.decode_frame(z + LATENT_NOISE * torch.randn_like(z))
        error = y - x
        loss = (emphasis(x, background) * (0.5 * error.abs() + error**2)).mean() + 1e-3 * (z**2).mean()
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if rank == 0:
            bar.advance(note=f"loss {loss.item():.4f}")
            if (i + 1) % 100 == 0:
                torch.save({"model": vae.state_dict(), "optimiser": optimiser.state_dict(), "iteration": i + 1}, saved)
    if rank == 0:
        torch.save(finish(vae, frames), out)


class Frames:
    """All frames on disk; more may appear while training goes on."""

    def __init__(self, folder: Path):
        self._folder, self._parts = folder, {}
        self.refresh()

    def refresh(self) -> None:
        for i in data.shards(self._folder):
            if i not in self._parts:
                self._parts[i] = np.load(self._folder / f"frames_{i:03d}.npy", mmap_mode="r")
        self._arrays = [self._parts[i] for i in sorted(self._parts)]
        self._ends = np.cumsum([len(a) for a in self._arrays])

    def at(self, indices: np.ndarray) -> np.ndarray:
        parts = np.searchsorted(self._ends, indices, side="right")
        return np.stack([self._arrays[p][i - self._ends[p]] for p, i in zip(parts, indices, strict=True)])

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.at(rng.integers(self._ends[-1], size=count))

    def median(self) -> np.ndarray:
        return np.median(self._arrays[0][:: max(1, len(self._arrays[0]) // 400)], axis=0).astype(np.uint8)


@torch.no_grad()
def finish(vae: CausalVae, frames: Frames) -> dict:
    """The trained weights and the statistics of their latents."""
    device = next(vae.parameters()).device
    sample = frames.sample(np.random.default_rng(2), 2048)
    z = torch.cat([vae.encode_frame(to_tensor(part).to(device)).cpu() for part in np.array_split(sample, 32)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    return {"model": {k: v.cpu() for k, v in vae.state_dict().items()}, "mean": mean.tolist(), "std": std.tolist()}


def load(path: Path) -> CausalVae:
    saved = torch.load(path, weights_only=True)
    vae = build(saved["mean"], saved["std"])
    vae.load_state_dict(saved["model"])
    return vae.eval()


# --- the gate


def colour_of(image: np.ndarray) -> np.ndarray:
    """Index of the block colour of each pixel, -1 for none: uint8 [..., 3] -> int [...]."""
    x = image.astype(np.float32) / 255
    saturation = x.max(-1) - x.min(-1)
    direction = x - x.min(-1, keepdims=True)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True) + 1e-6
    palette = np.array(list(COLOURS.values()))
    palette = palette - palette.min(-1, keepdims=True)
    palette /= np.linalg.norm(palette, axis=-1, keepdims=True)
    return np.where(saturation > 0.3, (direction @ palette.T).argmax(-1), -1)


@torch.no_grad()
def probe(vae: CausalVae, images: np.ndarray) -> dict:
    """Quality of reconstructions of uint8 [N, H, W, 3].

    Returns PSNR, and for each colour `seen`, the part of its blocks (20 pixels and more) of which at least half of
    the pixels come back in their colour, and `overlap`, the mean of that share.
    """
    back = np.concatenate([to_image(vae.decode_frame(vae.encode_frame(to_tensor(p)))) for p in np.array_split(images, 16)])
    error = ((back.astype(np.float32) - images) ** 2).mean() / 255**2
    result: dict = {"psnr_db": round(float(-10 * np.log10(error)), 2), "colours": {}}
    real, made = colour_of(images), colour_of(back)
    for index, name in enumerate(COLOURS):
        size = (real == index).sum((1, 2))
        share = ((real == index) & (made == index)).sum((1, 2))[size >= 20] / size[size >= 20]
        result["colours"][name] = {
            "seen": round(float((share >= 0.5).mean()), 3),
            "overlap": round(float(share.mean()), 3),
            "blocks": int(len(share)),
        }
    return result


def encode_all(folder: Path, vae: CausalVae) -> None:
    """Writes `latents_NNN.npy` (float16 [frames, z, 4, 6]) for every shard that lacks them."""
    indices = [i for i in data.shards(folder) if not (folder / f"latents_{i:03d}.npy").exists()]
    bar = Progress("latents", len(indices))
    for i in indices:
        frames = np.load(folder / f"frames_{i:03d}.npy", mmap_mode="r")
        with torch.no_grad():
            z = [vae.encode_frame(to_tensor(frames[j : j + 256])).half() for j in range(0, len(frames), 256)]
        np.save(folder / f"latents_{i:03d}.npy", torch.cat(z).numpy())
        bar.advance()


def gate(vae: CausalVae, images: np.ndarray, report: Path, least: float = 0.9) -> dict:
    """Writes the probe's result and stops if a colour is lost: PSNR alone does not see that."""
    result = probe(vae, images)
    report.write_text(json.dumps(result, indent=1))
    lost = [name for name, colour in result["colours"].items() if colour["seen"] < least]
    if lost:
        raise RuntimeError(f"codec.gate: {', '.join(lost)} blocks are seen in fewer than {least:.0%} of the pictures")
    return result
