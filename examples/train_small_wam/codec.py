"""The codec: the family's causal VAE, small; only its present-time taps are trained, so each frame stands alone."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing
from wamcore.reference.vae import CausalVae
from wamcore.sim.scene import COLOURS

from . import data
from .parallel import average_gradients, launch
from .progress import Progress
from .resume import Resume

CONFIG = {
    "dim": 16,
    "dec_dim": 20,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temporal_downsample": [False, False, False],
    "patch_size": 2,
}
WIDE = 48  # latent channels while the codec trains; then the principal ones are kept
LATENT_NOISE = 0.1  # in place of a KL term: latents that differ less than this mean the same
PEAK_RATE = 2e-3
BATCH = 32  # frames per iteration, over all processes


def build(mean=None, std=None, z: int = WIDE) -> CausalVae:
    mean, std = mean or [0.0] * z, std or [1.0] * z
    return CausalVae({**CONFIG, "z_dim": z, "latents_mean": mean, "latents_std": std})


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


@dataclass
class Run:
    """One run of training: of the whole codec, or of the decoder behind an encoder that stays as it is."""

    folder: Path
    out: Path
    iterations: int
    device: str = "cpu"
    start_from: Path | None = None  # a finished codec, whose encoder and latents are kept


def train(folder: Path, out: Path, iterations: int, workers: int, device: str = "cpu") -> None:
    """Trains on the frames in `folder` and writes `out`; continues a run that was interrupted."""
    if not out.exists():
        launch(_train, workers, Run(folder, out, iterations, device))


def refine_decoder(folder: Path, start: Path, out: Path, iterations: int, workers: int, device: str = "cpu") -> None:
    """Trains the decoder of `start` further; its encoder is frozen, so that latents keep their meaning."""
    if not out.exists():
        launch(_train, workers, Run(folder, out, iterations, device, start))


def _train(rank: int, world: int, run: Run) -> None:
    torch.manual_seed(0)
    vae = build() if run.start_from is None else load(run.start_from)
    vae.to(run.device)
    vae.zero_past_taps()
    learn = vae if run.start_from is None else torch.nn.ModuleList((vae.decoder, vae.conv2))
    parameters = list(learn.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    resume = Resume(run.out, vae, [optimiser])
    first = resume.restore(run.device)
    frames = Frames(run.folder)
    background = to_tensor(frames.median()[None]).to(run.device)
    bar = Progress("codec" if run.start_from is None else "decoder", run.iterations, done=first)
    for i in range(first, run.iterations):
        fall = 0.5 + 0.5 * math.cos(math.pi * i / run.iterations)
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * min(1, (i + 1) / 40) * fall + 1e-5
        rng = np.random.default_rng([1, rank, i])
        torch.manual_seed(1000 * i + rank)
        if i % 50 == 0:
            frames.refresh()
        x = to_tensor(frames.sample(rng, BATCH // world)).to(run.device)
        loss = _loss(vae, x, background, frozen=run.start_from is not None)
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if rank == 0:
            bar.advance(note=f"loss {loss.item():.4f}")
            if (i + 1) % 100 == 0:
                resume.save(i + 1)
    if rank == 0:
        kept = (vae.latents_mean.tolist(), vae.latents_std.tolist())
        mean, std = kept if run.start_from else latent_statistics(vae, frames)
        torch.save({"model": {k: v.cpu() for k, v in vae.state_dict().items()}, "mean": mean, "std": std}, run.out)


def _loss(vae: CausalVae, x: torch.Tensor, background: torch.Tensor, frozen: bool) -> torch.Tensor:
    if frozen:
        with torch.no_grad():
            z = vae.encode_frame(x)
        spread = LATENT_NOISE / vae.latents_std.view(1, -1, 1, 1)
        penalty = 0.0
    else:
        z = vae.encode_frame(x)
        spread, penalty = LATENT_NOISE, 1e-3 * (z**2).mean()
    error = vae.decode_frame(z + spread * torch.randn_like(z)) - x
    return (emphasis(x, background) * (0.5 * error.abs() + error**2)).mean() + penalty


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
def latent_statistics(vae: CausalVae, frames: Frames) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel."""
    device = next(vae.parameters()).device
    sample = frames.sample(np.random.default_rng(2), 2048)
    z = torch.cat([vae.encode_frame(to_tensor(part).to(device)).cpu() for part in np.array_split(sample, 32)])
    return z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).tolist()


def load(path: Path) -> CausalVae:
    saved = torch.load(path, weights_only=True)
    vae = build(saved["mean"], saved["std"], len(saved["mean"]))
    vae.load_state_dict(saved["model"])
    return vae.eval()


# --- fewer channels


