"""config.json as the runtime reads it, from the one that an upstream DreamZero checkpoint carries.

Upstream's file describes training as well as the model, leaves sizes to the defaults of its classes, and keeps the
sampler's constants in code. Ours holds exactly what inference needs. So every field of theirs is in one of the tables
below: kept, without meaning for inference and dropped, or needed at one value. Any other field is an error.
"""

import difflib
from dataclasses import dataclass, field

from . import ConfigError

MODEL_TYPE = "vla"  # what upstream's config.json calls itself
REQUIRED = object()


@dataclass(frozen=True)
class Table:
    """What is known of one section."""

    kept: dict  # name -> default of upstream's class, or REQUIRED
    dropped: str = ""  # names without meaning for inference
    only: dict = field(default_factory=dict)  # name -> the only value that the runtime computes; dropped, too
    classes: tuple = ()  # upstream's names for what `_target_` makes


TOP = Table(
    kept={"action_horizon": REQUIRED, "action_dim": REQUIRED, "action_head_cfg": REQUIRED},
    only={"model_type": MODEL_TYPE},
    dropped="""_name_or_path architectures auto_map backbone_cfg compute_dtype dtype hidden_size model_dtype
    torch_dtype transformers_version""",
)
HEAD = Table(kept={"config": REQUIRED}, dropped="_convert_", classes=("WANPolicyHead",))
POLICY = Table(
    kept={
        "diffusion_model_cfg": REQUIRED,
        "text_encoder_cfg": REQUIRED,
        "image_encoder_cfg": REQUIRED,
        "vae_cfg": REQUIRED,
        "num_frames": REQUIRED,
        "target_video_height": None,
        "target_video_width": None,
        "decouple_inference_noise": False,
        "video_inference_final_noise": 0.8,
    },
    only={"tiled": False},
    classes=("WANPolicyHeadConfig",),
    dropped="""_convert_ _recursive_
    tile_size_height tile_size_width tile_stride_height tile_stride_width
    lora_rank lora_alpha lora_target_modules init_lora_weights train_architecture defer_lora_injection
    skip_component_loading load_pretrained_det_decode_layer_path freeze_decode_layer
    use_gradient_checkpointing tune_projector tune_diffusion_model model_dtype
    add_pos_embed hidden_size input_embedding_dim backbone_embedding_dim backbone_features_projector_cfg max_seq_len
    max_num_embodiments action_loss_embodiment_ids
    repa_layer repa_coeff detection_coeff expand_batch use_vlln vl_self_attention_cfg qformer_cfg
    noise_beta_alpha noise_beta_beta noise_s num_timestep_buckets num_inference_timesteps
    decouple_video_action_noise video_noise_beta_alpha video_noise_beta_beta
    use_high_noise_emphasis high_noise_beta_alpha
    action_dim action_horizon max_action_dim max_state_dim num_frame_per_block""",
)
DIT = Table(
    kept={
        "model_type": REQUIRED,
        "frame_seqlen": REQUIRED,
        "text_len": 512,
        "text_dim": 4096,
        "in_dim": REQUIRED,
        "out_dim": REQUIRED,
        "dim": REQUIRED,
        "ffn_dim": REQUIRED,
        "freq_dim": 256,
        "num_heads": REQUIRED,
        "num_layers": REQUIRED,
        "max_chunk_size": REQUIRED,
        "num_frame_per_block": REQUIRED,
        "num_action_per_block": REQUIRED,
        "num_state_per_block": REQUIRED,
        "action_dim": 32,
        "max_state_dim": 64,
        "hidden_size": 1024,
        "eps": 1e-6,
        "concat_first_frame_latent": True,
        "patch_size": [1, 2, 2],
        "qk_norm": True,
        "cross_attn_norm": True,
    },
    only={"sink_size": 0},
    classes=("CausalWanModel",),
    dropped="_convert_ diffusion_model_pretrained_path num_registers max_num_embodiments",
)
TEXT = Table(
    kept={
        "vocab": 256384,
        "dim": 4096,
        "dim_attn": 4096,
        "dim_ffn": 10240,
        "num_heads": 64,
        "num_layers": 24,
        "num_buckets": 32,
        "shared_pos": False,
    },
    classes=("WanTextEncoder",),
    dropped="_convert_ dropout text_encoder_pretrained_path",
)
IMAGE = Table(
    kept={
        "embed_dim": 1024,
        "image_size": 224,
        "patch_size": 14,
        "vision_dim": 1280,
        "vision_mlp_ratio": 4,
        "vision_heads": 16,
        "vision_layers": 32,
    },
    classes=("WanImageEncoder",),
    dropped="_convert_ image_encoder_pretrained_path",
)
_VAE = {"num_res_blocks": 2, "dim_mult": [1, 2, 4, 4], "temporal_downsample": [False, True, True]}
VAES = {  # by the class that `_target_` names
    "WanVideoVAE": ("2.1", {"dim": 96, "z_dim": 16, **_VAE}),
    "WanVideoVAE38": ("2.2", {"dim": 160, "dec_dim": 256, "z_dim": 48, "patch_size": 2, **_VAE}),
}
# What upstream's code holds and no file says: 8 of 16 steps run the model, the seed is the same for every chunk.
SAMPLER = {
    "num_inference_steps": 16,
    "sigma_shift": 5.0,
    "solver": "unipc",
    "cfg_scale": 5.0,
    "dit_step_mask": [step in (0, 1, 2, 6, 10, 13, 14, 15) for step in range(16)],
    "dynamic_cache_schedule": False,
    "seed": 1140,
}
SMALL_FRAMES, SMALL_TARGET = (50, 55), [176, 320]  # tokens of a frame for which upstream resizes without being told


