"""The causal video autoencoder of Wan 2.1 and Wan 2.2 (upstream "VideoVAE_" and "VideoVAE38_").

A config with `patch_size` is the 2.2 kind: pixels unshuffled first, a parameter-free shortcut around every stage.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from .taps import note
from .vae_constants import LATENTS_MEAN, LATENTS_STD
from .vae_layers import (
    AverageShortcut,
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    RepeatShortcut,
    ResidualBlock,
    Stream,
    Streamed,
    Upsample,
    per_frame,
    run,
)


def middle(dim):
    return nn.Sequential(ResidualBlock(dim, dim), FrameAttention(dim), ResidualBlock(dim, dim))


def head(dim, c_out):
    return nn.Sequential(ChannelNorm(dim, 3), nn.SiLU(), CausalConv3d(dim, c_out))


class Stage(Streamed):
    """A level of the 2.2 codec: its layers plus a shortcut around all of them (None: no shortcut)."""

    def __init__(self, name, layers, shortcut):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Sequential(*layers))
        self.around = shortcut

    def forward(self, x, stream):
        y = run(getattr(self, self.name), x, stream)
        return y if self.around is None else y + self.around(x, stream)


class Encoder(Streamed):
    def __init__(self, cfg):
        super().__init__()
        wan22, patch, blocks = cfg.get("patch_size") is not None, cfg.get("patch_size") or 1, cfg["num_res_blocks"]
        widths = [cfg["dim"] * m for m in [1, *cfg["dim_mult"]]]
        self.conv1 = CausalConv3d(3 * patch**2, widths[0])
        levels = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            down = i < len(cfg["dim_mult"]) - 1
            temporal = down and cfg["temporal_downsample"][i]
            layers = [ResidualBlock(c_in if j == 0 else c_out, c_out) for j in range(blocks)]
            layers += [Downsample(c_out, temporal)] if down else []
            if wan22:
                layers = [Stage("downsamples", layers, AverageShortcut(c_in, c_out, 1 + temporal, 1 + down))]
            levels += layers
        self.downsamples = nn.Sequential(*levels)
        self.middle = middle(widths[-1])
        self.head = head(widths[-1], 2 * cfg["z_dim"])

    def forward(self, x, stream, taps=None, chunk=0):
        x = self.conv1(x, stream)
        for part in ("downsamples", "middle"):
            x = tapped(self, part, x, stream, taps, f"enc.{part}.{{}}.chunk{chunk}")
        return run(self.head, x, stream)


class Decoder(Streamed):
    def __init__(self, cfg):
        super().__init__()
        wan22, patch, blocks = cfg.get("patch_size") is not None, cfg.get("patch_size") or 1, cfg["num_res_blocks"]
        base = cfg.get("dec_dim") or cfg["dim"]
        widths = [base * m for m in [cfg["dim_mult"][-1], *cfg["dim_mult"][::-1]]]
        self.conv1 = CausalConv3d(cfg["z_dim"], widths[0])
        self.middle = middle(widths[0])
        levels = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            up = i < len(cfg["dim_mult"]) - 1
            temporal = up and cfg["temporal_downsample"][::-1][i]
            enter = c_in // 2 if i > 0 and not wan22 else c_in  # 2.1 halves the channels as it enlarges the picture
            layers = [ResidualBlock(enter if j == 0 else c_out, c_out) for j in range(blocks + 1)]
            layers += [Upsample(c_out, c_out if wan22 else c_out // 2, temporal)] if up else []
            if wan22:
                layers = [Stage("upsamples", layers, RepeatShortcut(c_in, c_out, 1 + temporal, 2) if up else None)]
            levels += layers
        self.upsamples = nn.Sequential(*levels)
        self.head = head(widths[-1], 3 * patch**2)

    def forward(self, z, stream, taps=None, chunk=0):
        x = self.conv1(z, stream)
        for part in ("middle", "upsamples"):
            x = tapped(self, part, x, stream, taps, f"dec.{part}.{{}}.chunk{chunk}")
        return run(self.head, x, stream)


def tapped(module, part, x, stream, taps, name):
    for i, layer in enumerate(getattr(module, part)):
        x = note(taps, name.format(i), run([layer], x, stream))
    return x


class CausalVae(nn.Module):
    """Turns video into normalised latents and back, causally in time.

    Args:
        cfg: dict of dim, z_dim, dim_mult, num_res_blocks, temporal_downsample (one bool per level but the last);
            optional: dec_dim (decoder width), patch_size (its presence selects the 2.2 layout), latents_mean and
            latents_std [z_dim] (default: the published values for z_dim 16 and 48).

    Raises:
        ValueError: z_dim has no published statistics and the config gives none; or the widths of neighbouring levels
            do not divide, which the shortcuts of the 2.2 layout need.
    """

    def __init__(self, cfg):
        super().__init__()
        z = cfg["z_dim"]
        self.patch = cfg.get("patch_size") or 1
        self.temporal_stride = 2 ** sum(map(bool, cfg["temporal_downsample"]))
        self.spatial_stride = self.patch * 2 ** (len(cfg["dim_mult"]) - 1)
        for name, published in (("latents_mean", LATENTS_MEAN), ("latents_std", LATENTS_STD)):
            values = cfg.get(name) or published.get(z)
            if values is None or len(values) != z:
                raise ValueError(f"CausalVae: wanted {z} numbers in {name}, got {values}")
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.encoder, self.decoder = Encoder(cfg), Decoder(cfg)
        self.conv1, self.conv2 = CausalConv3d(2 * z, 2 * z, 1), CausalConv3d(z, z, 1)

    def statistics(self, x):
        shape = (1, -1, *[1] * (x.ndim - 2))
        return self.latents_mean.view(shape), self.latents_std.view(shape)

    def encode_group(self, frames, stream, taps=None):
        """Encode the next group of a stream: 1 frame the first time, then temporal_stride frames.

        Args:
            frames: [B, 3, T, H, W] in [-1, 1]; or [B, 3, H, W] with stream=None.
            stream: a Stream, which is updated, or None.
            taps: optional dict that receives the value after every layer.
        """
        chunk = stream.groups if stream is not None else 0
        # the column offset is the slower of the two in the channel order, hence the transposes
        x = per_frame(lambda v: F.pixel_unshuffle(v.mT, self.patch).mT, frames)
        x = self.encoder(x, stream, taps, chunk)
        note(taps, f"encoder_out_chunk{chunk}", x)
        mean, std = self.statistics(x)
        latent = (self.conv1(x, stream).chunk(2, 1)[0] - mean) / std  # the log-variance is not used
        if stream is not None:
            stream.groups += 1
        return latent

    def decode_latent(self, latent, stream, taps=None):
        """Decode the next latent frame of a stream, not clamped: 1 frame the first time, then temporal_stride.

        Args:
            latent: [B, z_dim, 1, h, w]; or [B, z_dim, h, w] with stream=None.
        """
        chunk = stream.groups if stream is not None else 0
        mean, std = self.statistics(latent)
        x = self.decoder(self.conv2(latent * std + mean, stream), stream, taps, chunk)
        if stream is not None:
            stream.groups += 1
        return per_frame(lambda v: F.pixel_shuffle(v.mT, self.patch).mT, x)

    def encode(self, video, taps=None):
        """Encode a video from its start; trailing frames that fill no group are dropped.

        Args:
            video: [B, 3, T, H, W] in [-1, 1].

        Returns: normalised latents [B, z_dim, 1 + (T-1) // temporal_stride, H / spatial_stride, W / spatial_stride].
        """
        stream, ts = Stream(), self.temporal_stride
        groups = [video[:, :, :1]]
        groups += [video[:, :, 1 + ts * j : 1 + ts * (j + 1)] for j in range((video.shape[2] - 1) // ts)]
        return torch.cat([self.encode_group(g, stream, taps) for g in groups], 2)

    def decode(self, latents, clamp=True, taps=None):
        """Decode latents [B, z_dim, F, h, w] to video [B, 3, 1 + (F-1) * temporal_stride, H, W] in [-1, 1]."""
        stream = Stream()
        frames = torch.cat([self.decode_latent(z, stream, taps) for z in latents.split(1, 2)], 2)
        return frames.clamp(-1, 1) if clamp else frames

    def encode_frame(self, image):
        """Encode independent images as first frames, with 2-D convolutions only: [B, 3, H, W] -> [B, z_dim, h, w]."""
        return self.encode_group(image, None)

    def decode_frame(self, latent):
        """Decode independent latents as first frames, not clamped: [B, z_dim, h, w] -> [B, 3, H, W]."""
        return self.decode_latent(latent, None)

    @torch.no_grad()
    def zero_past_taps(self):
        """Clear every temporal tap but the last, so that a stream treats each frame exactly as a single one."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                module.weight[:, :, :-1] = 0


def published_config(version):
    """The config of the released codec, version "2.1" or "2.2"."""
    if version not in ("2.1", "2.2"):
        raise ValueError(f"published_config: wanted version 2.1 or 2.2, got {version!r}")
    shared = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temporal_downsample": [False, True, True]}
    if version == "2.1":
        return {"dim": 96, "z_dim": 16, **shared}
    return {"dim": 160, "dec_dim": 256, "z_dim": 48, "patch_size": 2, **shared}
