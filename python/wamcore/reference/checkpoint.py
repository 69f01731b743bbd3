"""Reads a checkpoint directory into the reference."""

import json
from pathlib import Path

from safetensors.torch import load_file

from .clip import ClipVision
from .dit import CausalWanModel
from .head import ReferenceHead
from .umt5 import UmT5Encoder
from .vae import CausalVae, published_config

# where the parts are: key of the config, class, prefix of the tensor names
PARTS = {
    "dit": ("diffusion_model_cfg", CausalWanModel, "action_head.model."),
    "vae": ("vae_cfg", CausalVae, "action_head.vae.model."),
    "t5": ("text_encoder_cfg", UmT5Encoder, "action_head.text_encoder."),
    "clip": ("image_encoder_cfg", ClipVision, "action_head.image_encoder.model."),
}


def load_checkpoint(directory):
    """The closed loop of a checkpoint, in float32 on the CPU.

    Args:
        directory: holds config.json and one or more *.safetensors.

    Raises:
        RuntimeError: a tensor is missing, unexpected or of another shape.
    """
    directory = Path(directory)
    cfg = json.loads((directory / "config.json").read_text())["action_head_cfg"]["config"]
    tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    parts = {}
    for name, (key, kind, prefix) in PARTS.items():
        if cfg.get(key) is None:
            continue
        part = cfg[key]
        if kind is CausalVae and "dim" not in part:  # only the version is named
            part = {**part, **published_config(part["version"])}
        parts[name] = kind(part).eval()
        parts[name].load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        parts[name].float()
    return ReferenceHead(**parts, options=cfg)
