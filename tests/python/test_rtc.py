"""Session.extend against the reference sampler with the same guidance, on the bundled model and random plans."""

import json

import numpy as np
import pytest
import wamcore as wam
from wamcore.loading import find

torch = pytest.importorskip("torch")

from wamcore.reference import rtc  # noqa: E402
from wamcore.reference.checkpoint import load_checkpoint  # noqa: E402
from wamcore.reference.normalize import normalize  # noqa: E402

ROWS, FROZEN = 11, 3


@pytest.fixture(scope="module")
def model():
    return wam.load("tabletop", device="cpu")


def observation(model, rng):
    pictures = {n: rng.integers(0, 256, (1, h, w, 3), np.uint8) for n, h, w in model.embodiment.cameras}
    low, high = model.embodiment.limits.position_min, model.embodiment.limits.position_max
    return wam.Observation(pictures, rng.uniform(low, high), 0)


def noise_for(model, rng, dim):
    return (
        rng.standard_normal(model.latent_shape).astype(np.float32),
        rng.standard_normal((model.horizon, dim)).astype(np.float32),
    )


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_extend_is_the_reference_with_guidance(model, solver):
    rng = np.random.default_rng()
    head = load_checkpoint(find("tabletop"))
    head.options["solver"] = solver
    dim = head.dit.cfg["action_dim"]
    obs, noise, ids = observation(model, rng), noise_for(model, rng, dim), [1, 2, 3]
    session = wam.Session(model, steps=head.options["num_inference_steps"], solver=solver, guidance=1.0)
    session.set_prompt_tokens(ids)
    free = session.infer(obs, noise=noise)
    plan = free.q[:ROWS] + rng.uniform(-0.1, 0.1, (ROWS, free.dof))  # somewhere near what it would do by itself
    session.reset()
    mine = session.extend(obs, plan, FROZEN, noise=noise)

    # the same with the reference: its action in robot units is a linear map of its normalised one
    robot = json.loads((find("tabletop") / "embodiment.json").read_text())
    (state_group,), (action_group,) = robot["state"], robot["action"]
    state = normalize(torch.tensor(obs.state), state_group["statistics"], state_group["mode"])
    padded = torch.zeros(1, head.dit.cfg["num_state_per_block"], head.dit.cfg["max_state_dim"])
    padded[0, :, : len(obs.state)] = state.float()
    low, high = (np.array(action_group["statistics"][k]) for k in ("q01", "q99"))
    assert action_group["relative"] and low.shape == (model.horizon, free.dof)  # statistics of each row
    anchor = np.array(obs.state)
    target, mask = torch.zeros(1, model.horizon, dim), torch.zeros(1, model.horizon, dim)
    target[0, :ROWS, : free.dof] = torch.tensor(2 * (plan - anchor - low[:ROWS]) / (high - low)[:ROWS] - 1).float()
    mask[0, :, : free.dof] = rtc.prefix_weights(FROZEN, ROWS, model.horizon).float()[:, None]
    text = torch.zeros(1, head.dit.cfg["text_len"], dtype=torch.int64)
    seen = torch.zeros_like(text)
    text[0, :3], seen[0, :3] = torch.tensor(ids), 1
    frame = np.ascontiguousarray(next(iter(obs.cameras.values())))
    given = tuple(torch.tensor(n)[None] for n in noise)
    out = head.infer(torch.tensor(frame), (text, seen), None, padded, given, plan=(target, mask, 5.0))
    want = (out.action[0, :, : free.dof].numpy() + 1) / 2 * (high - low) + low + anchor

    error = np.abs(mine.q - want).max() / np.abs(want).max()
    assert error < 2e-5, error
    assert np.abs(mine.q - free.q).max() > 1e-3  # and it did something


def test_a_plan_is_followed_where_it_is_frozen(model):
    rng = np.random.default_rng()
    session = wam.Session(model, prefix_strength=100.0)
    session.set_prompt_tokens([1, 2, 3])
    obs = observation(model, rng)
    free = session.infer(obs)
    shift = np.linspace(0.05, 0.1, ROWS)[:, None]
    session.reset()
    near = session.extend(obs, free.q[:ROWS] + shift, FROZEN)
    assert np.abs(near.q[:FROZEN] - (free.q[:ROWS] + shift)[:FROZEN]).max() < 0.02


def test_no_rows_and_no_strength_change_nothing(model):
    rng = np.random.default_rng()
    obs, noise = observation(model, rng), None
    for strength, rows in ((None, 0), (0.0, ROWS)):
        session = wam.Session(model, prefix_strength=strength)
        session.set_prompt_tokens([1, 2, 3])
        free = session.infer(obs, noise=noise)
        session.reset()
        same = session.extend(obs, free.q[:rows] + 1.0, 2)
        np.testing.assert_array_equal(free.q, same.q)


def test_bad_plans_are_refused(model):
    session = wam.Session(model)
    session.set_prompt_tokens([1, 2, 3])
    obs = observation(model, np.random.default_rng())
    dof = model.embodiment.action_dim
    for plan, error in (
        (np.full((2, dof), np.nan), wam.InputError),
        (np.zeros((2, dof + 1)), wam.InputError),
        (np.zeros(dof), wam.ShapeError),
    ):
        with pytest.raises(error):
            session.extend(obs, plan, 1)
    with pytest.raises(wam.InputError):
        session.extend(obs, np.zeros((2, dof)), -1)
    with pytest.raises(wam.ConfigError, match="prefix_strength"):
        wam.Session(model, prefix_strength=-1.0)
