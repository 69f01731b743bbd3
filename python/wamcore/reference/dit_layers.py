"""Parts of the world action model: rotary positions, attention, the transformer block, action and state maps."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .taps import note


def sinusoid(t, freqs):
    """Angles t * freqs in float64: [..., len(freqs)]."""
    return t.double()[..., None] * freqs.to(t.device)


def time_freqs(dim):
    half = dim // 2
    return torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / half)


def rope_angles(position, dim):
    """Angles of dim/2 pairs for integer positions: float64 [tokens, dim/2]."""
    return torch.outer(position.double(), 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim))


def video_angles(start, frames, height, width, head_dim):
    """Rotary angles of a block of latent frames, time | row | column: float64 [frames*height*width, head_dim/2]."""
    t, h, w = torch.cartesian_prod(torch.arange(start, start + frames), torch.arange(height), torch.arange(width)).mT
    side = 2 * (head_dim // 6)
    return torch.cat([rope_angles(t, head_dim - 2 * side), rope_angles(h, side), rope_angles(w, side)], 1)


def rotate(x, angles):
    """Turn neighbouring pairs of x [B, tokens, heads, head_dim] by angles [tokens, head_dim/2]."""
    cos, sin = (f(angles)[:, None].to(x) for f in (torch.cos, torch.sin))
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def attend(q, k, v, bias=None):
    """Softmax attention over [B, tokens, heads, head_dim]; bias [queries, keys] is added to the logits."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if bias is None:
        out = F.scaled_dot_product_attention(q, k, v)
    else:  # written out: with a mask the fused one is slow to differentiate on a CPU
        out = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + bias, -1) @ v
    return out.transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dim, self.heads = cfg["dim"], cfg["num_heads"]
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = qk_norm(cfg), qk_norm(cfg)  # over the whole width, before the split into heads

    def forward(self, x, angles, cache, num_video, window, bias=None, taps=None):
        """Attend to [remembered | own video] tokens, the last `window` of them, and to own registers."""
        q_out, k_out = note(taps, "self.q_out", self.q(x)), note(taps, "self.k_out", self.k(x))
        q = note(taps, "self.norm_q_out", self.norm_q(q_out)).unflatten(-1, (self.heads, -1))
        k = note(taps, "self.norm_k_out", self.norm_k(k_out)).unflatten(-1, (self.heads, -1))
        v = note(taps, "self.v_out", self.v(x)).unflatten(-1, (self.heads, -1))
        q, k = note(taps, "self.attn_q_roped", rotate(q, angles)), rotate(k, angles)
        past_k, past_v = cache if cache is not None else (k[:, :0], v[:, :0])
        new_k = torch.cat([past_k, k[:, :num_video]], 1)[:, -window:]
        new_v = torch.cat([past_v, v[:, :num_video]], 1)[:, -window:]
        keys = note(taps, "self.attn_k_full", torch.cat([new_k, k[:, num_video:]], 1))
        values = note(taps, "self.attn_v_full", torch.cat([new_v, v[:, num_video:]], 1))
        out = note(taps, "self.attn_out", attend(q, keys, values, bias))
        return note(taps, "self.o_out", self.o(out.flatten(2))), (new_k, new_v)


class CrossAttention(nn.Module):
    """Attention to the text and, separately, to the image tokens; the two results are added."""

    def __init__(self, cfg):
        super().__init__()
        dim, self.heads = cfg["dim"], cfg["num_heads"]
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = qk_norm(cfg), qk_norm(cfg)
        if cfg.get("clip_dim"):
            self.k_img, self.v_img, self.norm_k_img = nn.Linear(dim, dim), nn.Linear(dim, dim), qk_norm(cfg)

    def forward(self, x, text, image, taps=None):
        q = note(taps, "cross.norm_q_out", self.norm_q(note(taps, "cross.q_out", self.q(x))))
        out = self.group(q, text, "", taps)
        if image is not None:
            out = out + self.group(q, image, "_img", taps)
        return note(taps, "cross.out", self.o(note(taps, "cross.attn_sum", out)))

    def group(self, q, rows, suffix, taps):
        k = note(taps, f"cross.k{suffix}_out", getattr(self, f"k{suffix}")(rows))
        k = note(taps, f"cross.norm_k{suffix}_out", getattr(self, f"norm_k{suffix}")(k))
        v = note(taps, f"cross.v{suffix}_out", getattr(self, f"v{suffix}")(rows))
        return attend(*(u.unflatten(-1, (self.heads, -1)) for u in (q, k, v))).flatten(2)


