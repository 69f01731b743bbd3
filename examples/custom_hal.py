"""A robot driver of your own: seven methods, and frame() if there are cameras. Here the robot is a filter in memory."""

import time

import numpy as np
import wamcore as wam


class Spring(wam.Hal):
    """Joints that follow their targets with a lag of 50 ms; the camera shows grey."""

    def configure(self, config):
        self.joints = ["yaw", "shoulder", "elbow", "wrist"]
        self.q = np.array([0.0, 1.2, -1.6, -1.2])  # rad
        self.target, self.last, self.active = self.q.copy(), time.monotonic(), False
        return wam.Description([wam.JointInfo(n) for n in self.joints], [wam.CameraInfo("scene", height=64, width=96)])

    def activate(self, mode):
        self.target, self.active = self.q.copy(), True  # hold what is measured

    def read(self):
        now = time.monotonic()
        lag, self.last = np.exp((self.last - now) / 0.05), now
        self.q = self.target + (self.q - self.target) * lag
        return self.q, (self.target - self.q) / 0.05  # rad, rad/s

    def write(self, command):
        if not self.active or time.monotonic_ns() > command.valid_until_ns:
            return wam.Status.fault  # a late command must not move anything
        self.target = command.q
        return wam.Status.ok

    def frame(self, camera):
        return np.full((64, 96, 3), 100, np.uint8)

    def deactivate(self):
        self.active = False

    def stop(self, kind):
        self.active = False

    def close(self):
        pass


if __name__ == "__main__":
    model = wam.load("tabletop")
    session = wam.Session(model, steps=4)
    session.set_prompt("touch the red block")
    robot = Spring()
    with wam.Runner(session, robot, model.embodiment.limits, control_hz=200) as runner:
        runner.wait(2.0)  # s; raises what stopped a thread
    print(f"{runner.stats['chunks']} chunks, {runner.stats['starved_ticks']} ticks without a fresh command")
