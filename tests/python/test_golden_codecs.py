"""The C++ codecs, encoders and preprocessing reproduce every golden case of DreamZero."""

import json

import golden
import numpy as np
from wamcore._core import components

FORWARD = 1e-4  # allowed error of one forward pass
KEYS = golden.ROOT.parent / "shared" / "reference" / "dreamzero" / "keys"


def paths(*names):
    return [str(golden.case(name).path) for name in names]


def check_taps(taps, wanted, prefix=""):
    for key, want in wanted.items():
        if key.startswith(prefix):
            golden.check(taps[key[len(prefix) :]], want[0], FORWARD, key)


def vae_of(tag):
    weights = (f"{tag}_enc_weights", f"{tag}_dec_weights")
    return components.Vae(golden.case(weights[0]).config, paths(*weights))


def pixels(video):
    """[1, 3, T, H, W] -> [T, H, W, 3]."""
    return np.ascontiguousarray(video[0].transpose(1, 2, 3, 0))


@golden.parametrize("vae", kinds=("vae",))
def test_vae(case):
    golden.need(case)
    d, vae, taps = case.tensors(), vae_of(case.name.split("_")[0]), {}
    video = pixels(d["video"])
    golden.check(vae.encode(video, taps=taps), d["latent"][0], FORWARD, "latent")
    check_taps(taps, {k: v for k, v in d.items() if k.startswith("encoder_out")})
    golden.check(vae.encode(video[:1]), d["latent_single_frame"][0], FORWARD, "latent of one frame")
    gray = np.concatenate([video[:1], np.zeros_like(video[1:])])
    golden.check(vae.encode(gray), d["latent_firstframe_plus_8_zero_frames"][0], FORWARD, "latent of frame and zeros")
    golden.check(vae.decode(d["latent"][0], clamp=False), pixels(d["decoded_raw"]), FORWARD, "decoded")
    golden.check(vae.decode(d["latent"][0]), pixels(d["decoded_clamped"]), FORWARD, "decoded and clamped")

    stream = components.VaeStream(vae)  # the same video in pieces
    pieces = [vae.encode(video[:5], stream), vae.encode(video[5:], stream)]
    golden.check(np.concatenate(pieces, 1), d["latent"][0], FORWARD, "latent in pieces")
    frames = [vae.decode(d["latent"][0][:, i : i + 1], stream, clamp=False) for i in range(d["latent"].shape[2])]
    golden.check(np.concatenate(frames), pixels(d["decoded_raw"]), FORWARD, "decoded in pieces")


@golden.parametrize("vae", kinds=("vae_taps",))
def test_vae_layers(case):
    golden.need(case)
    tag, taps = case.name.split("_")[0], {}
    vae, d = vae_of(tag), golden.case(f"{tag}_forward").tensors()
    vae.encode(pixels(d["video"]), taps=taps)
    vae.decode(d["latent"][0], taps=taps)
    check_taps(taps, case.tensors())


def real_keys(name):
    if not (KEYS / f"{name}.json").exists():
        golden.skip(f"no {name}.json in {KEYS}")
    return {key: list(shape) for key, shape in json.loads((KEYS / f"{name}.json").read_text()).items()}


def test_keys_of_the_published_vae():
    shared = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temporal_downsample": [False, True, True]}
    wan21 = {"version": "2.1", "dim": 96, "z_dim": 16, **shared}
    wan22 = {"version": "2.2", "dim": 160, "dec_dim": 256, "z_dim": 48, "patch_size": 2, **shared}
    for config, name in ((wan21, "vae21"), (wan22, "vae22")):
        assert {key: shape for key, shape, _ in components.Vae.keys(config)} == real_keys(name)
