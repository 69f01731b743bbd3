"""Building blocks of the causal video codec: layers that work on a stream of frames and on a single frame alike.

A tensor is [B, C, T, H, W] inside a stream. With `stream=None` it is [B, C, H, W], a first frame on its own: what
precedes it is zeros, so every causal 3-tap convolution in time is a 2-D convolution with its last tap.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Stream(dict):
    """What the codec remembers between groups of frames: module -> last inputs, and the number of groups seen."""

    groups = 0

    @property
    def first(self):
        return self.groups == 0


def is_first(stream):
    return stream is None or stream.first


def per_frame(function, x):
    """Apply a function of [N, C, H, W] to each frame of x."""
    if x.ndim == 4:
        return function(x)
    y = function(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class Streamed(nn.Module):
    """A module called as module(x, stream)."""


def run(layers, x, stream):
    for layer in layers:
        x = layer(x, stream) if isinstance(layer, Streamed) else layer(x)
    return x


class CausalConv3d(Streamed, nn.Conv3d):
    """Convolution that sees only the past: two remembered input frames stand where padding in time would be."""

    def __init__(self, c_in, c_out, kernel=3):
        kt, kh, kw = (kernel,) * 3 if isinstance(kernel, int) else kernel
        super().__init__(c_in, c_out, (kt, kh, kw), padding=(0, kh // 2, kw // 2))

    def forward(self, x, stream):
        if stream is None:
            return F.conv2d(x, self.weight[:, :, -1], self.bias, padding=self.padding[1:])
        if self.kernel_size[0] > 1:
            past = stream.get(self)
            if past is None:
                past = x.new_zeros(*x.shape[:2], self.kernel_size[0] - 1, *x.shape[3:])
            x = torch.cat([past, x], 2)
            stream[self] = x[:, :, 1 - self.kernel_size[0] :]
        return F.conv3d(x, self.weight, self.bias, padding=self.padding)


class ChannelNorm(nn.Module):
    """RMS over the channels of each pixel, times a learned gain ("RMS_norm" upstream)."""

    def __init__(self, dim, axes):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x):
        gamma = self.gamma.view(-1, *[1] * (x.ndim - 2))
        return F.normalize(x, dim=1, eps=1e-12) * x.shape[1] ** 0.5 * gamma


class ResidualBlock(Streamed):
    def __init__(self, c_in, c_out):
        super().__init__()
        first = [ChannelNorm(c_in, 3), nn.SiLU(), CausalConv3d(c_in, c_out)]
        second = [
            ChannelNorm(c_out, 3),
            nn.SiLU(),
            nn.Identity(),
            CausalConv3d(c_out, c_out),
        ]  # identity: a dropout of 0
        self.residual = nn.Sequential(*first, *second)
        self.shortcut = CausalConv3d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x, stream):
        skip = x if self.shortcut is None else self.shortcut(x, stream)
        return skip + run(self.residual, x, stream)


class FrameAttention(nn.Module):
    """One head of attention over the pixels of each frame."""

    def __init__(self, dim):
        super().__init__()
        self.norm = ChannelNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        return x + per_frame(self.attend, x)

    def attend(self, x):
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).mT.chunk(3, -1)  # each [N, H*W, C]
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.proj(out.mT.unflatten(2, x.shape[2:]))


class Downsample(Streamed):
    """Halve the picture and, where `temporal`, the frame rate: the first frame of a stream passes alone."""

    def __init__(self, dim, temporal):
        super().__init__()
        pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.resample = nn.Sequential(pad, nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x, stream):
        x = per_frame(self.resample, x)
        if self.time_conv is None or stream is None:
            return x
        past, stream[self] = stream.get(self), x[:, :, -1:]
        return x if past is None else self.time_conv(torch.cat([past, x], 2))


class Upsample(Streamed):
    """Double the picture and, where `temporal`, the frame rate: the first latent of a stream makes one frame."""

    def __init__(self, c_in, c_out, temporal):
        super().__init__()
        double = nn.Upsample(scale_factor=2, mode="nearest-exact")
        self.resample = nn.Sequential(double, nn.Conv2d(c_in, c_out, 3, padding=1))
        self.time_conv = CausalConv3d(c_in, 2 * c_in, (3, 1, 1)) if temporal else None

    def forward(self, x, stream):
        if self.time_conv is not None and not is_first(stream):
            even, odd = self.time_conv(x, stream).chunk(2, 1)
            x = torch.stack([even, odd], 3).flatten(2, 3)
        return per_frame(self.resample, x)


def divide(who, channels, parts):
    if channels % parts:
        raise ValueError(f"{who}: wanted widths that divide, got {channels} channels for {parts}")
    return channels // parts


class AverageShortcut(Streamed):
    """Fold ft x fs x fs pixels into channels and average groups of them down to c_out ("AvgDown3D")."""

    def __init__(self, c_in, c_out, ft, fs):
        super().__init__()
        self.c_out, self.ft, self.fs = c_out, ft, fs
        divide("AverageShortcut", c_in * ft * fs * fs, c_out)

    def forward(self, x, stream):
        if stream is None:
            return self.forward(x[:, :, None], Stream())[:, :, 0]
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % self.ft, 0))  # a lone first frame is averaged with a zero frame
        b, c, t, h, w = x.shape
        x = x.reshape(b, c, t // self.ft, self.ft, h // self.fs, self.fs, w // self.fs, self.fs)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
        return x.reshape(b, self.c_out, -1, *x.shape[5:]).mean(2)


class RepeatShortcut(Streamed):
    """Repeat channels and unfold them into ft x fs x fs pixels ("DupUp3D")."""

    def __init__(self, c_in, c_out, ft, fs):
        super().__init__()
        self.c_out, self.ft, self.fs = c_out, ft, fs
        self.repeats = divide("RepeatShortcut", c_out * ft * fs * fs, c_in)

    def forward(self, x, stream):
        if stream is None:
            return self.forward(x[:, :, None], Stream())[:, :, 0]
        b, _, t, h, w = x.shape
        x = x.repeat_interleave(self.repeats, 1).reshape(b, self.c_out, self.ft, self.fs, self.fs, t, h, w)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, self.c_out, t * self.ft, h * self.fs, w * self.fs)
        return x[:, :, self.ft - 1 :] if stream.first else x
