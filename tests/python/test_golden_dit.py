"""The C++ transformer against golden data: sequences with a growing cache, single blocks, the training mask."""

import json

import golden
import numpy as np
import pytest
from wamcore import _core

TOLERANCE = 1e-4  # max|a-b| / max|b| of one forward
DEVICES = pytest.mark.parametrize("device", ["cpu", "cpu-ops"])


def weights_of(case):
    return "dit_ti2v_weights" if "ti2v" in case.name else "dit_i2v_weights"


def config_of(case):
    keep = golden.case(weights_of(case)).config.keys()
    return {k: v for k, v in case.config.items() if k in keep}


def model(case, grid, device):
    path = golden.case(weights_of(case)).path
    return _core.components.Dit(json.dumps(config_of(case)), str(path), grid, device=device)


def check_taps(dit, tensors, prefix, config):
    """Compares the taps that golden data and our run share, under the names each uses; gives their number."""
    names = {f"block{i}": f"blocks.{i}.ffn" for i in range(config["num_layers"])}
    names |= {"text_embedding": "text_embedding.2", "img_emb": "img_emb.proj.4"}
    seen = 0
    for tap, label in names.items():
        key = f"{prefix}.tap.{tap}"
        if key in tensors and label in dit.taps:
            golden.check(dit.taps[label], tensors[key][0], TOLERANCE, key)
            seen += 1
    return seen


@DEVICES
@golden.parametrize("dit_", kinds=("dit_sequence",))
def test_sequence(case, device):
    golden.need(case)
    tensors, config = case.tensors(), case.config
    get = lambda key: tensors[key][0] if key in tensors else None  # noqa: E731
    dit = model(case, tensors["prefill0.x"].shape[-2:], device)
    dit.set_context(get("context_text_emb"), get("clip_feature"))
    layers, taps = config["num_layers"], 0
    for chunk in range(config["num_chunks"] + 1):
        name, start = f"prefill{chunk}", max(2 * chunk - 1, 0)
        velocity = dit.prefill(get(f"{name}.x"), start, get(f"{name}.y"), taps=True)
        golden.check(velocity, get(f"{name}.video_pred"), TOLERANCE, name)
        taps += check_taps(dit, tensors, name, config)
        for layer in range(layers):
            if f"{name}.kv_after.layer{layer}" in tensors:
                want = tensors[f"{name}.kv_after.layer{layer}"][:, 0]
                got = np.stack(dit.memory(layer)).reshape(want.shape)
                golden.check(got, want, TOLERANCE, f"{name}.kv_after.layer{layer}")
        if chunk == config["num_chunks"]:
            break
        name, start = f"denoise{chunk}", 2 * chunk + 1
        t = np.append(get(f"{name}.timestep"), get(f"{name}.timestep_action")[0])
        video, action = dit.denoise(
            get(f"{name}.x"), t, start, get(f"{name}.action"), get(f"{name}.state"), get(f"{name}.y"), taps=True
        )
        golden.check(video, get(f"{name}.video_pred"), TOLERANCE, f"{name}.video")
        golden.check(action, get(f"{name}.action_pred"), TOLERANCE, f"{name}.action")
        taps += check_taps(dit, tensors, name, config)
    assert taps or not any(".tap.block" in key for key in tensors)


# Taps of upstream that our run has too; the norms before attention and feed-forward are tapped before modulation there.
BLOCK_TAPS = {
    "self.q_out": "blocks.0.self.q",
    "self.k_out": "blocks.0.self.k",
    "self.attn_q_roped": "blocks.0.self.q_roped",
    "self.attn_out": "blocks.0.self.attention",
    "norm3_out": "blocks.0.cross.norm3",
    "cross.norm_q_out": "blocks.0.cross.q",
    "cross.attn_sum": "blocks.0.cross.attention",
    "ffn.gelu_out": "blocks.0.ffn.gelu",
}


