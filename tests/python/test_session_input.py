"""Bad input to a session: a clear typed error, and the session goes on as if nothing had happened."""

import numpy as np
import pytest
import wamcore as wam


@pytest.fixture(scope="module")
def model():
    return wam.load("tabletop", threads=1)


@pytest.fixture
def session(model):
    s = wam.Session(model, steps=1)
    s.set_prompt("touch the red block")
    return s


def picture(shape=(64, 96, 3), dtype=np.uint8):
    return np.zeros(shape, dtype)


STATE = np.array([0.0, 1.2, -1.6, -1.2])  # rad, within the arm's limits


@pytest.mark.parametrize(
    ("cameras", "state", "error"),
    [
        ({"scene": picture((32, 96, 3))}, STATE, (wam.ShapeError, wam.InputError)),
        ({"wrist": picture()}, STATE, (wam.InputError, wam.ShapeError)),
        ({"scene": picture((5, 64, 96, 3))}, STATE, wam.InputError),
        ({"scene": picture()}, STATE[:3], wam.ShapeError),
        ({"scene": picture()}, np.array([0, np.nan, 0, 0]), wam.InputError),
    ],
    ids=("size", "camera", "frames", "length", "nan"),
)
def test_a_bad_observation_changes_nothing(session, model, cameras, state, error):
    good = wam.Observation({"scene": picture()}, STATE, 0)
    later = wam.Observation({"scene": picture((2, 64, 96, 3))}, STATE, 8)
    session.infer(good)
    with pytest.raises(error):
        session.infer(wam.Observation(cameras, state, 4))
    untouched = wam.Session(model, steps=1)
    untouched.set_prompt("touch the red block")
    untouched.infer(good)
    np.testing.assert_array_equal(session.infer(later).q, untouched.infer(later).q)


def test_a_state_of_two_dimensions_is_refused():
    with pytest.raises(wam.ShapeError, match="one dimension"):
        wam.Observation({}, np.zeros((2, 2)))


def test_infer_without_a_prompt_is_refused(model):
    with pytest.raises(wam.InputError, match="prompt"):
        wam.Session(model).infer(wam.Observation({"scene": picture()}, STATE))


@pytest.mark.parametrize("ids", [[], [10**9], [-1], [1] * 10_000])
def test_bad_tokens_are_refused(session, ids):
    with pytest.raises(wam.InputError):
        session.set_prompt_tokens(ids)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "magic"},
        {"shift": 0.0},
        {"shift": float("nan")},
        {"guidance": float("nan")},
        {"imagine": -2},
        {"stop_sigma": 2.0},
        {"step_mask": [False] * 4, "steps": 4},
        {"step_mask": [True], "steps": 4},
    ],
    ids=str,
)
def test_bad_options_are_refused(model, options):
    with pytest.raises(wam.ConfigError):
        wam.Session(model, **options)


def test_nothing_is_predicted_before_the_first_chunk(model):
    fresh = wam.Session(model)
    with pytest.raises(wam.InputError):
        fresh.decode()
    with pytest.raises(wam.InputError):
        fresh.predicted_latents()


def test_a_session_counts_what_computed(model, session):
    """From the C++ side: a chunk takes gemms; pictures of the right size are not resized."""
    before = {(o["operation"], o["precision"]): o["runs"] for o in session.operations}
    session.infer(wam.Observation({"scene": picture()}, STATE))
    ran = {o["operation"] for o in session.operations if o["runs"] > before[o["operation"], o["precision"]]}
    assert {"gemm", "attention", "norm", "conv"} <= ran and "resample" not in ran
    assert {o["kernel"] for o in session.operations if o["runs"]} <= {wam._core.cpu_isa(), "portable"}
