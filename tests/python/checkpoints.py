"""Writes checkpoint folders for tests: golden weights, or small random ones, in the layout the runtime loads."""

import json
from pathlib import Path

import golden
import numpy as np
from safetensors.numpy import save_file

PREFIX = {
    "dit": "action_head.model.",
    "t5": "action_head.text_encoder.",
    "vae": "action_head.vae.model.",
    "clip": "action_head.image_encoder.model.",
}


def config(dit, t5, clip, vae, **head):
    """config.json of a DreamZero checkpoint."""
    sample = {
        "num_inference_steps": 16,
        "sigma_shift": 5.0,
        "solver": "unipc",
        "cfg_scale": 5.0,
        "dit_step_mask": None,
        "dynamic_cache_schedule": False,
        "decouple_inference_noise": False,
        "video_inference_final_noise": 0.8,
        "target_video_hw": [None, None],
        "num_frames": 33,
        "seed": 1140,
    }
    assert not head.keys() - sample.keys(), head.keys() - sample.keys()
    parts = {"diffusion_model_cfg": dit, "text_encoder_cfg": t5, "image_encoder_cfg": clip, "vae_cfg": vae}
    return {
        "model_type": "dreamzero",
        "action_horizon": dit["num_action_per_block"],
        "action_dim": dit["action_dim"],
        "action_head_cfg": {"config": {**parts, **sample, **head}},
    }


def embodiment(height, width, state_dim, action_dim):
    """One camera whose pictures go to the codec as they are, nothing normalised."""
    return {
        "name": "test",
        "control_hz": 10.0,
        "cameras": [{"name": "image", "height": height, "width": width}],
        "composition": "single",
        "crop_scale": 1.0,
        "view_hw": [height, width],
        "frame_offsets": [0],
        "state": [{"key": "joint", "dim": state_dim, "mode": "none"}],
        "action": [{"key": "joint", "dim": action_dim, "mode": "none", "relative": False, "per_horizon": False}],
        "joints": [],
        "prompt_template": "{}",
    }


def write(folder, config, embodiment, weights):
    """weights: {"dit" | "t5" | "vae" | "clip": {name: array}}."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "embodiment.json").write_text(json.dumps(embodiment))
    tensors = {PREFIX[part] + k: np.ascontiguousarray(v) for part, w in weights.items() for k, v in w.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_golden(folder, case):
    """The folder of the golden model that a head case runs."""
    cfg, tensors = case.config, case.tensors()
    vae = "vae21" if "wan21" in case.name else "vae22"
    dit = "dit_i2v_weights" if "wan21" in case.name else "dit_ti2v_weights"
    vae_cfg = {"version": "2.1" if vae == "vae21" else "2.2", **golden.case(f"{vae}_enc_weights").config}
    head = {k: cfg[k] for k in ("num_inference_steps", "sigma_shift", "cfg_scale", "num_frames", "target_video_hw")}
    head |= {k: cfg[k] for k in ("dynamic_cache_schedule", "decouple_inference_noise", "video_inference_final_noise")}
    height, width = tensors["call0.images"].shape[2:4]
    weights = {
        "dit": golden.weights(dit),
        "t5": golden.weights("t5_weights"),
        "clip": golden.weights("clip_weights"),
        "vae": golden.weights(f"{vae}_enc_weights") | golden.weights(f"{vae}_dec_weights"),
    }
    return write(
        folder,
        config(cfg["dit"], cfg["t5"], cfg["clip"], vae_cfg, **head),
        embodiment(height, width, cfg["dit"]["max_state_dim"], cfg["dit"]["action_dim"]),
        weights,
    )
