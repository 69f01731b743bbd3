"""The CLIP vision transformer of the image condition: all blocks but the last, no norm or projection after them."""

import torch
import torch.nn.functional as F
from torch import nn

from .taps import note

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(image, size):
    """Stretch to size x size and normalise; bicubic, not antialiased, overshoot kept.

    Args:
        image: float [B, 3, H, W] in [-1, 1].
    """
    x = F.interpolate(image, (size, size), mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (u.unflatten(-1, (self.heads, -1)).transpose(1, 2) for u in self.to_qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dim, hidden = cfg["vision_dim"], cfg["vision_dim"] * cfg["vision_mlp_ratio"]
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, cfg["vision_heads"])
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dim, patch = cfg["vision_dim"], cfg["patch_size"]
        self.size = cfg["image_size"]
        self.patch_embedding = nn.Conv2d(3, dim, patch, stride=patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.randn(1, 1, dim) / dim**0.5)
        self.pos_embedding = nn.Parameter(torch.randn(1, 1 + (self.size // patch) ** 2, dim) / dim**0.5)
        self.pre_norm = nn.LayerNorm(dim)
        self.transformer = nn.Sequential(*(Block(cfg) for _ in range(cfg["vision_layers"])))
        # the rest is in the published files but not used
        self.post_norm = nn.LayerNorm(dim)
        self.head = nn.Parameter(torch.randn(dim, cfg["embed_dim"]) / dim**0.5)

    def forward(self, pixels, taps=None):
        x = self.patch_embedding(pixels).flatten(2).mT
        x = torch.cat([self.cls_embedding.expand(len(x), -1, -1), x], 1)
        x = note(taps, "pre_norm", self.pre_norm(x + self.pos_embedding))
        for i, block in enumerate(self.transformer[:-1]):
            x = note(taps, f"block{i}", block(x))
        return x


class ClipVision(nn.Module):
    """Image features: one class token, then the patches row by row.

    Args:
        cfg: dict of image_size, patch_size, vision_dim, vision_mlp_ratio, vision_heads, vision_layers, embed_dim.
    """

    def __init__(self, cfg):
        super().__init__()
        self.visual = VisionTransformer(cfg)
        self.log_scale = nn.Parameter(torch.zeros(()))  # not used

    def forward(self, image, taps=None):
        """Features [B, 1 + patches, vision_dim] of an image [B, 3, H, W] in [-1, 1]."""
        return self.visual(note(taps, "pixels", clip_pixels(image, self.visual.size)), taps)
