"""An upstream DreamZero checkpoint, converted, loads and runs; its config.json is accounted for field by field."""

import copy
import json
import random

import checkpoints
import golden
import numpy as np
import pytest
import wamcore as wam
from wamcore import ConfigError, _convert_worker
from wamcore import convert as convert_module
from wamcore._core import components
from wamcore.convert import convert, main
from wamcore.upstream_config import runtime_config

torch = pytest.importorskip("torch", reason="converting needs torch")
pytest.importorskip("yaml", reason="conf.yaml needs PyYAML")
from safetensors.torch import save_file  # noqa: E402
from test_upstream_embodiment import conf_of, metadata_of  # noqa: E402
from test_upstream_embodiment import write as write_experiment  # noqa: E402
from wamcore.reference.clip import ClipVision  # noqa: E402
from wamcore.reference.dit import CausalWanModel  # noqa: E402
from wamcore.reference.umt5 import UmT5Encoder  # noqa: E402
from wamcore.reference.vae import CausalVae  # noqa: E402

CAMERAS = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
CAMERA = (36, 40)  # pixels
DIT = {
    "frame_seqlen": 8,
    "text_len": 6,
    "text_dim": 12,
    "dim": 24,
    "ffn_dim": 20,
    "freq_dim": 8,
    "num_heads": 2,
    "num_layers": 2,
    "max_chunk_size": 2,
    "num_frame_per_block": 2,
    "num_action_per_block": 5,
    "num_state_per_block": 1,
    "hidden_size": 10,
    "eps": 1e-6,
}
KINDS = {  # what differs between the two releases
    "i2v": {"model_type": "i2v", "in_dim": 36, "out_dim": 16},
    "ti2v": {"model_type": "ti2v", "in_dim": 48, "out_dim": 48, "concat_first_frame_latent": False, "frame_seqlen": 2},
}
TEXT = {"vocab": 30, "dim": 12, "dim_attn": 8, "dim_ffn": 10, "num_heads": 2, "num_layers": 1}
IMAGE = {"embed_dim": 3, "image_size": 12, "patch_size": 6, "vision_dim": 8, "vision_mlp_ratio": 2}
IMAGE |= {"vision_heads": 2, "vision_layers": 2}
MODULES = "groot.vla.model.dreamzero."


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Importing torch once a conversion is slow; test_convert.py starts the real process."""
    monkeypatch.setattr(convert_module, "_spawn", _convert_worker.serve)


def upstream(kind: str) -> dict:
    """config.json as upstream writes it, of a small model."""
    codec = {"i2v": "WanVideoVAE", "ti2v": "WanVideoVAE38"}[kind]
    sizes = {} if kind == "i2v" else {"target_video_height": 32, "target_video_width": 64}

    def part(target: str, path: str, **fields) -> dict:
        return {"_target_": f"{MODULES}modules.{target}", "_convert_": "object", path: None, **fields}

    config = {
        "_target_": f"{MODULES}action_head.wan_flow_matching_action_tf.WANPolicyHeadConfig",
        "_recursive_": False,
        "tiled": False,
        "tile_size_height": 34,
        "lora_rank": 4,
        "lora_alpha": 4,
        "train_architecture": "full",
        "num_frames": 17,
        "num_frame_per_block": 2,
        "max_state_dim": 64,
        "max_action_dim": 32,
        "action_loss_embodiment_ids": [26, 17, 32],
        "hidden_size": 64,
        "vl_self_attention_cfg": {"_target_": "x.SelfAttentionTransformer", "num_layers": 4},
        "diffusion_model_cfg": part("wan_dit.CausalWanModel", "diffusion_model_pretrained_path", **DIT | KINDS[kind]),
        "text_encoder_cfg": part("wan_text.WanTextEncoder", "text_encoder_pretrained_path", **TEXT),
        "image_encoder_cfg": part("wan_image.WanImageEncoder", "image_encoder_pretrained_path", **IMAGE),
        "vae_cfg": part(f"wan_vae.{codec}", "vae_pretrained_path", dim=4),
        "action_dim": 32,
        "action_horizon": 5,
        "num_inference_timesteps": 4,
        "decouple_video_action_noise": False,
        **sizes,
    }
    if kind == "ti2v":
        config["vae_cfg"] |= {"dec_dim": 4}
    return {
        "architectures": ["VLA"],
        "transformers_version": "4.51.3",
        "torch_dtype": "bfloat16",
        "model_type": "vla",
        "model_dtype": "float32",
        "hidden_size": 0,
        "action_horizon": 5,
        "action_dim": 32,
        "backbone_cfg": {"_target_": f"{MODULES}backbone.identity.IdentityBackbone"},
        "action_head_cfg": {"_target_": f"{MODULES}action_head.WANPolicyHead", "_convert_": "object", "config": config},
    }


def ours(kind: str) -> dict:
    """The config.json that the conversion must come to, written down independently."""
    dit = {**DIT, "text_dim": 12, "action_dim": 32, "max_state_dim": 64, "concat_first_frame_latent": True}
    dit |= {**KINDS[kind], "patch_size": [1, 2, 2], "qk_norm": True, "cross_attn_norm": True}
    dit |= {"clip_dim": 8, "clip_tokens": 5, "local_attn_size": 5}
    levels = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temporal_downsample": [False, True, True]}
    vae = {"version": "2.1", "dim": 4, "z_dim": 16, **levels}
    if kind == "ti2v":
        vae = {"version": "2.2", "dim": 4, "dec_dim": 4, "z_dim": 48, "patch_size": 2, **levels}
    target = [32, 64] if kind == "ti2v" else [None, None]
    mask = [True] * 3 + [False] * 3 + [True] + [False] * 3 + [True] + [False] * 2 + [True] * 3
    text = {**TEXT, "num_buckets": 32, "shared_pos": False}
    return checkpoints.config(dit, text, IMAGE, vae, target_video_hw=target, num_frames=17, dit_step_mask=mask)


def weights(config: dict) -> dict:
    """Random tensors under upstream's names, as the released files have them: bf16."""
    parts = config["action_head_cfg"]["config"]
    made = {
        "dit": CausalWanModel(parts["diffusion_model_cfg"]),
        "t5": UmT5Encoder(parts["text_encoder_cfg"]),
        "clip": ClipVision(parts["image_encoder_cfg"]),
        "vae": CausalVae(parts["vae_cfg"]),
    }
    return {
        checkpoints.PREFIX[part] + name: (value + 0.05 * torch.randn_like(value)).bfloat16()
        for part, module in made.items()
        for name, value in module.state_dict().items()
    }


