"""The model to train: the family's modules, and a faster forward for teacher forcing over their parameters.

The slow, obvious forward is `wamcore.reference`; a test holds the two against each other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from wamcore.reference.dit import CausalWanModel
from wamcore.reference.dit_layers import rope_angles, sinusoid, time_freqs, video_angles
from wamcore.reference.umt5 import UmT5Encoder

from .codec import CONFIG as CODEC

HORIZON = 16  # actions of a block
BLOCKS = 4  # blocks of a window
GRID = (4, 6)  # latent rows and columns
TOKENS = GRID[0] * GRID[1] // 4  # of a latent frame

DIT = {
    "model_type": "ti2v",
    "frame_seqlen": TOKENS,
    "text_len": 16,
    "text_dim": 128,
    "in_dim": CODEC["z_dim"],
    "out_dim": CODEC["z_dim"],
    "dim": 128,
    "ffn_dim": 256,
    "freq_dim": 128,
    "num_heads": 2,
    "num_layers": 4,
    "max_chunk_size": BLOCKS,
    "num_frame_per_block": 2,
    "num_action_per_block": HORIZON,
    "num_state_per_block": 1,
    "action_dim": 4,
    "max_state_dim": 4,
    "hidden_size": 128,
    "eps": 1e-6,
    "concat_first_frame_latent": False,
    "patch_size": [1, 2, 2],
    "clip_dim": None,
    "clip_tokens": 0,
    "qk_norm": True,
    "cross_attn_norm": True,
    "local_attn_size": 9,
}


def text_config(vocab: int) -> dict:
    return {
        "vocab": vocab,
        "dim": 128,
        "dim_attn": 128,
        "dim_ffn": 256,
        "num_heads": 2,
        "num_layers": 2,
        "num_buckets": 32,
        "shared_pos": False,
    }


class SmallWam(nn.Module):
    """Text encoder and transformer, with the parameter names of the family."""

    def __init__(self, vocab: int, cfg: dict = DIT):
        super().__init__()
        self.cfg = cfg
        self.dit, self.text = CausalWanModel(cfg), UmT5Encoder(text_config(vocab))
        self._initialise()
        self._tables()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Residual branches start small and open, outputs start at zero."""
        for block in self.dit.blocks:
            block.modulation.normal_(0, 0.02)
            block.modulation[:, 2::3] += 1  # the gates
            for last in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
                last.weight.normal_(0, 0.02)
                last.bias.zero_()
        self.dit.head.modulation.normal_(0, 0.02)
        for last in (self.dit.time_projection[1], self.dit.head.head):
            last.weight.normal_(0, 0.01)
            last.bias.zero_()
        self.dit.action_decoder.layer2.W.zero_()
        self.text.token_embedding.weight.normal_(0, 0.7)
        for block in self.text.blocks:
            block.pos_embedding.embedding.weight.normal_(0, 0.1)
            block.attn.q.weight.mul_(64**-0.25)  # logits are not scaled
            block.attn.k.weight.mul_(64**-0.25)
            block.attn.o.weight.normal_(0, 0.02)
            block.ffn.fc2.weight.normal_(0, 0.02)

    def _tables(self) -> None:
        """Constant tables of a window: rotary angles, the mask of the clean part, halves before interleaved pairs."""
        cfg, (h, w) = self.cfg, (GRID[0] // 2, GRID[1] // 2)
        head_dim, frames = cfg["dim"] // cfg["num_heads"], 2 * BLOCKS + 1
        clean = video_angles(0, frames - 2, h, w, head_dim)
        noisy = []
        for c in range(BLOCKS):
            steps = torch.arange(c * HORIZON, (c + 1) * HORIZON)
            registers = rope_angles(steps, head_dim), rope_angles(torch.tensor([c]), head_dim)
            noisy.append(torch.cat([video_angles(1 + 2 * c, 2, h, w, head_dim), *registers]))
        self._table("clean_angles", clean)
        self._table("noisy_angles", torch.stack(noisy))
        block = (torch.arange(frames - 2) + 1) // 2
        block = block.repeat_interleave(TOKENS)
        blocked = torch.full((len(block), len(block)), -1e9)
        self._table("clean_bias", blocked.masked_fill(block[None] <= block[:, None], 0.0))
        of_chunk = torch.arange(BLOCKS)[:, None]
        self._table("prefix_bias", torch.full((BLOCKS, len(block)), -1e9).masked_fill(block[None] <= of_chunk, 0.0))
        pairs = torch.arange(cfg["dim"]).view(cfg["num_heads"], head_dim // 2, 2)
        self.register_buffer("halves", pairs.transpose(1, 2).flatten(), persistent=False)
        self.register_buffer("frequencies", time_freqs(cfg["freq_dim"]), persistent=False)
        self.register_buffer("action_frequencies", time_freqs(cfg["dim"]), persistent=False)

    def _table(self, name: str, value: torch.Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    def compile_layers(self) -> None:
        """Compiles the layers; one program serves all but the last."""
        self._block = torch.compile(self._block, dynamic=False)
        self._last_block = torch.compile(self._last_block, dynamic=False)

    def prompts(self, ids: torch.Tensor) -> torch.Tensor:
        """Text rows [B, text_len, text_dim] of token ids [B, text_len]; 0 is padding."""
        return self.text.prompt_embedding(ids, (ids != 0).long())

    def forward(self, clean, noisy, action, state, t_video, t_action, ids):
        """All blocks of a window at once, each as inference sees it: clean frames before it, itself, nothing else.

        Args:
            clean: float [B, 7, z, 4, 6], the frames that blocks look back at.
            noisy: float [B, C, 2, z, 4, 6].
            action: float [B, C, 16, action_dim], noisy.
            state: float [B, C, max_state_dim].
            t_video, t_action: [B, C], 0..999.
            ids: int64 [B, text_len].

        Returns: velocities of the video [B, C, 2, z, 4, 6] and of the actions [B, C, 16, action_dim].
        """
        dit, batch, chunks = self.dit, noisy.shape[0], noisy.shape[1]
        text = dit.text_embedding(self.prompts(ids))
        x = self._patches(clean.flatten(0, 1)).unflatten(0, (batch, -1)).flatten(1, 2)
        video = self._patches(noisy.flatten(0, 2)).unflatten(0, (batch * chunks, -1)).flatten(1, 2)
        registers = self._actions(action.flatten(0, 1), t_action.flatten()), dit.state_encoder(state.reshape(-1, 1, 4))
        y = torch.cat([video, *registers], 1)
        times = torch.stack([t_video.flatten(), t_action.flatten()], 1)  # [B*C, 2]
        e, e0 = self._time(times)
        _, zero = self._time(times.new_zeros(1))
        for block in dit.blocks[:-1]:
            x, y = self._block(block, x, y, zero, e0, text)
        y = self._last_block(dit.blocks[-1], x, y, zero, e0, text)
        shift, scale = (dit.head.modulation + e[:, :1]).unsqueeze(2).unbind(1)
        video = F.layer_norm(y[:, : 2 * TOKENS], y.shape[-1:], eps=self.cfg["eps"]) * (1 + scale) + shift
        video = dit.unpatchify(dit.head.head(video), (2, GRID[0] // 2, GRID[1] // 2)).transpose(1, 2)
        return video.unflatten(0, (batch, chunks)), dit.action_decoder(y[:, 2 * TOKENS : -1]).unflatten(
            0, (batch, chunks)
        )

    def _patches(self, x):
        weight = self.dit.patch_embedding.weight
        folded = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return F.linear(folded, weight.flatten(1), self.dit.patch_embedding.bias)

    def _actions(self, action, t):
        angle = sinusoid(t, self.action_frequencies)
        time = torch.cat([angle.sin(), angle.cos()], -1).to(action)
        encoder = self.dit.action_encoder
        half = encoder.W2.W.shape[1] // 2
        time = time @ encoder.W2.W[0, half:] + encoder.W2.b[0]  # [B*C, dim]: alike for all actions of a block
        return encoder.W3(F.silu(encoder.W1(action) @ encoder.W2.W[0, :half] + time[:, None]))

    def _time(self, t):
        angle = sinusoid(t, self.frequencies)
        e = self.dit.time_embedding(torch.cat([angle.cos(), angle.sin()], -1).float())
        return e, self.dit.time_projection(e).unflatten(-1, (6, -1))

    def _block(self, block, x, y, zero, e0, text):
        """One layer over the clean tokens x [B, 42, dim] and the blocks y [B*C, 29, dim]."""
        m = block.modulation[0]
        mx = (m + zero[0]).unbind(0)  # six of [dim]
        my = (m + e0).unbind(2)  # six of [B*C, 2, dim]
        eps, width = self.cfg["eps"], x.shape[-1:]
        zx = F.layer_norm(x, width, 1 + mx[1], mx[0], eps)
        zy = modulate(F.layer_norm(y, width, eps=eps), my[0], my[1])
        ax, ay = self._self_attention(block.self_attn, zx, zy)
        x, y = x + ax * mx[2], gated(y, ay, my[2])
        text = self._text_rows(block.cross_attn, text)
        x = x + self._cross_attention(block.cross_attn, block.norm3(x), *text)
        y = y + self._cross_attention(block.cross_attn, block.norm3(y), *text)
        zx = F.layer_norm(x, width, 1 + mx[4], mx[3], eps)
        zy = modulate(F.layer_norm(y, width, eps=eps), my[3], my[4])
        return x + block.ffn(zx) * mx[5], gated(y, block.ffn(zy), my[5])

    def _last_block(self, block, x, y, zero, e0, text):
        """As _block, without what only later layers would read: of the clean tokens keys and values are enough."""
        m = block.modulation[0]
        my = (m + e0).unbind(2)
        eps, width = self.cfg["eps"], x.shape[-1:]
        zx = F.layer_norm(x, width, 1 + m[1] + zero[0, 1], m[0] + zero[0, 0], eps)
        zy = modulate(F.layer_norm(y, width, eps=eps), my[0], my[1])
        _, ay = self._self_attention(block.self_attn, zx, zy, last=True)
        y = gated(y, ay, my[2])
        y = y + self._cross_attention(block.cross_attn, block.norm3(y), *self._text_rows(block.cross_attn, text))
        zy = modulate(F.layer_norm(y, width, eps=eps), my[3], my[4])
        return gated(y, block.ffn(zy), my[5])

    def _self_attention(self, attention, x, y, last=False):
        heads, chunks = attention.heads, len(self.prefix_bias)
        norm_q, norm_k = attention.norm_q.weight[self.halves], attention.norm_k.weight[self.halves]
        weight = torch.cat([attention.q.weight[self.halves], attention.k.weight[self.halves], attention.v.weight])
        bias = torch.cat([attention.q.bias[self.halves], attention.k.bias[self.halves], attention.v.bias])

        def project(z, angles):
            q, k, v = F.linear(z, weight, bias).chunk(3, -1)
            q, k = rms(q, norm_q, self.cfg["eps"]), rms(k, norm_k, self.cfg["eps"])
            return (*(turn(u.unflatten(-1, (heads, -1)), angles) for u in (q, k)), v.unflatten(-1, (heads, -1)))

        qx, kx, vx = (u.transpose(1, 2) for u in project(x, self.clean_angles[:, None]))  # [B, heads, 42, head_dim]
        y = y.unflatten(0, (-1, chunks))
        # [B, C, heads, 29, head_dim]
        qy, ky, vy = (u.transpose(2, 3) for u in project(y, self.noisy_angles[:, :, None]))
        root = 1 / math.sqrt(qx.shape[-1])
        own = qy @ ky.mT * root
        q = qy.transpose(1, 2).flatten(2, 3)  # [B, heads, C*29, head_dim]: all blocks look at one set of clean keys
        prefix = (q @ kx.mT * root).unflatten(2, (chunks, -1)) + self.prefix_bias[:, None]
        weights = torch.softmax(torch.cat([prefix.transpose(1, 2), own], -1), -1)
        n = kx.shape[2]
        past = weights[..., :n].transpose(1, 2).flatten(2, 3) @ vx
        ay = past.unflatten(2, (chunks, -1)).transpose(1, 2) + weights[..., n:] @ vy
        ay = attention.o(ay.transpose(2, 3).flatten(3)).flatten(0, 1)
        if last:
            return None, ay
        ax = torch.softmax(qx @ kx.mT * root + self.clean_bias, -1) @ vx
        return attention.o(ax.transpose(1, 2).flatten(2)), ay

    def _text_rows(self, attention, text):
        k = rms(attention.k(text), attention.norm_k.weight, self.cfg["eps"])
        return [u.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for u in (k, attention.v(text))]

    def _cross_attention(self, attention, x, k, v):
        """x is [B, rows, dim] or [B*C, rows, dim]: all rows of a window read the same text k, v [B, heads, 16, ...]."""
        q = rms(attention.q(x), attention.norm_q.weight, self.cfg["eps"]).reshape(len(k), -1, x.shape[-1])
        q = q.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        out = torch.softmax(q @ k.mT * (1 / math.sqrt(q.shape[-1])), -1) @ v
        return attention.o(out.transpose(1, 2).reshape(x.shape))


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Written out: its derivative is cheaper than that of the composite function."""
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Shift and scale [N, 2, dim], one row for the video and one for the registers of x [N, 29, dim]."""
    n = 2 * TOKENS
    video = torch.addcmul(shift[:, :1], x[:, :n], 1 + scale[:, :1])
    return torch.cat([video, torch.addcmul(shift[:, 1:], x[:, n:], 1 + scale[:, 1:])], 1)


def gated(x: torch.Tensor, branch: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """x + branch * gate, with a gate row for the video and one for the registers."""
    n = 2 * TOKENS
    video = torch.addcmul(x[:, :n], branch[:, :n], gate[:, :1])
    return torch.cat([video, torch.addcmul(x[:, n:], branch[:, n:], gate[:, 1:])], 1)


def turn(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary positions on halves: x [..., head_dim], angles [..., head_dim / 2]."""
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
