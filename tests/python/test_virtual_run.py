"""Runs in virtual time with drivers and policies in Python."""

import signal
import threading

import numpy as np
import pytest
import wamcore as wam
from robots import DOF, DT, HORIZON, Arm, SinePolicy, limits, mock, sine


@pytest.mark.parametrize("delay", [0, 2, [1, 3, 0]])
def test_virtual_run_follows_the_plan_by_tick(delay):
    clock, arm = mock()
    with wam.VirtualRunner(SinePolicy(), arm, limits(), delay, clock=clock, record=60.0) as run:
        run.run(6.0)
        assert run.tick >= 55 and arm.active
    record, stats = run.record(), run.stats
    follows = (record["phase"] == wam.PHASES.index("follow")) & (record["tick"] > 3)
    assert follows.sum() > 900
    assert np.abs(record["command"] - sine(record["tick"]))[follows].max() < 1e-3
    assert stats["starved_ticks"] == 0 and stats["refused_chunks"] == 0 and not arm.active
    assert np.array_equal(arm.commands[: len(record["command"])], record["command"][: len(arm.commands)])


def test_virtual_run_with_a_python_driver_is_repeatable_and_stays_on_this_thread():
    def once():
        arm = Arm(camera=True)
        with wam.VirtualRunner(SinePolicy(lambda n, q: q + 0.03 * np.sin(n)), arm, limits(), [1, 4, 2]) as run:
            run.run(5.0)
        return arm

    a, b = once(), once()
    assert len(a.commands) >= 1000 and np.array_equal(a.commands, b.commands)
    assert a.threads == {threading.get_ident()}
    assert a.calls[-3:] == ["stop", "deactivate", "close"]


def test_observations_of_a_run():
    class Looks(SinePolicy):
        def frame_offsets(self):
            return [-3, 0]

    policy, arm = Looks(), Arm(camera=True)
    with wam.VirtualRunner(policy, arm, limits(), 0, execute_horizon=4) as run:
        run.run_until(20)
    assert [obs.tick for obs in policy.seen] == [0, 4, 8, 12, 16, 20]
    for obs in policy.seen:
        assert obs.cameras["top"][:, 0, 0, 0].tolist() == [max(obs.tick - 3, 0), obs.tick]
        assert obs.t_ns > 0 and obs.state.shape == (DOF,)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda n, q: q * np.nan, "non_finite"),
        (lambda n, q: q[:5], "shape"),
        (lambda n, q: q + 1.9, "first_step"),
        (lambda n, q: q + 1e308, "range"),
    ],
)
def test_nothing_unvetted_moves_the_robot(spoil, reason):
    arm = Arm()
    run = wam.VirtualRunner(SinePolicy(spoil), arm, limits())
    run.start()
    with pytest.raises(wam.RobotError, match=f"refused.*{reason}="):
        run.run(60.0)
    assert not np.any(arm.commands) and arm.calls[-1] == "close" and run.stats["safety"][reason] >= 10


@pytest.mark.parametrize("what", ["zeros", "relative"])
@pytest.mark.parametrize("mode", ["blend", "async_switch", "sync"])
def test_zeros_and_relative_targets_move_nothing_with_default_options(what, mode):
    """The bundled model's robot where its demonstrations begin, and a policy that is wrong from its first chunk on."""
    body, start = wam.load("tabletop", device="cpu").embodiment, np.array([0.0, 1.2, -1.6, -1.2])

    class Wrong(SinePolicy):
        def infer(self, obs):
            small = 0.02 * np.arange(1, HORIZON + 1)[:, None] * np.ones(len(start))
            return wam.ActionChunk(small * (what == "relative"), DT, obs, sequence=obs.tick + 1)

        def dof(self):
            return len(start)

    arm = wam.MockHal(wam.ManualClock(1), joints=body.limits.names, start=start, record_commands=10_000)
    run = wam.VirtualRunner(Wrong(), arm, body.limits, mode=mode)
    run.start()
    with pytest.raises(wam.RobotError, match=r"refused.*first_step="):
        run.run(60.0)
    np.testing.assert_allclose(arm.commands, np.tile(start, (len(arm.commands), 1)), atol=1e-12)


