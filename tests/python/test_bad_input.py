"""Checkpoints, observations and options that are wrong: a clear typed error, and nothing else happens."""

import json
import shutil
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from safetensors.numpy import save_file
from wamcore import _core

BUNDLED = Path(__file__).resolve().parents[2] / "python" / "wamcore" / "models" / "tabletop"


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled checkpoint to spoil."""
    target = tmp_path / "model"
    shutil.copytree(BUNDLED, target)
    return target


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def head(data):
    return data["action_head_cfg"]["config"]


CONFIG = {
    "unknown field": (lambda c: c.update(colour=1), "colour"),
    "unknown field, near miss": (lambda c: head(c).update(sigma_shfit=5.0), "sigma_shift"),
    "missing field": (lambda c: head(c).pop("sigma_shift"), "sigma_shift"),
    "wrong type": (lambda c: head(c)["diffusion_model_cfg"].update(dim="128"), "cfg.dim: wanted integer"),
    "other family": (lambda c: c.update(model_type="gr00t"), "dreamzero"),
    "heads": (lambda c: head(c)["diffusion_model_cfg"].update(num_heads=3), "num_heads"),
    "i2v without condition": (lambda c: head(c)["diffusion_model_cfg"].update(model_type="i2v"), "i2v"),
    "text width": (lambda c: head(c)["diffusion_model_cfg"].update(text_dim=64), "text_dim"),
    "tokens of a frame": (lambda c: head(c)["diffusion_model_cfg"].update(frame_seqlen=7), "frame_seqlen"),
    "clip without tower": (lambda c: head(c)["diffusion_model_cfg"].update(clip_dim=8, clip_tokens=4), "image_encoder"),
    "horizon": (lambda c: c.update(action_horizon=24), "action_horizon"),
    "no first step": (lambda c: head(c).update(dit_step_mask=[False, True, True, True]), "first step"),
    "absurd size": (lambda c: head(c)["diffusion_model_cfg"].update(dim=2**40), "dim"),
}
EMBODIMENT = {
    "unknown composition": (lambda e: e.update(composition="mosaic"), "composition"),
    "views": (lambda e: e.update(composition="droid"), "3 cameras"),
    "infinite rate": (lambda e: e.update(control_hz=0.0), "control_hz"),
    "offsets": (lambda e: e.update(frame_offsets=[-8, -1]), "frame_offsets"),
    "limits": (lambda e: e["joints"][0].update(position_min=9.0), "position"),
    "joint count": (lambda e: e["joints"].pop(), "joints"),
    "relative without state": (lambda e: e["action"][0].update(key="elsewhere"), "elsewhere"),
    "statistics": (lambda e: e["state"][0]["statistics"].pop("q01"), "q01"),
    "horizon of statistics": (
        lambda e: [e["action"][0]["statistics"][k].pop() for k in ("q01", "q99")],
        "statistics for 15 steps",
    ),
    "picture size": (lambda e: e.update(view_hw=[60, 96]), "multiples of 16"),
}


@pytest.mark.parametrize("name", CONFIG)
def test_config(folder, name):
    change, message = CONFIG[name]
    edit(folder / "config.json", change)
    with pytest.raises(_core.ConfigError, match=message.replace(".", r"\.")):
        _core.Model.load(str(folder))


@pytest.mark.parametrize("name", EMBODIMENT)
def test_embodiment(folder, name):
    change, message = EMBODIMENT[name]
    edit(folder / "embodiment.json", change)
    with pytest.raises(_core.ConfigError, match=message):
        _core.Model.load(str(folder))


def spoil(folder, change):
    tensors = load_weights(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def load_weights(folder):
    """The bundled weights as float32 (numpy has no bfloat16)."""
    store = _core.WeightStore(str(folder))
    return {name: np.asarray(store.f32(name)) for name in store.names()}


A_WEIGHT = checkpoints.PREFIX["dit"] + "blocks.0.ffn.0.weight"
WEIGHTS = {
    "missing": (lambda w: w.pop(A_WEIGHT), "blocks.0.ffn"),
    "unexpected": (lambda w: w.update(extra=np.zeros(3, np.float32)), "extra"),
    "shape": (lambda w: w.update({A_WEIGHT: w[A_WEIGHT][:-1]}), r"ffn\.0\.weight.*\["),
    "element type": (lambda w: w.update({A_WEIGHT: w[A_WEIGHT].astype(np.int32)}), "i32"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(folder, name):
    change, message = WEIGHTS[name]
    spoil(folder, change)
    with pytest.raises(_core.WeightError, match=message):
        _core.Model.load(str(folder))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [False, True], ids=["in its turn", "before all else"])
def test_weights_that_are_not_finite(folder, value, first):
    def poison(weights):
        weights[A_WEIGHT] = weights[A_WEIGHT].copy()
        weights[A_WEIGHT][3, 5] = value

    spoil(folder, poison)
    with pytest.raises(_core.WeightError, match=r"blocks\.0\.ffn\.0\.weight.* is not finite"):
        _core.Model.load(str(folder), check_finite=first)


@pytest.mark.parametrize("threads", [-1, 0, 1025, 10**6])
def test_threads(folder, threads):
    with pytest.raises(_core.DeviceError, match=f"threads must be 1 to 1024, got {threads}"):
        _core.Model.load(str(folder), threads=threads)


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(_core.WeightError):
        _core.Model.load(str(folder))


def test_missing_folder_and_device(folder):
    with pytest.raises(_core.ConfigError, match="no-such-model"):
        _core.Model.load("no-such-model")
    with pytest.raises(_core.DeviceError, match="abacus"):
        _core.Model.load(str(folder), device="abacus")


def test_text_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    session = _core.Session(_core.Model.load(str(folder)))
    with pytest.raises(_core.InputError, match="set_prompt_tokens"):
        session.set_prompt("touch the red block")
    session.set_prompt_tokens([3, 4])


@pytest.fixture(scope="module")
def model():
    return _core.Model.load(str(BUNDLED))


def frame(height=64, width=96):
    return np.zeros((1, height, width, 3), np.uint8)


STATE = np.zeros(4)
OBSERVATIONS = {
    "size": ({"scene": frame(65)}, STATE, _core.ShapeError, "65 x 96"),
    "camera name": ({"scenery": frame()}, STATE, _core.InputError, "scene"),
    "extra camera": ({"scene": frame(), "wrist": frame()}, STATE, _core.InputError, "wrist"),
    "no camera": ({}, STATE, _core.InputError, "missing"),
    "state length": ({"scene": frame()}, np.zeros(5), _core.ShapeError, "4 values, got 5"),
    "state not finite": ({"scene": frame()}, np.array([0, np.inf, 0, 0]), _core.InputError, r"state\[1\]"),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observation(model, name):
    cameras, state, error, message = OBSERVATIONS[name]
    session = _core.Session(model)
    session.set_prompt("touch the red block")
    with pytest.raises(error, match=message):
        session.infer(_core.Observation(cameras, state))


def test_image_of_the_wrong_type():
    with pytest.raises(_core.ShapeError, match="float32"):
        _core.Observation({"scene": frame().astype(np.float32)}, STATE)


def test_prompts(model):
    session = _core.Session(model)
    with pytest.raises(_core.InputError, match="empty"):
        session.set_prompt("")
    with pytest.raises(_core.InputError, match="at most"):
        session.set_prompt("word " * 1000)
    with pytest.raises(_core.InputError, match="bytes"):
        session.set_prompt("x" * 1_000_000)


@pytest.mark.parametrize("steps", [0, -3, 10**6])
def test_steps(model, steps):
    with pytest.raises(_core.ConfigError, match=str(steps)):
        _core.Session(model, steps=steps)


def test_noise_and_latents_of_the_wrong_size(model):
    session = _core.Session(model)
    session.set_prompt("touch the red block")
    obs = _core.Observation({"scene": frame()}, STATE)
    with pytest.raises(_core.ShapeError, match="noise"):
        session.infer(obs, noise=(np.zeros(3), np.zeros(3)))
    with pytest.raises(_core.ShapeError, match="latents"):
        session.infer(obs, latents=np.zeros((1, 2, 3, 4)))
