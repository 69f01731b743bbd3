"""Writes a checkpoint directory in the layout of the family."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from wamcore.reference.vae import CausalVae
from wamcore.sim import Tabletop, scene

from .codec import CONFIG as CODEC
from .model import HORIZON, SmallWam, text_config
from .text import tokenizer_json, vocabulary
from .windows import Statistics

SOLVER = {"num_inference_steps": 4, "sigma_shift": 5.0, "solver": "unipc"}
PREFIXES = ("action_head.model.", "action_head.text_encoder.", "action_head.vae.model.")


def export(out: Path, wam: SmallWam, vae: CausalVae, statistics: Statistics, dtype=torch.bfloat16) -> None:
    """Writes weights, config, embodiment and tokenizer into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for prefix, module in zip(PREFIXES, (wam.dit, wam.text, vae), strict=True):
        tensors |= {prefix + name: value.detach().to(dtype).contiguous() for name, value in module.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    mean, std = (v.tolist() for v in (vae.latents_mean, vae.latents_std))
    _write(out / "config.json", config(wam, mean, std))
    _write(out / "embodiment.json", embodiment(statistics))
    _write(out / "tokenizer.json", tokenizer_json())


def config(wam: SmallWam, mean: list[float], std: list[float]) -> dict:
    head = {
        "diffusion_model_cfg": wam.cfg,
        "text_encoder_cfg": text_config(len(vocabulary())),
        "image_encoder_cfg": None,
        "vae_cfg": {"version": "2.2", **CODEC, "latents_mean": _short(mean), "latents_std": _short(std)},
        **SOLVER,
        "cfg_scale": 1.0,
        "dit_step_mask": None,
        "dynamic_cache_schedule": False,
        "decouple_inference_noise": False,
        "video_inference_final_noise": 0.8,
        "target_video_hw": [None, None],
        "num_frames": 9,
        "seed": 1140,
    }
    return {
        "model_type": "dreamzero",
        "action_horizon": HORIZON,
        "action_dim": 4,
        "action_head_cfg": {"config": head},
    }


def embodiment(statistics: Statistics) -> dict:
    return {
        "name": "tabletop",
        "control_hz": Tabletop.control_hz,
        "cameras": [{"name": "scene", "height": 64, "width": 96}],
        "composition": "single",
        "crop_scale": 1.0,
        "view_hw": [64, 96],
        "frame_offsets": [-8, 0],
        "state": [
            {
                "key": "joint_position",
                "dim": 4,
                "mode": "q99",
                "statistics": {"q01": _short(statistics.state_low), "q99": _short(statistics.state_high)},
            }
        ],
        "action": [
            {
                "key": "joint_position",
                "dim": 4,
                "mode": "q99",
                "relative": True,
                "per_horizon": True,
                "statistics": {"q01": _short(statistics.action_low), "q99": _short(statistics.action_high)},
            }
        ],
        "joints": [
            {
                "name": name,
                "position_min": scene.POSITION_MIN[i],
                "position_max": scene.POSITION_MAX[i],
                "velocity_max": scene.VELOCITY_MAX[i],
                "acceleration_max": scene.ACCELERATION_MAX[i],
            }
            for i, name in enumerate(scene.JOINTS)
        ],
        "prompt_template": "{}",
    }


def _short(values):
    """Numbers as nested lists with six significant digits."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    return [_short(v) for v in values] if isinstance(values, list) else float(f"{values:.6g}")


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
