"""A robot and a policy of two joints that tests share."""

import threading

import numpy as np
import wamcore as wam

DT, HORIZON, DOF = 0.1, 16, 2
NAMES = ["shoulder", "elbow"]
# a busy machine is no fault here, nor that the sine goes on meanwhile
PATIENT = dict(max_state_age=5.0, command_validity=5.0, safety=dict(hold_time=60.0, first_step_time=0.4))


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


def until(runner, condition, patience=60.0):
    """Waits in short naps of the runner's own until the condition holds."""
    for _ in range(int(patience / 0.02)):
        if condition():
            return
        runner.wait(0.02)
    raise AssertionError(f"not reached: {runner.stats}")