def qk_norm(cfg):
    return nn.RMSNorm(cfg["dim"], cfg["eps"]) if cfg["qk_norm"] else nn.Identity()


class CausalWanAttentionBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        dim, eps = cfg["dim"], cfg["eps"]
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps, elementwise_affine=False) for _ in range(2))
        self.norm3 = nn.LayerNorm(dim, eps) if cfg["cross_attn_norm"] else nn.Identity()
        self.self_attn, self.cross_attn = SelfAttention(cfg), CrossAttention(cfg)
        self.ffn = nn.Sequential(nn.Linear(dim, cfg["ffn_dim"]), nn.GELU("tanh"), nn.Linear(cfg["ffn_dim"], dim))

    def forward(self, x, e0, text, image, attention, taps=None):
        """One block.

        Args:
            x: float [B, N, dim], video tokens first.
            e0: float [B, N, 6, dim], the time of every token.
            text, image: context rows [B, rows, dim]; image may be None.
            attention: keyword arguments of SelfAttention (angles, cache, num_video, window, bias).

        Returns: the new x, and (K, V) of the remembered and the own video tokens.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e0).unbind(2)
        z = note(taps, "norm1_out", self.norm1(x)) * (1 + scale1) + shift1
        out, new_cache = self.self_attn(z, **attention, taps=taps)
        x = x + gate1 * out
        x = x + self.cross_attn(note(taps, "norm3_out", self.norm3(x)), text, image, taps)
        z = note(taps, "norm2_out", self.norm2(x)) * (1 + scale2) + shift2
        z = note(taps, "ffn.gelu_out", self.ffn[1](note(taps, "ffn.0_out", self.ffn[0](z))))
        return x + gate2 * note(taps, "ffn.out", self.ffn[2](z)), new_cache


class Head(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 2, cfg["dim"]) / cfg["dim"] ** 0.5)
        self.norm = nn.LayerNorm(cfg["dim"], cfg["eps"], elementwise_affine=False)
        self.head = nn.Linear(cfg["dim"], cfg["out_dim"] * math.prod(cfg["patch_size"]))

    def forward(self, x, e):
        shift, scale = (self.modulation + e[:, :, None]).unbind(2)
        return self.head(self.norm(x) * (1 + scale) + shift)


class CategoryLinear(nn.Module):
    """A linear map per embodiment; published checkpoints have one, stored [1, in, out]."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.W = nn.Parameter(torch.randn(1, c_in, c_out) / c_in**0.5)
        self.b = nn.Parameter(torch.zeros(1, c_out))

    def forward(self, x):
        return x @ self.W[0] + self.b[0]


class CategoryMlp(nn.Module):
    def __init__(self, c_in, hidden, c_out):
        super().__init__()
        self.layer1, self.layer2 = CategoryLinear(c_in, hidden), CategoryLinear(hidden, c_out)

    def forward(self, x):
        return self.layer2(torch.relu(self.layer1(x)))


class ActionEncoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.W1 = CategoryLinear(cfg["action_dim"], cfg["dim"])
        self.W2 = CategoryLinear(2 * cfg["dim"], cfg["dim"])
        self.W3 = CategoryLinear(cfg["dim"], cfg["dim"])

    def forward(self, action, t):
        a = self.W1(action)
        angle = sinusoid(t, time_freqs(a.shape[-1]))  # sine first here, cosine first for the time of the tokens
        time = torch.cat([angle.sin(), angle.cos()], -1).to(a)
        return self.W3(F.silu(self.W2(torch.cat([a, time], -1))))
