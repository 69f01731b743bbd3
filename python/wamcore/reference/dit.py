"""The world action model of DreamZero ("CausalWanModel"): video, action and state tokens in one transformer."""

import torch
from torch import nn

from .dit_layers import (
    ActionEncoder,
    CategoryMlp,
    CausalWanAttentionBlock,
    Head,
    rope_angles,
    sinusoid,
    time_freqs,
    video_angles,
)
from .taps import note

FRAMES_WITHOUT_WINDOW = 21  # keys kept when local_attn_size is -1


def teacher_forcing_mask(frames, tokens, cfg):
    """Who sees whom in training: bool [N, N] over [clean frames | noisy frames | actions | states].

    Frame 0 is block 0, the following frames are blocks of num_frame_per_block, each with its actions and states.
    Clean sees clean up to its own block. Noisy video and actions see clean *before* their block and everything noisy
    in it. A state sees itself only, although inference lets it see everything.
    """
    f = cfg["num_frame_per_block"]
    blocks = (frames - 1) // f
    frame_block = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(1, blocks + 1).repeat_interleave(f)])
    action_block = torch.arange(1, blocks + 1).repeat_interleave(cfg["num_action_per_block"])
    state_block = torch.arange(1, blocks + 1).repeat_interleave(cfg["num_state_per_block"])
    video = frame_block.repeat_interleave(tokens)
    block = torch.cat([video, video, action_block, state_block])
    clean, state = torch.zeros_like(block, dtype=torch.bool), torch.zeros_like(block, dtype=torch.bool)
    clean[: len(video)] = True
    state[len(block) - len(state_block) :] = True
    q, k = block[:, None], block[None]
    from_clean = clean & (k <= q)
    from_noisy = (clean & (k < q)) | (~clean & (k == q))
    from_state = state & (k == q)
    return torch.where(clean[:, None], from_clean, torch.where(state[:, None], from_state, from_noisy))


