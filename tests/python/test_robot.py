"""The robot side from Python: drivers and policies written in Python, runs in virtual time and with threads."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
import wamcore as wam

DT, HORIZON, DOF = 0.1, 16, 2
NAMES = ["shoulder", "elbow"]


def limits(velocity=2.0, acceleration=20.0):
    return wam.JointLimits(NAMES, [-2.0] * DOF, [2.0] * DOF, [velocity] * DOF, [acceleration] * DOF)


def sine(tick):
    """Targets of both joints, rad, at rest at tick 0."""
    return np.multiply.outer(1 - np.cos(0.8 * DT * np.asarray(tick, float)), [0.3, 0.6])


class SinePolicy(wam.Policy):
    """Answers with the sine of the absolute tick; `spoil(chunk number, q)` may change the rows."""

    def __init__(self, spoil=None):
        super().__init__()
        self.calls, self.spoil, self.seen = 0, spoil, []

    def infer(self, obs):
        self.calls += 1
        self.seen.append(obs)
        q = sine(obs.tick + np.arange(HORIZON))
        if self.spoil is not None:
            q = self.spoil(self.calls, q)
        return wam.ActionChunk(q, DT, obs, sequence=self.calls)

    def dt(self):
        return DT

    def horizon(self):
        return HORIZON

    def dof(self):
        return DOF


class Arm(wam.Hal):
    """A driver in Python that is where it is told to be, and remembers who called it."""

    def __init__(self, camera=False, fail=None):
        super().__init__()
        self.q, self.camera, self.fail = np.zeros(DOF), camera, fail or {}
        self.calls, self.threads, self.commands = [], set(), []

    def note(self, name):
        self.calls.append(name)
        self.threads.add(threading.get_ident())
        if self.calls.count(name) > self.fail.get(name, 1e9):
            raise OSError(f"{name}: the cable is out")

    def configure(self, config):
        self.note("configure")
        cameras = [wam.CameraInfo("top", 4, 6)] if self.camera else []
        return wam.Description([wam.JointInfo(n) for n in NAMES], cameras)

    def activate(self, mode):
        self.note("activate")
        assert mode == wam.Mode.position

    def read(self):
        self.note("read")
        return self.q

    def write(self, command):
        self.note("write")
        assert command.valid_until_ns > command.t_ns
        self.q = command.q
        self.commands.append(command.q)

    def deactivate(self):
        self.note("deactivate")

    def stop(self, kind):
        self.note("stop")

    def close(self):
        self.note("close")

    def frame(self, camera):
        self.note("frame")
        return np.full((4, 6, 3), self.calls.count("frame") - 1, np.uint8)


def mock(**options):
    clock = wam.ManualClock()
    return clock, wam.MockHal(clock, joints=NAMES, record_commands=100_000, **options)


# ---- values -------------------------------------------------------------------------------------------------------


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


# ---- safety filter by itself --------------------------------------------------------------------------------------


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


# ---- virtual time -------------------------------------------------------------------------------------------------


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


def test_observe_looks_once():
    _, arm = mock(cameras=[wam.CameraInfo("top", 4, 6)], start=[0.1, 0.2])
    obs = wam.observe(arm, tick=3)
    assert obs.tick == 3 and obs.state.tolist() == [0.1, 0.2] and obs.cameras["top"].shape == (1, 4, 6, 3)
    obs = wam.observe(Arm(camera=True))
    assert obs.cameras["top"].shape == (1, 4, 6, 3) and obs.t_ns > 0
    with pytest.raises(wam.RobotError, match="the cable is out"):
        wam.observe(Arm(fail={"read": 0}))


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


# ---- threads ------------------------------------------------------------------------------------------------------

PATIENT = dict(max_state_age=5.0, command_validity=5.0, safety=dict(hold_time=60.0))  # a busy machine is no fault here


def until(runner, condition, patience=60.0):
    """Waits in short naps of the runner's own until the condition holds."""
    for _ in range(int(patience / 0.02)):
        if condition():
            return
        runner.wait(0.02)
    raise AssertionError(f"not reached: {runner.stats}")


def test_runner_drives_a_python_driver_on_a_thread_of_its_own():
    arm = Arm(camera=True)
    with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, record=60.0, **PATIENT) as run:
        until(run, lambda: run.stats["ticks"] >= 8 and run.stats["chunks"] >= 1)
        assert run.running
    assert len(arm.threads) == 1 and threading.get_ident() not in arm.threads
    assert arm.calls[-2:] == ["deactivate", "close"] and not run.running
    q = np.array(run.record()["command"])
    v = np.diff(q, axis=0) * 100
    assert np.abs(v).max() <= 2.0 * (1 + 1e-6) and np.abs(np.diff(v, axis=0)).max() * 100 <= 20.0 * (1 + 1e-6)


@pytest.mark.parametrize("call, after", [("read", 20), ("write", 20), ("frame", 2)])
def test_what_a_python_driver_raises_is_raised_from_wait_and_exit(call, after):
    arm = Arm(camera=True, fail={call: after})
    with pytest.raises(wam.RobotError, match=f"{call}: the cable is out"):
        with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT) as run:
            run.wait(60.0)
            raise AssertionError("wait() was to raise")
    assert arm.calls[-1] == "close"
    # without wait(), leaving the block raises
    arm = Arm(camera=True, fail={call: after})
    with pytest.raises(wam.RobotError, match=f"{call}: the cable is out"):
        with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT) as run:
            while run.running:
                pass
    # an error that was heard is not raised again
    arm = Arm(fail={"read": 20})
    with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT) as run:
        with pytest.raises(wam.RobotError):
            run.wait(60.0)


def test_what_a_python_policy_raises_is_raised_from_wait():
    def boom(n, q):
        if n > 1:
            raise ValueError("no plan today")
        return q

    clock = wam.SystemClock()
    arm = wam.MockHal(clock, joints=NAMES)
    with pytest.raises(wam.RobotError, match="no plan today"):
        with wam.Runner(SinePolicy(boom), arm, limits(), execute_horizon=1, clock=clock, **PATIENT) as run:
            run.wait(60.0)
    assert not arm.active


def test_an_exception_in_the_block_stops_the_robot_and_passes():
    arm = Arm()
    with pytest.raises(KeyError):
        with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT):
            raise KeyError("mine")
    assert arm.calls[-1] == "close"


def test_driver_and_policy_live_as_long_as_the_runner_and_no_longer():
    policy, arm = SinePolicy(), Arm()
    seen = [weakref.ref(policy), weakref.ref(arm)]
    run = wam.Runner(policy, arm, limits(), control_hz=100, **PATIENT)
    run.start()
    del policy, arm
    gc.collect()
    until(run, lambda: run.stats["chunks"] >= 1)  # although nobody here holds a name of them
    run.stop()
    run = None
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


def test_a_run_that_is_dropped_stops():
    arm = Arm()
    run = wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT)
    run.start()
    del run  # joins threads that want the interpreter lock
    gc.collect()
    assert arm.calls[-1] == "close"


def test_the_interpreter_may_end_while_a_run_goes_on():
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import test_robot as t, wamcore as wam
        arm = t.Arm()
        run = wam.Runner(t.SinePolicy(), arm, t.limits(), control_hz=100, **t.PATIENT)
        run.start()
        t.until(run, lambda: run.stats["chunks"] >= 1)
        import atexit
        atexit.register(lambda: None)
        print("leaving", flush=True)
    """
    folder = str(__import__("pathlib").Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), folder], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout.strip() == "leaving", done.stderr
