"""Runs with threads: drivers and policies in Python, what they raise, and how runs end."""

import gc
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
import wamcore as wam
from robots import NAMES, PATIENT, Arm, SinePolicy, limits, until


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


def test_a_stop_that_raises_is_heard():
    class Unbraked(Arm):
        def stop(self):  # lacks the kind of stop, so that every call raises
            raise AssertionError("not reached")

    arm = Unbraked()
    with pytest.raises(wam.RobotError, match=r"Hal.stop: TypeError"):
        with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, **PATIENT) as run:
            until(run, lambda: run.stats["chunks"] >= 1)
    assert arm.calls[-2:] == ["deactivate", "close"]
    # what ended the run is told before what went wrong after it
    with pytest.raises(wam.RobotError, match=r"(?s)read: the cable is out.*Last measured"):
        with wam.Runner(SinePolicy(), Unbraked(fail={"read": 20}), limits(), control_hz=100, **PATIENT) as run:
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


class Watched(wam.Policy):
    """A session; `followed` becomes the most servo cycles on the old chunk that passed during one of its inferences."""

    def __init__(self, session):
        super().__init__()
        self.session, self.run, self.followed = session, None, 0

    def infer(self, obs):
        before, chunk, after = self.run.stats, self.session.infer(obs), self.run.stats
        assert self.session.trace["stages"]["memory"] > 0, "the observation did not enter the memory"
        if before["phase"] == after["phase"] == "follow" and before["starved_ticks"] == after["starved_ticks"]:
            self.followed = max(self.followed, after["cycles"] - before["cycles"])
        return chunk

    def frame_offsets(self):
        return self.session.frame_offsets()

    def dt(self):
        return self.session.dt()

    def horizon(self):
        return self.session.horizon()

    def dof(self):
        return self.session.dof()


def test_a_session_takes_in_and_thinks_while_the_robot_follows_the_chunk_before():
    model, clock = wam.load("tabletop", device="cpu", threads=1), wam.SystemClock()
    session = wam.Session(model, steps=4)
    session.set_prompt("touch the red block")
    body, cameras = model.embodiment, [wam.CameraInfo(*camera) for camera in model.embodiment.cameras]
    arm = wam.MockHal(clock, joints=body.limits.names, cameras=cameras, start=[0.0, 1.2, -1.6, -1.2])
    policy = Watched(session)
    policy.run = wam.Runner(policy, arm, body.limits, control_hz=1000, clock=clock, **PATIENT)
    with policy.run as run:
        until(run, lambda: policy.followed > 0)


def test_a_new_prompt_leaves_no_cycle_without_a_chunk():
    model, clock = wam.load("tabletop", device="cpu", threads=1), wam.SystemClock()
    session = wam.Session(model, steps=2)
    session.set_prompt("touch the red block")
    body, cameras = model.embodiment, [wam.CameraInfo(*camera) for camera in model.embodiment.cameras]
    arm = wam.MockHal(clock, joints=body.limits.names, cameras=cameras, start=[0.0, 1.2, -1.6, -1.2])
    with wam.Runner(session, arm, body.limits, control_hz=100, clock=clock, record=300.0, **PATIENT) as run:
        for prompt in ("touch the green block", "push the blue block to the left"):
            until(run, lambda: run.stats["chunks"] >= 1)
            session.set_prompt(prompt)
            before = run.stats["chunks"]
            until(run, lambda n=before: run.stats["chunks"] >= n + 2)
    record = run.record()
    first = np.flatnonzero(record["chunk"] >= 0)[0]
    assert (record["chunk"][first:] >= 0).all() and np.isfinite(record["command"]).all()
    assert record["chunk"][-1] >= 4


def test_an_emergency_stop_is_on_file_while_the_run_goes_on(tmp_path):
    clock = wam.SystemClock()
    arm = wam.MockHal(clock, joints=NAMES)
    with wam.Runner(SinePolicy(), arm, limits(), control_hz=100, clock=clock, dump=str(tmp_path), **PATIENT) as run:
        until(run, lambda: run.stats["chunks"] >= 1)
        run.estop()
        until(run, lambda: run.stats["dumps"])
        assert run.running and run.stats["dump_error"] == ""
    first, last = run.stats["dumps"]
    r = wam.read_record(first)
    assert r.why.startswith("emergency stop") and r.phase[-1] == "estop" and "follow" in r.phase
    assert wam.read_record(last).why == "asked to stop"


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
        import robots as t, wamcore as wam
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
