"""Models of any size without a checkpoint: configuration from the table of cases, weights drawn at random. Picture,
text and image encoders are as small as can be; no chunk's time has them in it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from wamcore import _core

from .cases import MODELS, TABLE


def load(name: str, device: str, threads: int | None, dtype: str):
    """A wamcore.Model with the sizes of `name` in the table. Raises ConfigError, DeviceError."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config(name)))
        Path(folder, "embodiment.json").write_text(json.dumps(embodiment(name)))
        return _core.components.synthetic_model(folder, device=device, threads=threads, dtype=dtype)


def config(name: str) -> dict:
    """config.json, in the layout of a released checkpoint."""
    s, more = MODELS[name], TABLE["synthetic"][name]
    conditioned, image = more["model_type"] == "i2v", more["clip"] if s.image else None
    dit = {
        "model_type": more["model_type"],
        "frame_seqlen": s.frame_tokens,
        "text_len": s.text,
        "text_dim": more["text_dim"],
        "in_dim": 2 * s.latent_channels + 4 if conditioned else s.latent_channels,
        "out_dim": s.latent_channels,
        "dim": s.width,
        "ffn_dim": s.ffn,
        "freq_dim": 256,
        "num_heads": s.heads,
        "num_layers": s.layers,
        "max_chunk_size": 4,
        "num_frame_per_block": s.block_frames,
        "num_action_per_block": s.actions,
        "num_state_per_block": s.states,
        "action_dim": s.action_dim,
        "max_state_dim": more["max_state_dim"],
        "hidden_size": more["hidden_size"],
        "eps": 1e-6,
        "concat_first_frame_latent": conditioned,
        "patch_size": [1, 2, 2],
        "clip_dim": image["vision_dim"] if image else None,
        "clip_tokens": s.image,
        "qk_norm": True,
        "cross_attn_norm": True,
        "local_attn_size": 1 + 4 * s.block_frames,
    }
    text = {"vocab": 8, "dim": more["text_dim"], "dim_attn": 8, "dim_ffn": 8, "num_heads": 1, "num_layers": 1}
    codec = {"z_dim": s.latent_channels, "dim": 2, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, **more["vae"]}
    codec |= {"latents_mean": [0.0] * s.latent_channels, "latents_std": [1.0] * s.latent_channels}
    sample = {
        "num_inference_steps": 16,
        "sigma_shift": 5.0,
        "solver": "unipc",
        "cfg_scale": 1.0,
        "dit_step_mask": None,
        "dynamic_cache_schedule": False,
        "decouple_inference_noise": False,
        "video_inference_final_noise": 0.8,
        "target_video_hw": [None, None],
        "num_frames": 33,
        "seed": 1140,
    }
    parts = {
        "diffusion_model_cfg": dit,
        "text_encoder_cfg": {**text, "num_buckets": 32, "shared_pos": False},
        "image_encoder_cfg": image,
        "vae_cfg": codec,
    }
    top = {"model_type": "dreamzero", "action_horizon": s.actions, "action_dim": s.action_dim}
    return {**top, "action_head_cfg": {"config": {**parts, **sample}}}


def embodiment(name: str) -> dict:
    """A robot whose one camera sees what the codec wants."""
    s, more = MODELS[name], TABLE["synthetic"][name]
    height, width = (n * more["pixels_per_latent"] for n in s.grid)
    plain = {"key": "joint", "mode": "none"}
    return {
        "name": name,
        "control_hz": 15.0,
        "cameras": [{"name": "image", "height": height, "width": width}],
        "composition": "single",
        "crop_scale": 1.0,
        "view_hw": [height, width],
        "frame_offsets": [-1, 0],
        "state": [{**plain, "dim": more["max_state_dim"]}],
        "action": [{**plain, "dim": s.action_dim, "relative": False, "per_horizon": False}],
        "joints": [],
        "prompt_template": "{}",
    }