def runtime_config(upstream: dict) -> tuple[dict, list[str]]:
    """The config.json that the runtime reads, and a line for every section of which something was dropped.

    Args:
        upstream: the content of a config.json whose model_type is "vla".

    Raises:
        ConfigError: a field is unknown, missing, or asks for what the runtime does not compute.
    """
    notes: list[str] = []
    top = _read(TOP, upstream, "", notes)
    backbone = _target(upstream.get("backbone_cfg") or {}, "backbone_cfg")
    if backbone not in (None, "IdentityBackbone"):
        raise ConfigError(
            f"config.json: backbone_cfg: wanted an IdentityBackbone, which has no weights, got {backbone}"
        )
    head = _read(HEAD, top.pop("action_head_cfg"), "action_head_cfg", notes)
    where = "action_head_cfg.config"
    written = head["config"]
    policy = _read(POLICY, written, where, notes)
    parts = {
        name: _read(table, policy.pop(name), f"{where}.{name}", notes)
        for name, table in (("diffusion_model_cfg", DIT), ("text_encoder_cfg", TEXT), ("image_encoder_cfg", IMAGE))
    }
    dit, image = parts["diffusion_model_cfg"], parts["image_encoder_cfg"]
    parts["vae_cfg"] = _vae(policy.pop("vae_cfg"), f"{where}.vae_cfg", notes)
    _agree(written, {**top, **dit, "max_action_dim": dit["action_dim"]}, where)
    tokens = 1 + (image["image_size"] // image["patch_size"]) ** 2
    if dit["max_chunk_size"] < 1:
        raise ConfigError(
            f"config.json: {where}.diffusion_model_cfg.max_chunk_size: wanted at least 1, got "
            f"{dit['max_chunk_size']}: a model without a window has no memory, which is not supported"
        )
    window = dit["max_chunk_size"] * dit["num_frame_per_block"] + 1
    dit |= {"clip_dim": image["vision_dim"], "clip_tokens": tokens, "local_attn_size": window}
    target = [policy.pop("target_video_height"), policy.pop("target_video_width")]
    if target == [None, None] and dit["frame_seqlen"] in SMALL_FRAMES:
        target = SMALL_TARGET
    config = {**parts, **policy, **SAMPLER, "target_video_hw": target}
    return {"model_type": "dreamzero", **top, "action_head_cfg": {"config": config}}, notes


def _read(table: Table, section: object, where: str, notes: list[str]) -> dict:
    """The kept fields of a section; what is dropped goes into a note."""
    name = where or "the top level"
    if not isinstance(section, dict):
        raise ConfigError(f"config.json: {name}: wanted an object, got {type(section).__name__}")
    dropped = table.dropped.split()
    known = {*table.kept, *table.only, *dropped, *(("_target_",) if table.classes else ())}
    for key in section.keys() - known:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "if inference does not need it, remove it from config.json"
        raise ConfigError(f"config.json: {name}: unknown field {key!r}; {hint}")
    for key, value in table.only.items():
        if section.get(key, value) != value:
            raise ConfigError(f"config.json: {name}: {key} wanted {value!r}, got {section[key]!r}")
    made = _target(section, name)
    if table.classes and made not in (None, *table.classes):
        raise ConfigError(f"config.json: {name}: wanted a {' or '.join(table.classes)}, got {made}")
    for key in table.kept:
        if table.kept[key] is REQUIRED and key not in section:
            raise ConfigError(f"config.json: {name}: missing field {key!r}")
    gone = [key for key in section if key in dropped]
    if gone:
        notes.append(f"config.json: not needed for inference, dropped from {name}: {', '.join(gone)}")
    return {key: section.get(key, default) for key, default in table.kept.items()}


def _target(section: dict, name: str) -> str | None:
    """The class that a section makes, without its module."""
    made = section.get("_target_") if isinstance(section, dict) else section
    if made is not None and not isinstance(made, str):
        raise ConfigError(f"config.json: {name}: wanted the name of a class in _target_, got {made!r}")
    return None if made is None else made.rsplit(".", 1)[-1]


def _vae(section: object, where: str, notes: list[str]) -> dict:
    """The codec's class says which of the two it is."""
    made = _target(section, where) if isinstance(section, dict) else None
    if made not in VAES:
        raise ConfigError(f"config.json: {where}: wanted a _target_ of {' or '.join(VAES)}, got {made}")
    version, kept = VAES[made]
    own = {name: section[name] for name in ("latents_mean", "latents_std") if name in section}
    table = Table({**kept, **own}, "_convert_ vae_pretrained_path", classes=(made,))
    return {"version": version, **_read(table, section, where, notes)}


def _agree(written: dict, model: dict, where: str) -> None:
    """Fields that upstream's file repeats must say the same each time."""
    for key in ("action_dim", "action_horizon", "max_action_dim", "max_state_dim", "num_frame_per_block"):
        if written.get(key) is not None and written[key] != model[key]:
            raise ConfigError(f"config.json: {where}: {key} is {written[key]!r}, but the model has {model[key]!r}")