@DEVICES
@golden.parametrize("dit_block_")
def test_block(case, device):
    golden.need(case)
    tensors, config = case.tensors(), config_of(case)
    dit = model(case, (2, 2 * config["frame_seqlen"]), device)  # the grid is not used: rotations are given
    context, clip = tensors["context"][0], config["clip_tokens"]
    dit.set_embedded_context(0, context[clip:])
    if clip:
        dit.set_embedded_context(1, context[:clip])
    keys, values = (p[0].reshape(p.shape[1], -1) for p in tensors["kv_cache_in"])
    tables = [
        tensors[f"rope_{kind}_cos_sin"].reshape(-1, config["dim"] // config["num_heads"] // 2, 2)
        for kind in ("video", "action", "state")
    ]
    rope = np.concatenate(tables)
    e0 = tensors["e0"][0].reshape(len(rope), -1)
    out = dit.block(0, True, tensors["x"][0], e0, (rope[..., 0], rope[..., 1]), (keys, values))
    golden.check(out, tensors["y"][0], TOLERANCE, "y")
    compared = 0
    for tap, label in BLOCK_TAPS.items():
        if label in dit.taps:  # a fused layer has no inner values to show
            want = tensors[f"tap.{tap}"][0]
            golden.check(dit.taps[label].reshape(want.shape), want, TOLERANCE, tap)
            compared += 1
    assert compared == len(BLOCK_TAPS) or device != "cpu-ops"
    video = len(tables[0])
    out = dit.block(
        0, False, tensors["x"][0][:video], e0[:video], (tables[0][..., 0], tables[0][..., 1]), (keys, values)
    )
    golden.check(out, tensors["y_no_register"][0], TOLERANCE, "y_no_register")
    want = tensors["kv_cache_out_no_register"][:, 0]
    golden.check(np.stack(dit.memory(0)).reshape(want.shape), want, TOLERANCE, "kv_cache_out_no_register")


@DEVICES
@golden.parametrize("dit_", kinds=("dit_train",))
def test_training_mask(case, device):
    golden.need(case)
    tensors, config = case.tensors(), config_of(case)
    per, actions, states = (config[f"num_{k}_per_block"] for k in ("frame", "action", "state"))
    clean, noisy = tensors["clean_x"][0], tensors["noisy_x"][0]
    blocks = (clean.shape[1] - 1) // per
    dit = model(case, clean.shape[-2:], device)
    dit.set_context(tensors["context_text_emb"][0], tensors["clip_feature"][0] if "clip_feature" in tensors else None)
    t, ta = tensors["timestep"][0], tensors["timestep_action"][0]
    inputs = {"timesteps": np.concatenate([[0.0], t, ta]).astype(np.float32)}
    for b in range(blocks + 1):
        frames = slice(0, 1) if b == 0 else slice(1 + (b - 1) * per, 1 + b * per)
        for kind, x in (("clean", clean), ("noisy", noisy)):
            inputs[f"{kind}{b}.in"] = x[:, frames]
            if "y" in tensors:
                inputs[f"{kind}{b}.cond"] = tensors["y"][0][:, frames]
        if b:
            inputs[f"action{b}.in"] = tensors["action"][0][(b - 1) * actions : b * actions]
            inputs[f"state{b}.in"] = tensors["state"][0][(b - 1) * states : b * states]
    inputs = {k: np.ascontiguousarray(v, np.float32) for k, v in inputs.items()}
    names = [f"noisy{b}.out" for b in range(blocks + 1)] + [f"action{b}.out" for b in range(1, blocks + 1)]
    out = dit.training(blocks, inputs, names)
    shape = (config["out_dim"], -1, *noisy.shape[-2:])
    video = np.concatenate([out[f"noisy{b}.out"].reshape(shape) for b in range(blocks + 1)], 1)
    action = np.concatenate([out[f"action{b}.out"] for b in range(1, blocks + 1)])
    golden.check(video, tensors["video_pred"][0], TOLERANCE, "video_pred")
    golden.check(action, tensors["action_pred"][0], TOLERANCE, "action_pred")


COMMON = dict(text_len=512, text_dim=4096, freq_dim=256, max_chunk_size=4, num_frame_per_block=2,
              num_action_per_block=24, num_state_per_block=1, action_dim=32, max_state_dim=64,
              hidden_size=1024, eps=1e-6, patch_size=[1, 2, 2],
              clip_dim=1280, clip_tokens=257, qk_norm=True, cross_attn_norm=True, local_attn_size=9)  # fmt: skip
FULL_SIZE = {
    "dit_14b": ((44, 80), dict(model_type="i2v", frame_seqlen=880, in_dim=36, out_dim=16, dim=5120, ffn_dim=13824,
                               num_heads=40, num_layers=40, concat_first_frame_latent=True)),
    "dit_5b": ((10, 20), dict(model_type="ti2v", frame_seqlen=50, in_dim=48, out_dim=48, dim=3072, ffn_dim=14336,
                              num_heads=24, num_layers=30, concat_first_frame_latent=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL_SIZE)
def test_keys_of_the_published_checkpoints(name):
    """Every tensor of the real checkpoints is asked for under its name and shape, and no other."""
    table = next((f.parent / "keys" / f"{name}.json" for f in golden.folders() if (f.parent / "keys").is_dir()), None)
    if table is None or not table.exists():
        golden.skip("no key tables")
    grid, config = FULL_SIZE[name]
    ours = {k: list(shape) for k, shape in _core.components.Dit.keys(json.dumps(COMMON | config), grid)}
    assert ours == json.loads(table.read_text())
