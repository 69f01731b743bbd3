"""The C++ codecs and encoders against the PyTorch reference, at fresh random sizes."""

import json

import golden
import numpy as np
import pytest
from wamcore._core import ConfigError, ShapeError, WeightError, components

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402
from wamcore.reference.clip import ClipVision  # noqa: E402
from wamcore.reference.vae import CausalVae  # noqa: E402

FORWARD = 1e-4


@pytest.fixture(autouse=True)
def small_torch():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy
    print(f"seed {seed}")  # pytest shows it when the test fails
    return np.random.default_rng(seed)


def save(module, path):
    """The module's weights, none of them left at a constant, as a checkpoint file."""
    for p in module.parameters():
        if p.ndim < 2 or p[0].numel() == 1:  # gains and biases
            p += 0.2 * torch.randn_like(p)
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
    return str(path)


def random_vae(rng, version):
    levels = int(rng.integers(2, 5))
    config = {
        "version": version,
        "dim": 4 * int(rng.integers(1, 6)),
        "dec_dim": 4 * int(rng.integers(1, 6)),
        "z_dim": int(rng.choice([16, 48])),
        "dim_mult": [1, *rng.choice([1, 2], levels - 2).tolist(), 2, 2][:levels],
        "num_res_blocks": int(rng.integers(1, 3)),
        "temporal_downsample": rng.choice([False, True], levels - 1).tolist(),
    }
    if version == "2.2":
        config["patch_size"] = 2
        config["dim_mult"][-1] = config["dim_mult"][-2]  # the last level has no room for a shortcut that widens
    else:
        del config["dec_dim"]
    return config


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_vae(version, threads, rng, tmp_path):
    for _ in range(3):
        config = random_vae(rng, version)
        print(config)
        reference = CausalVae(config)
        if rng.integers(2):
            reference.zero_past_taps()
        vae = components.Vae(config, [save(reference, tmp_path / "vae.safetensors")], threads=threads)
        ts, s = reference.temporal_stride, reference.spatial_stride
        assert (vae.temporal_stride, vae.spatial_stride) == (ts, s)
        frames, height, width = (
            1 + ts * int(rng.integers(0, 3)),
            s * int(rng.integers(1, 4)),
            s * int(rng.integers(1, 5)),
        )
        video = rng.uniform(-1, 1, (frames, height, width, 3)).astype(np.float32)
        want = reference.encode(torch.from_numpy(video).permute(3, 0, 1, 2)[None])[0]
        golden.check(vae.encode(video), want, FORWARD, "latents")
        want = reference.decode(want[None], clamp=False)[0].permute(1, 2, 3, 0)
        golden.check(vae.decode(vae.encode(video), clamp=False), want, FORWARD, "frames")


def random_clip(rng):
    patch, heads = int(rng.integers(2, 15)), int(rng.integers(1, 5))
    return {
        "embed_dim": int(rng.integers(1, 40)),
        "image_size": patch * int(rng.integers(1, 7)),
        "patch_size": patch,
        "vision_dim": heads * int(rng.integers(3, 30)),
        "vision_mlp_ratio": int(rng.integers(1, 5)),
        "vision_heads": heads,
        "vision_layers": int(rng.integers(2, 6)),
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "cpu-ops"])
def test_clip(device, threads, rng, tmp_path):
    for _ in range(3):
        config = random_clip(rng)
        reference = ClipVision(config)
        path = save(reference, tmp_path / "clip.safetensors")
        tower = components.ClipVision(json.dumps(config), path, device=device, threads=threads)
        height, width = (int(n) for n in rng.integers(1, 90, 2))  # smaller and larger than image_size, any aspect
        print(config, height, width)
        image = rng.uniform(-1, 1, (height, width, 3)).astype(np.float32)
        want = reference.double()(torch.from_numpy(image).permute(2, 0, 1)[None].double())[0]
        tokens, _ = tower.encode(image)
        golden.check(tokens, want, FORWARD, "tokens")
        assert len(tokens) == 1 + (config["image_size"] // config["patch_size"]) ** 2


def test_clip_refuses_bad_input(rng, tmp_path):
    config = random_clip(rng)
    path = save(ClipVision(config), tmp_path / "clip.safetensors")
    tower = components.ClipVision(json.dumps(config), path)
    with pytest.raises(ShapeError, match=r"wanted \[height, width, 3\], got"):
        tower.encode(np.zeros((8, 8), np.float32))
    with pytest.raises(ShapeError, match=r"wanted \[height, width, 3\], got"):
        tower.encode(np.zeros((8, 8, 4), np.float32))
    with pytest.raises(ConfigError, match="multiple of patch_size"):
        components.ClipVision(json.dumps({**config, "image_size": config["image_size"] + 1}), path)
    with pytest.raises(WeightError, match=r"visual\."):
        components.ClipVision(json.dumps({**config, "vision_layers": config["vision_layers"] + 2}), path)


def test_vae_refuses_bad_input(rng, tmp_path):
    config = random_vae(rng, "2.2")
    path = save(CausalVae(config), tmp_path / "vae.safetensors")
    vae = components.Vae(config, [path])
    with pytest.raises(ShapeError, match="wanted video"):
        vae.encode(np.zeros((1, 64, 64), np.float32))
    with pytest.raises(ShapeError, match="3 colours"):
        vae.encode(np.zeros((1, 64, 64, 4), np.float32))
    with pytest.raises(ShapeError, match="multiples of"):
        vae.encode(np.zeros((1, 64, 65, 3), np.float32))
    with pytest.raises(ShapeError, match="channels"):
        vae.decode(np.zeros((7, 1, 2, 2), np.float32))
    with pytest.raises(ConfigError, match="dim_mul"):
        components.Vae({**config, "dim_mul": [1]}, [path])
    with pytest.raises(WeightError, match="encoder"):
        components.Vae({**config, "dim": config["dim"] + 4}, [path])
    weights = CausalVae(config).state_dict()
    save_file(
        {k: v for k, v in weights.items() if k.startswith(("encoder", "conv1"))}, tmp_path / "encoder.safetensors"
    )
    encoder = components.Vae(config, [str(tmp_path / "encoder.safetensors")])
    with pytest.raises(WeightError, match="decoder was not loaded"):
        encoder.decode(np.zeros((config["z_dim"], 1, 2, 2), np.float32))
    del weights["encoder.conv1.bias"]
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "less.safetensors")
    with pytest.raises(WeightError, match=r"encoder\.conv1\.bias"):
        components.Vae(config, [str(tmp_path / "less.safetensors")])
    save_file(
        {**weights, "encoder.conv1.bias": torch.zeros(config["dim"]), "extra": torch.zeros(1)},
        tmp_path / "more.safetensors",
    )
    with pytest.raises(WeightError, match="extra"):
        components.Vae(config, [str(tmp_path / "more.safetensors")])
