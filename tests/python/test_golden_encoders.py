"""The C++ text encoder and image tower against golden data, the published key tables, and PyTorch at random sizes."""

import json
import random

import golden
import numpy as np
import pytest
from safetensors.numpy import save_file
from wamcore import _core

TOLERANCE = 1e-4  # max|a-b| / max|b| of one forward
parts = _core.components


@golden.parametrize("t5_", kinds=("t5",))
def test_text_encoder(case):
    golden.need(case)
    d, weights = case.tensors(), golden.case("t5_weights")
    encoder = parts.TextEncoder(json.dumps(weights.config), str(weights.path))
    for row in range(len(d["ids"])):
        n = int(d["mask"][row].sum())
        out, taps = encoder.encode(d["ids"][row][:n].tolist(), d["ids"].shape[1], taps=True)
        golden.check(out, d["out_masked_as_prompt_emb"][row], TOLERANCE, f"out[{row}]")
        for layer in range(weights.config["num_layers"]):
            if f"tap.block{layer}" in d:  # padding rows exist upstream only
                want = d[f"tap.block{layer}"][row][:n]
                golden.check(taps[f"block{layer}"], want, TOLERANCE, f"block{layer}[{row}]")
    want = d["relpos_arange_m200_200_bucket"].tolist()
    assert [parts.TextEncoder.relative_bucket(i) for i in range(-200, 201)] == want


@golden.parametrize("clip_", kinds=("clip",))
def test_image_tower(case):
    golden.need(case)
    d, weights = case.tensors(), golden.case("clip_weights")
    tower = parts.ClipVision(json.dumps(weights.config), str(weights.path))
    out, taps = tower.encode(np.moveaxis(d["image"].reshape(-1, *d["image"].shape[-3:])[0], 0, -1), taps=True)
    golden.check(out, d["out"][0], TOLERANCE, "out")
    size = weights.config["image_size"]
    crop = taps["preprocessed"].reshape(3, size, size)[:, ::8, ::8]
    golden.check(crop, d["tap.preprocessed_crop"][0], TOLERANCE, "preprocessed")
    golden.check(taps["pre_norm"], d["tap.pre_norm"][0], TOLERANCE, "pre_norm")
    for layer in range(weights.config["vision_layers"] - 1):
        if f"tap.block{layer}" in d:
            golden.check(taps[f"block{layer}"], d[f"tap.block{layer}"][0], TOLERANCE, f"block{layer}")


FULL_SIZE = {
    "t5": (parts.TextEncoder, dict(vocab=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24,
                                   num_buckets=32, shared_pos=False)),
    "clip": (parts.ClipVision, dict(embed_dim=1024, image_size=224, patch_size=14, vision_dim=1280, vision_mlp_ratio=4,
                                    vision_heads=16, vision_layers=32)),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL_SIZE)
def test_keys_of_the_published_checkpoints(name):
    table = next((f.parent / "keys" / f"{name}.json" for f in golden.folders() if (f.parent / "keys").is_dir()), None)
    if table is None or not table.exists():
        golden.skip("no key tables")
    part, config = FULL_SIZE[name]
    ours = {key: list(shape) for key, shape, _ in part.keys(json.dumps(config))}
    assert ours == json.loads(table.read_text())


def test_text_encoder_against_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from wamcore.reference.umt5 import UmT5Encoder

    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    heads = rng.randint(1, 4)
    cfg = dict(vocab=rng.randint(5, 90), dim=rng.randint(3, 60), dim_attn=heads * rng.randint(2, 20),
               dim_ffn=rng.randint(4, 80), num_heads=heads, num_layers=rng.randint(1, 3), num_buckets=32,
               shared_pos=False)  # fmt: skip
    reference = UmT5Encoder(cfg)
    for p in reference.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save_file({k: v.numpy() for k, v in reference.state_dict().items()}, tmp_path / "t5.safetensors")
    n, length = rng.randint(1, 40), 48
    ids = torch.randint(0, cfg["vocab"], (1, length))
    mask = (torch.arange(length) < n).long()[None]
    with torch.no_grad():
        want = reference.double().prompt_embedding(ids, mask)[0].numpy()
    encoder = parts.TextEncoder(json.dumps(cfg), str(tmp_path / "t5.safetensors"))
    golden.check(encoder.encode(ids[0, :n].tolist(), length)[0], want, TOLERANCE, "prompt")


def test_bad_tokens_are_refused():
    weights = golden.case("t5_weights")
    encoder = parts.TextEncoder(json.dumps(weights.config), str(weights.path))
    with pytest.raises(_core.InputError, match="vocabulary of 64"):
        encoder.encode([64], 16)
    with pytest.raises(_core.InputError, match="at most 4"):
        encoder.encode([1] * 5, 4)
