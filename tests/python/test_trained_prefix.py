"""Sessions of checkpoints that were trained with a clean prefix, against the PyTorch closed loop."""

import json

import numpy as np
import pytest
import wamcore as wam

torch = pytest.importorskip("torch")
from test_parity_session import Twin, compare, random_sampling, rng  # noqa: E402, F401

HZ = 10.0


@pytest.fixture
def twin(rng, tmp_path):  # noqa: F811
    """A random model whose configuration allows a clean prefix of some length."""
    twin = Twin(rng, "ti2v without images", tmp_path)
    while twin.dit_cfg["num_action_per_block"] < 3:
        twin = Twin(rng, "ti2v without images", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    twin.most = int(rng.integers(1, twin.dit_cfg["num_action_per_block"]))
    config["action_head_cfg"]["config"]["trained_prefix_rows"] = twin.most
    path.write_text(json.dumps(config))
    return twin


@pytest.mark.parametrize("device", ["cpu", "cpu-ops"])
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_the_prefix_is_clean_and_has_timestep_0(rng, twin, solver, device):  # noqa: F811
    model = wam.load(twin.folder, device=device, threads=2)
    sampling, cfg = random_sampling(rng, solver, False), twin.dit_cfg
    session, head = wam.Session(model, **sampling), twin.head(sampling)
    assert session.continuity() == "trained"
    ids, stride = rng.integers(1, twin.vocab, 3).tolist()[: cfg["text_len"]], twin.parts["vae"].temporal_stride
    session.set_prompt_tokens(ids)
    for number, frozen in enumerate((twin.most, 0, model.horizon)):  # as many as allowed, none, more than allowed
        pictures = 1 if number == 0 else stride * cfg["num_frame_per_block"]
        frames = rng.integers(0, 256, (pictures, *twin.camera, 3), np.uint8)
        state = rng.normal(size=cfg["max_state_dim"])
        noise = [
            rng.normal(size=s).astype(np.float32) for s in (model.latent_shape, (model.horizon, cfg["action_dim"]))
        ]
        plan = rng.normal(size=(model.horizon, cfg["action_dim"]))
        obs, clean = wam.Observation({"image": frames}, state), min(frozen, twin.most)
        chunk = session.extend(obs, plan, frozen, noise=tuple(noise))
        want = head.infer(
            torch.from_numpy(frames),
            twin.words(ids),
            None,
            torch.from_numpy(state.astype(np.float32)).double().view(1, 1, -1),
            tuple(torch.from_numpy(n)[None].double() for n in noise),
            prefix=torch.from_numpy(plan[:clean].astype(np.float32)).double() if clean else None,
        )
        compare(session, chunk, want, head, f"{frozen} frozen rows")
        np.testing.assert_array_equal(chunk.q[:clean], plan[:clean].astype(np.float32))
    session.reset()
    head.language = None
    free = session.infer(wam.Observation({"image": frames[:1]}, state), noise=tuple(noise))
    session.reset()
    held = session.extend(wam.Observation({"image": frames[:1]}, state), plan, 1, noise=tuple(noise))
    # How far a random model lets one row move the others is chance; without sight of it they are equal to the bit.
    assert not np.array_equal(held.q[1:], free.q[1:]), "the rows that follow do not see the prefix"


def robot(session):
    names = [f"j{i}" for i in range(session.dof())]
    limits = wam.JointLimits(names, *(np.full(len(names), v) for v in (-3.0, 3.0, 3.0, 60.0)))
    return wam.MockHal(wam.ManualClock(1), joints=names), limits


def test_modes_ask_for_what_the_checkpoint_was_trained_for(twin):
    model = wam.load(twin.folder, device="cpu")
    trained = wam.Session(model, guidance=1.0)
    plain = wam.Session(wam.load("tabletop", device="cpu"))
    for session, mode, message in (
        (trained, "rtc_guided", "can be guided"),
        (plain, "rtc_trained", "trained with clean prefixes"),
    ):
        hal, limits = robot(session)
        with pytest.raises(wam.ConfigError, match=message):
            wam.VirtualRunner(session, hal, limits, mode=mode)
    hal, limits = robot(trained)
    assert wam.VirtualRunner(trained, hal, limits).stats["mode"] == "rtc_trained"
    pulled = wam.Session(model, guidance=1.0, trained_prefix=False)
    assert pulled.continuity() == "guided"
    assert wam.VirtualRunner(pulled, hal, limits).stats["mode"] == "rtc_guided"
    with pytest.raises(wam.ConfigError, match="trained_prefix"):
        wam.Session(wam.load("tabletop", device="cpu"), trained_prefix=True)


def test_a_prefix_as_long_as_a_chunk_is_no_configuration(twin):
    path = twin.folder / "config.json"
    config = json.loads(path.read_text())
    for rows in (twin.dit_cfg["num_action_per_block"], -1, 0.5, None):
        config["action_head_cfg"]["config"]["trained_prefix_rows"] = rows
        path.write_text(json.dumps(config))
        with pytest.raises(wam.ConfigError, match="trained_prefix_rows"):
            wam.load(twin.folder, device="cpu")