class CausalWanModel(nn.Module):
    """Predicts the flow velocity (noise minus clean) of video latents and actions.

    Args:
        cfg: dict with the field names of the golden manifest. `concat_first_frame_latent` tells the i2v kind (input
            concatenated with y) from the ti2v kind; `clip_dim: None` leaves out everything that reads image tokens.
    """

    def __init__(self, cfg):
        super().__init__()
        self.cfg, dim = dict(cfg), cfg["dim"]
        window = FRAMES_WITHOUT_WINDOW if cfg["local_attn_size"] == -1 else cfg["local_attn_size"]
        self.window = window * cfg["frame_seqlen"]  # tokens
        patch = tuple(cfg["patch_size"])
        self.patch_embedding = nn.Conv3d(cfg["in_dim"], dim, patch, stride=patch)
        self.text_embedding = nn.Sequential(nn.Linear(cfg["text_dim"], dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(cfg["freq_dim"], dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        if cfg.get("clip_dim"):
            clip = cfg["clip_dim"]
            proj = [nn.LayerNorm(clip), nn.Linear(clip, clip), nn.GELU(), nn.Linear(clip, dim), nn.LayerNorm(dim)]
            self.img_emb = nn.ModuleDict({"proj": nn.Sequential(*proj)})
        self.blocks = nn.ModuleList(CausalWanAttentionBlock(cfg) for _ in range(cfg["num_layers"]))
        self.head = Head(cfg)
        self.action_encoder = ActionEncoder(cfg)
        self.state_encoder = CategoryMlp(cfg["max_state_dim"], cfg["hidden_size"], dim)
        self.action_decoder = CategoryMlp(dim, cfg["hidden_size"], cfg["action_dim"])

    def forward(
        self, x, t, text, clip, cache, start_frame, y=None, action=None, t_action=None, state=None, *, taps=None
    ):
        """One pass over a block of latent frames, with what is remembered of the frames before it.

        Args:
            x: float [B, C, F, H, W], latents.
            t: [B, F], timestep of each frame, 0..999; 0 for clean frames.
            text: float [B, text_len, text_dim].
            clip: float [B, clip_tokens, clip_dim], or None without image tokens.
            cache: list of (K, V) per layer, each [B, tokens, heads, head_dim], from earlier passes; None if empty.
            start_frame: index of the first frame of x inside the context window.
            y: float [B, 20, F, H, W], conditioning channels of the i2v kind.
            action: float [B, num_action_per_block, action_dim], noisy; None for a pass that only remembers.
            t_action: [B, num_action_per_block].
            state: float [B, num_state_per_block, max_state_dim].
            taps: optional dict that receives intermediate values.

        Returns: video velocity [B, out_dim, F, H, W], action velocity or None, and the new cache. Keep the new cache
            only if x was clean.
        """
        tokens, grid = self.embed_video(x, y, taps)
        num_video, head_dim = tokens.shape[1], self.cfg["dim"] // self.cfg["num_heads"]
        angles, times = video_angles(start_frame, *grid, head_dim), [t]
        if action is not None:
            block = (start_frame - 1) // self.cfg["num_frame_per_block"]
            tokens = torch.cat([tokens, *self.embed_registers(action, t_action, state, taps)], 1)
            angles = torch.cat([angles, *self.register_angles(block, action.shape[1], state.shape[1])])
            times += [t_action, t_action[:, :: action.shape[1] // state.shape[1]]]
        e, e0 = self.embed_time(torch.cat(times, 1), grid[0], num_video, taps)
        attention = {"angles": angles.to(x.device), "num_video": num_video, "window": self.window}
        tokens, new_cache = self.run_blocks(tokens, e0, self.embed_context(text, clip, taps), attention, cache, taps)
        video = note(taps, "head", self.head(tokens[:, :num_video], e[:, :num_video]))
        velocity = None if action is None else self.action_decoder(tokens[:, num_video:][:, : action.shape[1]])
        return self.unpatchify(video, grid), velocity, new_cache

    def forward_train(self, clean_x, noisy_x, t, text, clip, action, t_action, state, y=None, *, taps=None):
        """Teacher forcing: all blocks of a window at once, each seeing clean video only before it.

        Args:
            clean_x, noisy_x: float [B, C, 1 + blocks * num_frame_per_block, H, W].
            t: [B, frames], timestep of each noisy frame.
            action, t_action, state: float [B, blocks * per block, ...], blocks one after the other.
            (the rest as in forward)

        Returns: video velocity of all frames, action velocity of all blocks.

        Raises:
            ValueError: the video does not fit in the attention window, or is not whole blocks.
        """
        frames, f = clean_x.shape[2], self.cfg["num_frame_per_block"]
        if (frames - 1) % f or not 1 < frames <= self.window // self.cfg["frame_seqlen"]:
            limit = self.window // self.cfg["frame_seqlen"]
            raise ValueError(f"forward_train: wanted 1 + k*{f} <= {limit} latent frames, got {frames}")
        clean, grid = self.embed_video(clean_x, y)
        noisy, _ = self.embed_video(noisy_x, y)
        registers = self.embed_registers(action, t_action, state)
        tokens = torch.cat([clean, noisy, *registers], 1)
        video = video_angles(0, *grid, self.cfg["dim"] // self.cfg["num_heads"])
        angles = torch.cat([video, video, *self.register_angles(0, action.shape[1], state.shape[1])])
        t_state = t_action[:, :: action.shape[1] // state.shape[1]]
        times = torch.cat([torch.zeros_like(t), t, t_action, t_state], 1)
        n = clean.shape[1]
        e, e0 = self.embed_time(times, 2 * frames, 2 * n)
        mask = teacher_forcing_mask(frames, n // frames, self.cfg).to(tokens.device)
        bias = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, float("-inf"))
        attention = {"angles": angles.to(tokens.device), "num_video": 2 * n, "window": 2 * n, "bias": bias}
        tokens, _ = self.run_blocks(tokens, e0, self.embed_context(text, clip), attention, None, taps)
        velocity = self.unpatchify(self.head(tokens[:, n : 2 * n], e[:, n : 2 * n]), grid)
        return velocity, self.action_decoder(tokens[:, 2 * n :][:, : action.shape[1]])

    def embed_video(self, x, y, taps=None):
        """Latents to tokens [B, frames*height*width, dim], and (frames, height, width)."""
        if self.cfg["concat_first_frame_latent"]:
            x = torch.cat([x, y], 1)
        x = note(taps, "patch_embedding", self.patch_embedding(x))
        return x.flatten(2).mT, tuple(x.shape[2:])

    def embed_registers(self, action, t_action, state, taps=None):
        return (
            note(taps, "action_encoder", self.action_encoder(action, t_action)),
            note(taps, "state_encoder", self.state_encoder(state)),
        )

    def register_angles(self, block, actions, states):
        """Actions and states count on from block to block, each kind for itself."""
        head_dim = self.cfg["dim"] // self.cfg["num_heads"]
        return tuple(rope_angles(torch.arange(block * n, (block + 1) * n), head_dim) for n in (actions, states))

    def embed_time(self, times, frames, num_video, taps=None):
        """Time of every token from one timestep per frame (the first `frames`) and one per register."""
        angle = sinusoid(times, time_freqs(self.cfg["freq_dim"]))
        e = self.time_embedding(torch.cat([angle.cos(), angle.sin()], -1).to(self.head.modulation.dtype))
        e0 = self.time_projection(e)
        rows = torch.arange(frames).repeat_interleave(num_video // frames)
        rows = torch.cat([rows, torch.arange(frames, times.shape[1])]).to(times.device)
        e, e0 = e.index_select(1, rows), note(taps, "e0_flat", e0.index_select(1, rows))
        note(taps, "e", e.flatten(0, 1))
        return e, e0.unflatten(2, (6, -1))

    def embed_context(self, text, clip, taps=None):
        """Text rows, padding included, and image rows (None without CLIP)."""
        text = note(taps, "text_embedding", self.text_embedding(text))
        if not self.cfg.get("clip_dim"):
            return text, None
        return text, note(taps, "img_emb", self.img_emb["proj"](clip))

    def run_blocks(self, x, e0, context, attention, cache, taps=None):
        new_cache = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, e0, *context, {**attention, "cache": cache[i] if cache else None})
            new_cache.append(kv)
            note(taps, f"block{i}", x)
        return x, new_cache

    def unpatchify(self, tokens, grid):
        """[B, frames*h*w, patch*out_dim], channel fastest -> [B, out_dim, frames, H, W]."""
        (f, h, w), (pt, ph, pw) = grid, self.cfg["patch_size"]
        x = tokens.reshape(-1, f, h, w, pt, ph, pw, self.cfg["out_dim"]).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(-1, self.cfg["out_dim"], f * pt, h * ph, w * pw)
