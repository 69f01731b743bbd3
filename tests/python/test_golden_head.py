"""The whole C++ closed loop against golden data: from pictures, token ids and noise to actions and latents."""

import functools
import os
import tempfile

import checkpoints
import golden
import numpy as np
from wamcore import _core

DEVICE = os.environ.get("WAMCORE_TEST_DEVICE", "auto")  # "cuda" is what bench/device_check asks for
# max|a-b| / max|b|: one forward, anything behind the denoising loop. In bf16 these are estimates until a GPU has run
# them: a tensor of one forward was measured to be off by up to 1.4e-2 on the simulated machine.
FORWARD, LOOP = (0.06, 0.2) if DEVICE.startswith("cuda") else (1e-4, 1e-3)


@functools.cache
def model(name):
    """The golden model that a head case runs, loaded from a checkpoint folder."""
    with tempfile.TemporaryDirectory() as folder:
        return _core.Model.load(str(checkpoints.write_golden(folder, golden.case(name))), device=DEVICE)


def ids(tensors, who):
    return tensors[f"text_ids.{who}"][0][: int(tensors[f"text_mask.{who}"].sum())].tolist()


@golden.parametrize("head_")
def test_closed_loop(case):
    golden.need(case)
    tensors, cfg = case.tensors(), case.config
    mask = cfg["dit_step_mask"][: cfg["num_inference_steps"]]
    mask = [] if cfg["dynamic_cache_schedule"] else mask
    session = _core.Session(model(case.name), step_mask=mask, fuse_observation=False)  # passes are counted
    noise = (tensors["noise_obs"][0], tensors["noise_action"][0])
    layers, heads = cfg["dit"]["num_layers"], cfg["dit"]["num_heads"]
    for index, log in enumerate(cfg["log"]["calls"]):
        call = f"call{index}."
        session.set_prompt_tokens(ids(tensors, log["lang"]), ids(tensors, "negative"))
        obs = _core.Observation({"image": tensors[call + "images"][0]}, tensors[call + "state"].reshape(-1))
        given = tensors.get(call + "latent_video")
        chunk = session.infer(obs, noise=noise, latents=None if given is None else given[0])

        golden.check(chunk.q, tensors[call + "action_pred"][0], LOOP, call + "action")
        golden.check(session.predicted_latents(), tensors[call + "video_pred"][0], LOOP, call + "video")
        assert session.observed_frames == int(log["reset"])
        assert session.context_start == log["start_frame_after"]
        assert session.steps_run == log["steps_run"]
        assert session.trace["counts"]["dit_forwards"] == log["n_dit_forwards_incl_cfg"]
        assert session.trace["counts"]["context_resets"] == int(log["reset"])
        assert session.trace["counts"]["images_decoded"] == 0
        for branch, name in enumerate(("pos", "neg")):
            want = tensors[f"{call}kv_{name}.last_layer"][:, 0]
            got = session.memory(layers - 1, branch)
            assert got.shape[1] == log["kv_tokens"]
            golden.check(got.reshape(2, -1, heads, got.shape[-1] // heads), want, FORWARD, f"{call}kv_{name}")
        if log["reset"]:
            first = session.predicted_latents()[:, :1]
            golden.check(first, tensors[call + "first_latent"][0], FORWARD, call + "first_latent")


@golden.parametrize("head_wan21__cache8", "head_wan22__cache8")
def test_same_noise_gives_the_same_chunk_again(case):
    """Nothing of one run leaks into the next: a reset session repeats itself to the bit."""
    golden.need(case)
    tensors = case.tensors()
    session = _core.Session(model(case.name), steps=2, step_mask=[])
    session.set_prompt_tokens(ids(tensors, "A"), ids(tensors, "negative"))
    obs = _core.Observation({"image": tensors["call0.images"][0]}, tensors["call0.state"].reshape(-1))
    later = _core.Observation({"image": tensors["call1.images"][0]}, tensors["call1.state"].reshape(-1))
    runs = []
    for _ in range(2):
        session.reset()
        runs.append([session.infer(obs).q.copy(), session.infer(later).q.copy(), session.predicted_latents()])
    for a, b in zip(*runs, strict=True):
        assert np.array_equal(a, b)
