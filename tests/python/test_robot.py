"""The robot side from Python: values, the safety filter by itself, and drivers that are called directly."""

import gc

import numpy as np
import pytest
import wamcore as wam
from robots import DOF, DT, HORIZON, NAMES, Arm, limits, mock, sine


def test_observation_and_chunk_are_views_that_outlive_their_owner():
    rng = np.random.default_rng()
    image = rng.integers(0, 255, (3, 4, 6, 3), np.uint8)
    obs = wam.Observation({"top": image, "wrist": image[0]}, [1.0, 2.0], tick=7, t_ns=9)
    q = rng.normal(size=(HORIZON, DOF))
    chunk = wam.ActionChunk(q, DT, obs, sequence=3)
    frames, state, rows = obs.cameras, obs.state, chunk.q
    assert (chunk.obs_tick, chunk.obs_ns, chunk.sequence, chunk.epoch) == (7, 9, 3, 0)
    del obs, chunk
    gc.collect()
    assert np.array_equal(frames["top"], image) and frames["wrist"].shape == (1, 4, 6, 3)
    assert np.array_equal(rows, q) and rows.dtype == np.float64 and state.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError):
        rows[0, 0] = 1.0


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8), [1, 2], None]
)
def test_images_of_another_kind_are_refused(image):
    with pytest.raises(wam.ShapeError, match="camera 'top'"):
        wam.Observation({"top": image})


def test_limits_are_checked():
    good = limits()
    assert good.dof == 2 and good.names == NAMES and good.velocity.tolist() == [2.0, 2.0]
    with pytest.raises(wam.ConfigError, match="less than"):
        wam.JointLimits(NAMES, [2, 2], [-2, 2], [1, 1], [1, 1])
    with pytest.raises(wam.ConfigError, match="not finite"):
        wam.JointLimits(NAMES, [-2, np.nan], [2, 2], [1, 1], [1, 1])
    with pytest.raises(wam.ConfigError, match="1 entries"):
        wam.JointLimits(NAMES, [-2, -2], [2, 2], [1], [1, 1])
    with pytest.raises(wam.ShapeError, match="one dimension"):
        wam.JointLimits(NAMES, [[-2, -2]], [2, 2], [1, 1], [1, 1])


def test_safety_filter_keeps_the_limits_whatever_comes_in():
    rng = np.random.default_rng()
    h = 0.005
    guard = wam.SafetyFilter(limits(), period=h, hold_time=1e3)
    with pytest.raises(wam.RobotError, match="seed"):
        guard.step([0.0, 0.0])
    assert guard.seed([0.0, 0.0])
    out = [np.zeros(2)]
    for _ in range(3000):
        kind = rng.integers(4)
        target = [None, rng.normal(size=2), rng.choice([np.nan, np.inf, -1e308, 1e308], 2), out[-1] + 0.001][kind]
        out.append(guard.step(target))
    q = np.array(out)
    v = np.diff(q, axis=0, prepend=q[:1]) / h
    assert np.abs(q).max() <= 2.0
    assert np.abs(v).max() <= 2.0 * (1 + 1e-9)
    assert np.abs(np.diff(v, axis=0)).max() / h <= 20.0 * (1 + 1e-6)
    assert guard.counters["non_finite"] > 0 and set(guard.counters) == set(wam.REASONS) - {"none"}
    with pytest.raises(wam.ShapeError, match="wants 2 joints"):
        guard.step([0.0])


def test_safety_filter_passes_what_is_within_the_limits():
    guard = wam.SafetyFilter(limits(), period=0.005)
    guard.seed([0.0, 0.0])
    for k in range(1, 2000):
        target = sine(k * 0.05)
        assert np.array_equal(guard.step(target), target)
    assert guard.reason == "none" and guard.phase == "follow"


def test_safety_filter_admits_and_refuses():
    guard = wam.SafetyFilter(limits(), horizon=HORIZON, dt=DT)
    guard.seed([0.0, 0.0])
    obs = wam.Observation(tick=5, t_ns=100)
    good = wam.ActionChunk(np.zeros((HORIZON, DOF)), DT, obs, sequence=1)
    now = dict(tick=6, t_ns=200)
    assert guard.vet(wam.ActionChunk(np.full((HORIZON, DOF), np.nan), DT, obs)) == "non_finite"
    assert guard.admit(wam.ActionChunk(np.zeros((3, DOF)), DT, obs), [0, 0], **now) == "shape"
    assert guard.admit(good, [1.9, 0], **now) == "first_step"
    assert guard.admit(good, [0, 0], tick=30, t_ns=200) == "chunk_age"
    assert guard.admit(good, [0, 0], tick=6, t_ns=50) == "mismatch"
    assert guard.admit(good, [0, 0], epoch=1, **now) == "epoch"
    assert guard.admit(good, [0, 0], **now) == "none"
    assert guard.admit(good, [0, 0], **now) == "sequence"
    guard.estop()
    guard.step([0.0, 0.0])
    assert guard.phase == "estop"
    assert not guard.reset([0, 0], [0, 0.5]) and guard.reset([0, 0], [0, 0])
    with pytest.raises(wam.ConfigError, match="unknown option 'jerk'"):
        wam.SafetyFilter(limits(), jerk=1)


def test_observe_looks_once():
    _, arm = mock(cameras=[wam.CameraInfo("top", 4, 6)], start=[0.1, 0.2])
    obs = wam.observe(arm, tick=3)
    assert obs.tick == 3 and obs.state.tolist() == [0.1, 0.2] and obs.cameras["top"].shape == (1, 4, 6, 3)
    obs = wam.observe(Arm(camera=True))
    assert obs.cameras["top"].shape == (1, 4, 6, 3) and obs.t_ns > 0
    with pytest.raises(wam.RobotError, match="the cable is out"):
        wam.observe(Arm(fail={"read": 0}))


def test_a_configured_driver_is_not_configured_again_to_be_observed():
    class OnPort(Arm):
        def configure(self, config):
            self.port = config.parameters["port"]
            return super().configure(config)

    robot = OnPort(camera=True)
    description = robot.configure(wam.HalConfig(parameters={"port": "usb"}))
    obs = wam.observe(robot, tick=3, description=description)
    assert obs.tick == 3 and list(obs.cameras) == ["top"] and robot.port == "usb"
    assert robot.calls == ["configure", "read", "frame"]
    with pytest.raises(wam.RobotError, match="port"):
        wam.observe(robot)


def test_a_python_caller_can_use_a_driver_directly():
    clock, arm = mock()
    arm.configure()
    arm.activate()
    assert arm.write(wam.Command([1.0, 1.0], clock.now_ns(), clock.now_ns() + 20_000_000)) == wam.Status.ok
    clock.advance(1_000_000_000)
    state = arm.read()
    assert np.allclose(state.q, 1 - np.exp(-0.02 / 0.05)) and arm.lapses == 1
    arm.stop(wam.StopKind.cut)
    arm.deactivate()
    arm.close()
    assert arm.stops == 1 and not arm.active
