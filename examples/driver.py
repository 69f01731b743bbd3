"""A robot driver of seven methods, and all that it needs to run as it is, on a mock arm: python examples/driver.py"""

import time

import numpy as np
import wamcore as wam


class Bus:
    """Stands for a vendor's library: two joints that are where they are told to be, unless they are told too late."""

    def __init__(self, port):
        self.port, self.enabled = port, False
        self.q, self.until, self.refused = np.zeros(2), 0, 0

    def enable(self, q):
        self.q, self.enabled = np.array(q), True

    def angles(self):
        return self.q.copy()

    def speeds(self):
        return np.zeros(2)

    def move(self, q, until):
        if self.enabled and time.monotonic_ns() <= until:
            self.q = np.array(q)
        else:
            self.refused += 1

    def halt(self):
        self.enabled = False

    def close(self):
        self.port = None


class Arm(wam.Hal):
    def configure(self, config):  # connect; may be slow; moves nothing
        self.bus = Bus(config.parameters["port"])
        return wam.Description([wam.JointInfo(n, -2.0, 2.0) for n in ("shoulder", "elbow")])  # rad

    def activate(self, mode):
        self.bus.enable(self.bus.angles())  # hold what is measured

    def read(self):
        return self.bus.angles(), self.bus.speeds()  # rad, rad/s

    def write(self, command):  # the device refuses it after valid_until_ns
        self.bus.move(command.q, command.valid_until_ns)

    def stop(self, kind=None):
        self.bus.halt()

    deactivate = stop

    def close(self):
        self.bus.close()


class Nod(wam.Policy):
    """Stands for a model: chunks of 16 targets, 0.1 s apart, in which both joints swing."""

    sequence = 0

    def infer(self, obs):
        swing = 1 - np.cos(0.08 * (obs.tick + np.arange(16)))  # at rest at tick 0
        self.sequence += 1
        return wam.ActionChunk(np.outer(swing, [0.3, 0.6]), 0.1, obs, sequence=self.sequence)

    def dt(self):
        return 0.1  # s

    def horizon(self):
        return 16

    def dof(self):
        return 2


if __name__ == "__main__":
    limits = wam.JointLimits(["shoulder", "elbow"], [-1.5] * 2, [1.5] * 2, velocity=[2.0] * 2, acceleration=[20.0] * 2)
    arm = Arm()
    patience = {"command_validity": 1.0, "max_state_age": 1.0}  # s: a busy desktop is no fault of a mock arm
    with wam.Runner(Nod(), arm, limits, parameters={"port": "/dev/mock"}, **patience) as runner:
        runner.wait(3.0)  # s; raises what stopped a thread
    print(f"{runner.stats['chunks']} chunks; the elbow stands at {arm.bus.q[1]:.2f} rad")
