"""The umT5 text encoder: pre-norm, no bias in any linear map, a table of relative positions in every layer."""

import math

import torch
from torch import nn

from .taps import note

EPS = 1e-6
EXACT_DISTANCES = 8  # distances below this have a bucket each
MAX_DISTANCE = 128  # from here on all distances share the last bucket


def relative_buckets(distance, num_buckets=32):
    """Bucket of each distance: half of them for keys at or before the query, half for keys after it.

    Args:
        distance: int64, any shape, key position minus query position.
    """
    half = num_buckets // 2
    far = torch.log(distance.abs().clamp(min=1).double() / EXACT_DISTANCES) / math.log(MAX_DISTANCE / EXACT_DISTANCES)
    far = EXACT_DISTANCES + (far * (half - EXACT_DISTANCES)).long()  # .long() truncates
    near = torch.where(distance.abs() < EXACT_DISTANCES, distance.abs(), far.clamp(max=half - 1))
    return near + half * (distance > 0)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.heads = cfg["num_heads"]
        self.q, self.k, self.v = (nn.Linear(cfg["dim"], cfg["dim_attn"], bias=False) for _ in range(3))
        self.o = nn.Linear(cfg["dim_attn"], cfg["dim"], bias=False)

    def forward(self, x, bias):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.mT + bias, -1)  # T5 does not scale by 1/sqrt(head_dim)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(cfg["dim"], cfg["dim_ffn"], bias=False), nn.GELU("tanh"))
        self.fc1 = nn.Linear(cfg["dim"], cfg["dim_ffn"], bias=False)
        self.fc2 = nn.Linear(cfg["dim_ffn"], cfg["dim"], bias=False)

    def forward(self, x):
        return self.fc2(self.fc1(x) * self.gate(x))


class RelativePosition(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.embedding = nn.Embedding(cfg["num_buckets"], cfg["num_heads"])

    def forward(self, length):
        position = torch.arange(length, device=self.embedding.weight.device)
        buckets = relative_buckets(position[None] - position[:, None], self.embedding.num_embeddings)
        return self.embedding(buckets).permute(2, 0, 1)[None]  # [1, heads, query, key]


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(cfg["dim"], EPS), nn.RMSNorm(cfg["dim"], EPS)
        self.attn, self.ffn = Attention(cfg), GatedFeedForward(cfg)
        self.pos_embedding = RelativePosition(cfg)

    def forward(self, x, mask, taps=None, name=""):
        bias = note(taps, f"{name}.pos_bias", self.pos_embedding(x.shape[1]))
        blocked = bias.masked_fill(mask[:, None, None] == 0, torch.finfo(x.dtype).min)
        x = x + note(taps, f"{name}.attn", self.attn(self.norm1(x), blocked))
        x = x + note(taps, f"{name}.ffn", self.ffn(self.norm2(x)))
        return note(taps, name, x)


class UmT5Encoder(nn.Module):
    """Encodes token ids.

    Args:
        cfg: dict of vocab, dim, dim_attn, dim_ffn, num_heads, num_layers, num_buckets.

    Raises:
        ValueError: the config asks for one position table shared by all layers.
    """

    def __init__(self, cfg):
        super().__init__()
        if cfg.get("shared_pos"):
            raise ValueError("UmT5Encoder: wanted a position table in every layer (shared_pos false), got true")
        self.token_embedding = nn.Embedding(cfg["vocab"], cfg["dim"])
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg["num_layers"]))
        self.norm = nn.RMSNorm(cfg["dim"], EPS)

    def forward(self, ids, mask, taps=None):
        """Hidden states of all rows, padding included: float [B, L, dim].

        Args:
            ids: int64 [B, L], padded with anything.
            mask: int or bool [B, L], 1 for real tokens.
            taps: optional dict that receives the values of every block.
        """
        x = self.token_embedding(ids)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, taps, f"block{i}")
        return self.norm(x)

    def prompt_embedding(self, ids, mask):
        """What the world model takes as text: forward() with the rows past each prompt set to zero."""
        return self(ids, mask) * mask[..., None].to(self.norm.weight.dtype)