def test_a_stale_chunk_is_refused():
    old = []

    class Stale(SinePolicy):
        def infer(self, obs):
            old.append(super().infer(obs))
            return old[0]

    run = wam.VirtualRunner(Stale(), Arm(), limits())
    run.start()
    with pytest.raises(wam.RobotError, match="mismatch="):
        run.run(60.0)
    assert run.stats["chunks"] == 1


def test_a_policy_that_raises_or_answers_nonsense_is_heard():
    def boom(n, q):
        raise ValueError("no plan today")

    run = wam.VirtualRunner(SinePolicy(boom), Arm(), limits())
    with pytest.raises(wam.RobotError, match="no plan today"):
        run.start()

    class Silent(SinePolicy):
        def infer(self, obs):
            return None

    with pytest.raises(wam.RobotError, match="wanted an ActionChunk"):
        wam.VirtualRunner(Silent(), Arm(), limits()).start()
    with pytest.raises(wam.RobotError, match="dof is not implemented"):
        wam.VirtualRunner(wam.Policy(), Arm(), limits())


@pytest.mark.parametrize(
    "call, after", [("configure", 0), ("activate", 0), ("read", 0), ("read", 200), ("write", 100), ("frame", 3)]
)
def test_a_driver_that_raises_is_heard_in_virtual_time(call, after):
    arm = Arm(camera=True, fail={call: after})
    run = wam.VirtualRunner(SinePolicy(), arm, limits())
    with pytest.raises(wam.RobotError, match=f"{call}: the cable is out"):
        run.start()
        run.run(10.0)
    assert not run.running and arm.calls[-1] == "close"


@pytest.mark.parametrize(
    "answer, text",
    [
        (None, r"wanted an array \[dof\], got NoneType"),
        ("joints", r"wanted an array \[dof\], got str"),
        ([], "wanted joint positions, got none"),
        ([1.0, [2.0]], r"wanted an array \[dof\], got list"),
        ([1.0], "wants 2 joints, got 1"),
        ([[1.0, 2.0]], "one dimension"),
        (([0.0, 0.0], [0.0]), "dq wants 2 joints"),
    ],
)
def test_a_driver_that_measures_nonsense_is_heard(answer, text):
    class Odd(Arm):
        def read(self):
            return answer

    with pytest.raises(wam.RobotError, match=text):
        wam.VirtualRunner(SinePolicy(), Odd(), limits()).start()


def test_what_does_not_fit_is_refused():
    for options, text in [
        (dict(control_hz=1), "control_hz"),
        (dict(mode="naive"), "'rtc_guided'"),
        (dict(realtime="yes"), "'ignore', 'prefer' or 'enforce'"),
        (dict(blend=3), "unknown option 'blend'"),
        (dict(control_hz="fast"), "option 'control_hz' does not take a str"),
        (dict(safety=dict(period=1, oops=2)), "unknown option 'oops'"),
        (dict(clock=wam.SystemClock()), "ManualClock"),
    ]:
        with pytest.raises(wam.ConfigError, match=text):
            wam.VirtualRunner(SinePolicy(), Arm(), limits(), **options)
    with pytest.raises(wam.ConfigError, match="wants a policy and a robot"):
        wam.VirtualRunner(None, Arm(), limits())
    one = wam.JointLimits(["shoulder"], [-1], [1], [1], [1])
    with pytest.raises(wam.ConfigError, match="commands 2 joints"):
        wam.VirtualRunner(SinePolicy(), Arm(), one)


def test_ctrl_c_reaches_a_virtual_run():
    def on_alarm(*_):  # wherever it hits: policy, driver or the run itself
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for seconds in (0.02, 0.05, 0.09):
            arm = Arm()
            signal.setitimer(signal.ITIMER_REAL, seconds)
            run = wam.VirtualRunner(SinePolicy(), arm, limits())
            with pytest.raises(KeyboardInterrupt):
                run.start()
                run.run(1e6)
            run.stop()
            assert arm.calls[-1] == "close"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
