"""Any robot of LeRobot as a driver: one adapter over its `connect`, `get_observation` and `send_action`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .._core import CameraInfo, Description, Hal, JointInfo, RobotError, Status

SUFFIX = ".pos"  # what LeRobot calls the position of a joint
HICCUPS = 3  # exchanges in a row that may get lost on the wire


class Robot(Protocol):
    """What the adapter needs of `lerobot.robots.Robot`."""

    is_connected: bool
    observation_features: dict[str, Any]
    action_features: dict[str, Any]

    def connect(self, calibrate: bool = True) -> None: ...
    def get_observation(self) -> dict[str, Any]: ...
    def send_action(self, action: dict[str, Any]) -> dict[str, Any]: ...
    def disconnect(self) -> None: ...


class LeRobot(Hal):
    """A robot of LeRobot. Its commands have no dead-man time: the runner's proxy holds it when commands expire.

    A packet lost on the wire (LeRobot raises ConnectionError) is a hiccup, the third in a row is a fault.

    Args:
        robot: an instance, connected or not.
        units: what one unit of each joint is in rad (or m): a number for all joints, or {joint: number}.
            math.pi / 180 for degrees, 1.0 for rad; for joints that LeRobot counts in percent of their calibrated range
            (`use_degrees=False`, and its grippers) what one percent is. No default: one taken for another moves far.
        joints: order of the joints without ".pos"; None for that of `action_features`.

    Raises:
        RobotError: the robot has no joints of that name, or an action that is no joint position.
    """

    def __init__(self, robot: Robot, *, units: float | dict[str, float], joints: list[str] | None = None):
        super().__init__()
        self.robot = robot
        named = [k for k in robot.action_features if k.endswith(SUFFIX)]
        others = sorted(set(robot.action_features) - set(named))
        if others:
            raise RobotError(f"LeRobot: wanted joint positions only ('name{SUFFIX}'), the robot also takes {others}")
        has = [k.removesuffix(SUFFIX) for k in named]
        self.joints = list(joints or has)
        if sorted(self.joints) != sorted(has):
            raise RobotError(f"LeRobot: wanted an order of {has}, got {self.joints}")
        scale = units if isinstance(units, dict) else dict.fromkeys(self.joints, units)
        if missing := sorted(set(self.joints) - set(scale)):
            raise RobotError(f"LeRobot: units name no {missing}")
        self.scale = np.array([scale[j] for j in self.joints], float)
        if not (np.isfinite(self.scale) & (self.scale != 0)).all():
            raise RobotError("LeRobot: units want finite numbers other than 0")
        features = robot.observation_features
        self.cameras = {k: tuple(v) for k, v in features.items() if isinstance(v, tuple) and len(v) == 3}
        self._pictures: dict[str, np.ndarray] = {}
        self._last: tuple[float, np.ndarray] | None = None  # s, rad
        self._ours = self._active = False
        self._lost: dict[str, int] = {}  # exchanges in a row, by what they are

    def configure(self, config) -> Description:
        if not self.robot.is_connected:
            self.robot.connect()
            self._ours = True
        return Description(
            joints=[JointInfo(name=j) for j in self.joints],
            cameras=[CameraInfo(name=n, height=h, width=w) for n, (h, w, _) in self.cameras.items()],
        )

    def activate(self, mode) -> None:
        self._hold()
        self._active = True

    def read(self) -> tuple[np.ndarray, np.ndarray] | Status:
        return self._unless_lost("read", self._measure)

    def write(self, command) -> Status:
        if not self._active:
            return Status.fault
        return Status.ok if self._unless_lost("write", lambda: self._send(command.q)) is None else Status.retry

    def _unless_lost(self, what: str, exchange: Callable[[], Any]) -> Any:
        """What the exchange gives, or Status.retry when it was lost; the last of HICCUPS in a row raises."""
        try:
            answer = exchange()
        except ConnectionError:
            self._lost[what] = self._lost.get(what, 0) + 1
            if self._lost[what] >= HICCUPS:
                raise
            return Status.retry
        self._lost[what] = 0
        return answer

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        seen = self.robot.get_observation()
        now = time.monotonic()
        q = np.array([float(seen[j + SUFFIX]) for j in self.joints]) * self.scale
        for name in self.cameras:
            self._pictures[name] = np.ascontiguousarray(seen[name], np.uint8)
        passed = now - self._last[0] if self._last else 0.0
        dq = (q - self._last[1]) / passed if passed > 0 else np.zeros(len(q))  # LeRobot measures no velocities
        self._last = now, q
        return q, dq

    def _hold(self) -> None:
        """Makes where it stands its target; raises what the last of HICCUPS attempts does."""
        self._lost.clear()
        while self._unless_lost("hold", lambda: self._send(self._measure()[0])) is Status.retry:
            pass

    def _send(self, q: np.ndarray) -> None:
        self.robot.send_action({j + SUFFIX: float(v) for j, v in zip(self.joints, q / self.scale, strict=True)})

    def deactivate(self) -> None:
        self._active = False

    def stop(self, kind) -> None:
        if self._active:
            self._active = False
            self._hold()

    def close(self) -> None:
        self._active = False
        if self._ours:
            self.robot.disconnect()
            self._ours = False

    def frame(self, camera: int) -> np.ndarray:
        name = list(self.cameras)[camera]
        if name not in self._pictures:
            self._measure()
        return self._pictures[name]
