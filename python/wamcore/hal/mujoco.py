"""A MuJoCo world as a robot: physics advances by the time between commands, so virtual and wall time both work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import sim  # noqa: F401  chooses MuJoCo's OpenGL before mujoco is imported
from .._core import CameraInfo, Description, Hal, JointInfo, State, Status

MAX_STEP = 0.1  # s of physics that one command may cause: after a pause the world does not race to catch up
LAPSED = 1  # fault bit: a command has expired before the next came


class Scene(Protocol):
    """What the driver needs of a world; `wamcore.sim.Tabletop` is one."""

    joint_names: tuple[str, ...]
    position_min: np.ndarray  # rad [dof]
    position_max: np.ndarray  # rad [dof]
    velocity_max: np.ndarray  # rad/s [dof]
    acceleration_max: np.ndarray  # rad/s^2 [dof]
    q: np.ndarray  # rad [dof]
    dq: np.ndarray  # rad/s [dof]

    def advance(self, dt: float, q_target: np.ndarray) -> None: ...
    def frame(self, width: int, height: int) -> np.ndarray: ...
    def close(self) -> None: ...


class MuJoCo(Hal):
    """A simulated robot.

    Args:
        scene: a `Scene`, or the path of an MJCF file whose joints have position actuators.
        cameras: {name: (height, width)} in pixels; None for the scene's camera at 64 x 96.
        joints: with an MJCF file, the order of joints; None for that of its actuators.

    Raises:
        RobotError: the MJCF file is not usable.
    """

    def __init__(
        self,
        scene: Scene | str | Path,
        *,
        cameras: dict[str, tuple[int, int]] | None = None,
        joints: list[str] | None = None,
    ):
        super().__init__()
        if isinstance(scene, (str, Path)):
            from .mjcf import MjcfScene

            scene = MjcfScene(Path(scene), joints)
        self.scene = scene
        self.cameras = dict(cameras or {"scene": (64, 96)})
        self._drawing: ThreadPoolExecutor | None = None
        self._last_ns = self._until_ns = 0
        self._command = np.empty(0)  # the last one, rad [dof]
        self._active = self._lapsed = False

    def configure(self, config) -> Description:
        s = self.scene
        limits = zip(s.joint_names, s.position_min, s.position_max, s.velocity_max, s.acceleration_max, strict=True)
        return Description(
            joints=[
                JointInfo(name=n, position_min=low, position_max=high, velocity=v, acceleration=a)
                for n, low, high, v, a in limits
            ],
            cameras=[CameraInfo(name=n, height=h, width=w) for n, (h, w) in self.cameras.items()],
            has_hw_watchdog=True,
        )

    def activate(self, mode) -> None:
        for height, width in self.cameras.values():  # the first picture takes long: before anybody waits for it
            self.picture(width, height)
        self._active, self._lapsed, self._last_ns = True, False, 0

    def read(self) -> State:
        return State(self.scene.q, self.scene.dq, fault_bits=LAPSED if self._lapsed else 0)

    def write(self, command) -> Status:
        if not self._active or command.valid_until_ns <= command.t_ns:  # or it had expired when it was issued
            return Status.fault
        passed = min((command.t_ns - self._last_ns) * 1e-9, MAX_STEP) if self._last_ns else 0.0
        if self._last_ns and command.t_ns > self._until_ns:  # the arm followed until that expired, then it stood
            driven = min((self._until_ns - self._last_ns) * 1e-9, passed)
            self.scene.advance(driven, self._command)
            self.scene.advance(passed - driven, self.scene.q)
            passed, self._lapsed = 0.0, True
        self._last_ns, self._until_ns, self._command = command.t_ns, command.valid_until_ns, command.q
        self.scene.advance(passed, command.q)
        return Status.ok

    def deactivate(self) -> None:
        self._active = False

    def stop(self, kind) -> None:
        self._active = False

    def close(self) -> None:
        self._active = False
        if self._drawing is not None:
            self._drawing.submit(self.scene.close).result()
            self._drawing.shutdown()
            self._drawing = None

    def frame(self, camera: int) -> np.ndarray:
        height, width = list(self.cameras.values())[camera]
        return self.picture(width, height)

    def picture(self, width: int, height: int) -> np.ndarray:
        """What the scene's camera sees, uint8 [height, width, 3]; from any thread."""
        if self._drawing is None:  # an OpenGL context belongs to the thread that made it
            self._drawing = ThreadPoolExecutor(1, "wamcore-render")
        return self._drawing.submit(self.scene.frame, width, height).result()