@torch.no_grad()
def reduce(codec: Path, out: Path, sample: np.ndarray) -> None:
    """Keeps the CONFIG["z_dim"] principal channels: most of the WIDE ones carry less than the noise of training.

    Both ends of the codec are linear where they meet the latents, so that the change is a product of matrices; only the
    border of the decoder's first convolution is approximate (a constant meets its zero padding).

    Args:
        codec: a trained codec of WIDE channels.
        out: where to write the reduced one.
        sample: uint8 [N, H, W, 3], frames to take the principal directions from.
    """
    wide = load(codec)
    z = torch.cat([wide.encode_frame(to_tensor(p)) for p in np.array_split(sample, max(1, len(sample) // 32))])
    m0, s0 = (v.view(1, -1, 1, 1) for v in (wide.latents_mean, wide.latents_std))
    rows = (z * s0 + m0).permute(0, 2, 3, 1).flatten(0, 2)  # [N*h*w, WIDE]
    m = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((rows - m).T.double()))
    keep = CONFIG["z_dim"]
    std, p = values.flip(0)[:keep].sqrt().float(), vectors.flip(1)[:, :keep].float()
    reduced = _project(wide, p, m)
    torch.save({"model": reduced, "mean": [0.0] * keep, "std": std.tolist(), "directions": p, "centre": m}, out)


def _project(wide: CausalVae, p: torch.Tensor, m: torch.Tensor) -> dict[str, torch.Tensor]:
    """State of the codec whose latents are p^T (latents of `wide` - m); p is [WIDE, channels]."""
    z = p.shape[1]
    state = {k: v.clone() for k, v in wide.state_dict().items()}
    c1, b1 = state["conv1.weight"][:WIDE, :, 0, 0, 0], state["conv1.bias"][:WIDE]
    last, bias = state["encoder.head.2.weight"], state["encoder.head.2.bias"]
    head, offset = last.new_zeros(2 * z, *last.shape[1:]), bias.new_zeros(2 * z)
    head[:z] = torch.einsum("wz,wh,hcijk->zcijk", p, c1, last)
    offset[:z] = p.T @ (c1 @ bias + b1 - m)
    state["encoder.head.2.weight"], state["encoder.head.2.bias"] = head, offset
    state["conv1.weight"], state["conv1.bias"] = torch.eye(2 * z)[:, :, None, None, None], torch.zeros(2 * z)
    c2, b2 = state["conv2.weight"][:, :, 0, 0, 0], state["conv2.bias"]
    first, constant = state["decoder.conv1.weight"], c2 @ m + b2
    shift = torch.linalg.lstsq(c2 @ p, constant[:, None]).solution[:, 0]  # what the kept channels can carry of it
    state["conv2.weight"], state["conv2.bias"] = torch.eye(z)[:, :, None, None, None], shift
    state["decoder.conv1.weight"] = torch.einsum("ocijk,cw,wz->ozijk", first, c2, p)
    rest = constant - c2 @ p @ shift
    state["decoder.conv1.bias"] = state["decoder.conv1.bias"] + first.sum((2, 3, 4)) @ rest
    return state


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
    parts = map(to_tensor, np.array_split(images, 16))
    back = np.concatenate([to_image(vae.decode_frame(vae.encode_frame(p))) for p in parts])
    error = ((back.astype(np.float32) - images) ** 2).mean() / 255**2
    result: dict = {"psnr_db": round(float(-10 * np.log10(error)), 2), "colours": {}}
    real, made = colour_of(images), colour_of(back)
    for index, name in enumerate(COLOURS):
        size = (real == index).sum((1, 2))
        share = ((real == index) & (made == index)).sum((1, 2))[size >= 20] / size[size >= 20]
        result["colours"][name] = {
            "seen": round(float((share >= 0.5).mean()), 3),
            "overlap": round(float(share.mean()), 3),
            "blocks": len(share),
        }
    return result


def encode_all(folder: Path, codec: Path, workers: int) -> None:
    """Writes `latents_NNN.npy` (float16 [frames, z, 4, 6]) for every shard that lacks them."""
    indices = [i for i in data.shards(folder) if not (folder / f"latents_{i:03d}.npy").exists()]
    bar = Progress("latents", len(indices))
    with torch.multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(_encode_shard, [(folder, codec, i) for i in indices]):
            bar.advance()


@torch.no_grad()
def _encode_shard(job: tuple[Path, Path, int]) -> None:
    folder, codec, index = job
    torch.set_num_threads(1)
    vae = load(codec)
    frames = np.load(folder / f"frames_{index:03d}.npy", mmap_mode="r")
    z = [vae.encode_frame(to_tensor(frames[j : j + 32])).half() for j in range(0, len(frames), 32)]
    np.save(folder / f"latents_{index:03d}.tmp.npy", torch.cat(z).numpy())
    os.replace(folder / f"latents_{index:03d}.tmp.npy", folder / f"latents_{index:03d}.npy")


def gate(vae: CausalVae, images: np.ndarray, report: Path, least: float = 0.9) -> dict:
    """Writes the probe's result and stops if a colour is lost: PSNR alone does not see that."""
    result = probe(vae, images)
    report.write_text(json.dumps(result, indent=1))
    lost = [name for name, colour in result["colours"].items() if colour["seen"] < least]
    if lost:
        raise RuntimeError(f"codec.gate: {', '.join(lost)} blocks are seen in fewer than {least:.0%} of the pictures")
    return result