def experiment(folder, size=(32, 64)):
    """experiment_cfg of a DROID robot with small cameras, whose composed picture has this size."""
    metadata, conf = metadata_of("oxe_droid"), conf_of("oxe_droid")
    for video in metadata["oxe_droid"]["modalities"]["video"].values():
        video["resolution"] = [CAMERA[1], CAMERA[0]]
    conf["transforms"]["oxe_droid"]["transforms"][2] |= {"height": size[0] // 2, "width": size[1] // 2}
    return write_experiment(folder, metadata, conf)


def joints(folder, count=8):
    """Limits as the owner of a robot would give them."""
    numbers = {"position_min": -2.0, "position_max": 2.0, "velocity_max": 1.0, "acceleration_max": 5.0}
    path = folder / "joints.json"
    path.write_text(json.dumps({"joints": [{"name": f"j{i}", **numbers} for i in range(count)]}))
    return path


def release(folder, kind, tensors, form):
    """A checkpoint folder as upstream has it: safetensors shards with their index, or one PyTorch file."""
    experiment(folder)
    (folder / "config.json").write_text(json.dumps(upstream(kind)))
    if form == "pt":
        torch.save(tensors, folder / "checkpoint.pt")
        return folder
    shards = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(shards.values()):
        save_file({n: t.contiguous() for n, t in tensors.items() if shards[n] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def chunks(folder, seed):
    """Two chunks of a model on made-up pictures, and the latents of the last."""
    model = wam.load(folder, threads=1, check_finite=True)
    session = wam.Session(model, steps=3)
    session.set_prompt_tokens([3, 5, 1], [7, 1])
    rng = np.random.default_rng(seed)
    size = model.embodiment.cameras[0][1:]
    out = []
    for frames in (1, 4):
        pictures = {name: rng.integers(0, 256, (frames, *size, 3), np.uint8) for name in CAMERAS}
        out.append(session.infer(wam.Observation(pictures, rng.normal(size=8))).q.copy())
    return [*out, session.predicted_latents()]


@pytest.mark.parametrize(("kind", "form"), [("i2v", "shards"), ("i2v", "pt"), ("ti2v", "shards")])
def test_a_release_converts_loads_and_runs(tmp_path, kind, form):
    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)
    torch.manual_seed(seed)
    tensors, lines = weights(ours(kind)), []
    source = release(tmp_path / "in", kind, tensors, form)
    limits = joints(tmp_path)
    done = convert(source, tmp_path / "out", embodiment="oxe_droid", joints=limits, report=lines.append)
    assert json.loads((done.path / "config.json").read_text()) == ours(kind)
    assert any(
        "dropped from action_head_cfg.config: _recursive_, tile_size_height, lora_rank" in line for line in lines
    )
    assert "embodiment.json describes oxe_droid, with 8 joints" in lines

    robot = json.loads((done.path / "embodiment.json").read_text())
    by_hand = checkpoints.write(tmp_path / "by hand", ours(kind), robot, {})
    save_file({n: t.float().contiguous() for n, t in tensors.items()}, by_hand / "model.safetensors")
    for got, want in zip(chunks(done.path, seed), chunks(by_hand, seed), strict=True):
        np.testing.assert_array_equal(got, want)
        assert np.isfinite(got).all() and got.std() > 0
    model = wam.load(done.path, threads=1)
    assert model.embodiment.joint_names == [f"j{i}" for i in range(8)]
    wam.SafetyFilter(model.embodiment.limits, horizon=5)


def test_without_limits_the_model_runs_but_no_robot_accepts_it(tmp_path):
    source = release(tmp_path / "in", "ti2v", weights(ours("ti2v")), "shards")
    lines = []
    done = convert(source, tmp_path / "out", embodiment="oxe_droid", report=lines.append)
    assert "embodiment.json describes oxe_droid, with no joint limits: give --joints before driving it" in lines
    model = wam.load(done.path, threads=1)
    assert model.embodiment.limits.names == [] and len(chunks(done.path, 0)) == 3
    robot = wam.MockHal(joints=[f"j{i}" for i in range(8)])
    session = wam.Session(model, steps=1)
    for runner in (wam.Runner, wam.VirtualRunner):
        with pytest.raises(ConfigError, match=r"no joints given.*whoever owns the robot must say"):
            runner(session, robot, model.embodiment.limits)


def test_limits_must_fit_the_robot(tmp_path, capsys):
    source = release(tmp_path / "in", "ti2v", {"a": torch.zeros(1)}, "shards")
    robot = ["--embodiment", "oxe_droid", "--embodiment-only"]

    def refused(*options: str) -> str:
        assert main([str(source), str(tmp_path / "out"), *options]) == 1
        return capsys.readouterr().err

    limits = joints(tmp_path, 7)
    assert "wanted a list of 8 joints, for joint_position[0], " in refused(*robot, "--joints", str(limits))
    limits.write_text('{"joints": [], "more": 1}')
    assert "wanted nothing but 'joints', got ['more']" in refused(*robot, "--joints", str(limits))
    joint = {"name": "j", "position_min": 1.0, "position_max": -1.0, "velocity_max": 1.0, "acceleration_max": 1.0}
    limits.write_text(json.dumps({"joints": [joint | {"name": f"j{i}"} for i in range(8)]}))
    assert "position_min of joint 'j0'" in refused(*robot, "--joints", str(limits))
    assert "joints wants an embodiment" in refused("--joints", str(limits))


def test_what_is_missing_is_said(tmp_path):
    source, lines = release(tmp_path / "in", "i2v", {"a": torch.zeros(1)}, "pt"), []
    convert(source, tmp_path / "out", report=lines.append)
    assert "no embodiment.json is written: --embodiment oxe_droid writes one" in lines
    with pytest.raises(ConfigError, match=r"embodiment\.json"):
        wam.load(tmp_path / "out")


@pytest.mark.parametrize("release", ["14b", "5b"])
def test_sizes_that_upstream_leaves_to_its_code_are_those_of_the_release(release):
    """A config that says no more than the released ones do asks for the tensors of the released files."""
    kind = {"14b": "i2v", "5b": "ti2v"}[release]
    sizes = {"14b": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "frame_seqlen": 880}}
    sizes["5b"] = {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "frame_seqlen": 50}
    blocks = {"max_chunk_size": 4, "num_frame_per_block": 2, "num_action_per_block": 24, "num_state_per_block": 1}
    config = upstream(kind)
    policy = config["action_head_cfg"]["config"]
    policy["diffusion_model_cfg"] = {"_target_": "x.CausalWanModel", **KINDS[kind], **sizes[release], **blocks}
    policy |= {"text_encoder_cfg": {"_target_": "x.WanTextEncoder"}, "action_horizon": 24}
    policy |= {"image_encoder_cfg": {"_target_": "x.WanImageEncoder"}}
    config["action_horizon"] = 24
    rewritten, _ = runtime_config(config)
    parts = rewritten["action_head_cfg"]["config"]
    assert (parts["diffusion_model_cfg"]["local_attn_size"], parts["diffusion_model_cfg"]["clip_tokens"]) == (9, 257)
    grid = {"14b": (44, 80), "5b": (10, 20)}[release]
    asked = {
        f"dit_{release}": components.Dit.keys(json.dumps(parts["diffusion_model_cfg"]), grid),
        "t5": components.TextEncoder.keys(json.dumps(parts["text_encoder_cfg"])),
        "clip": components.ClipVision.keys(json.dumps(parts["image_encoder_cfg"])),
    }
    for name, keys in asked.items():
        table = next(
            (f.parent / "keys" / f"{name}.json" for f in golden.folders() if (f.parent / "keys").is_dir()), None
        )
        if table is None:
            golden.skip("no tables of published tensors")
        assert {key: list(shape) for key, shape, *_ in keys} == json.loads(table.read_text())


HEAD = ("action_head_cfg", "config")
DIFFUSION = (*HEAD, "diffusion_model_cfg")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("extra",), 1, "the top level: unknown field 'extra'; if inference does not need it, remove it"),
        (("action_dims",), 1, "unknown field 'action_dims'; did you mean 'action_dim'?"),
        ((*HEAD, "tile"), 1, "action_head_cfg.config: unknown field 'tile'"),
        ((*DIFFUSION, "rope_theta"), 1e4, "diffusion_model_cfg: unknown field 'rope_theta'"),
        ((*HEAD, "vae_cfg", "dec_dims"), 1, "vae_cfg: unknown field 'dec_dims'"),
        ((*HEAD, "num_frames"), ..., "action_head_cfg.config: missing field 'num_frames'"),
        ((*DIFFUSION, "dim"), ..., "diffusion_model_cfg: missing field 'dim'"),
        ((*HEAD, "tiled"), True, "tiled wanted False, got True"),
        ((*DIFFUSION, "sink_size"), 1, "sink_size wanted 0, got 1"),
        ((*DIFFUSION, "max_chunk_size"), -1, "max_chunk_size: wanted at least 1, got -1"),
        ((*DIFFUSION, "_target_"), "x.OtherModel", "wanted a CausalWanModel, got OtherModel"),
        ((*HEAD, "vae_cfg", "_target_"), ..., "wanted a _target_ of WanVideoVAE or WanVideoVAE38, got None"),
        (("backbone_cfg", "_target_"), "x.Eagle", "wanted an IdentityBackbone, which has no weights, got Eagle"),
        ((*HEAD, "action_horizon"), 7, "action_horizon is 7, but the model has 5"),
        ((*HEAD, "max_state_dim"), 44, "max_state_dim is 44, but the model has 64"),
        (HEAD, [], "action_head_cfg.config: wanted an object, got list"),
    ],
    ids=lambda x: ".".join(x) if isinstance(x, tuple) else "",
)
def test_a_config_that_is_not_understood_is_refused(path, value, message):
    config = copy.deepcopy(upstream("ti2v"))
    node = config
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    with pytest.raises(ConfigError) as caught:
        runtime_config(config)
    assert message in str(caught.value)


def test_the_release_resizes_small_frames_without_being_told():
    config = upstream("ti2v")
    policy = config["action_head_cfg"]["config"]
    del policy["target_video_height"], policy["target_video_width"]
    policy["diffusion_model_cfg"]["frame_seqlen"] = 50
    rewritten, _ = runtime_config(config)
    assert rewritten["action_head_cfg"]["config"]["target_video_hw"] == [176, 320]


def test_a_config_that_the_runtime_refuses_is_an_error_of_the_conversion(tmp_path):
    source = release(tmp_path / "in", "ti2v", {"a": torch.zeros(1)}, "pt")
    config = upstream("ti2v")
    config["action_head_cfg"]["config"]["diffusion_model_cfg"]["num_heads"] = 5
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="num_heads times an even head_dim"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
