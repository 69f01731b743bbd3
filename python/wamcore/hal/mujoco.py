"""A MuJoCo world as a robot: physics advances by the time between commands, so virtual and wall time both work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import sim  # noqa: F401  chooses MuJoCo's OpenGL before mujoco is imported
from .._core import CameraInfo, Description, Hal, JointInfo, Status

MAX_STEP = 0.1  # s of physics that one command may cause: after a pause the world does not race to catch up


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
        self._last_ns = 0
        self._active = False

    def configure(self, config) -> Description:
        s = self.scene
        limits = zip(s.joint_names, s.position_min, s.position_max, s.velocity_max, s.acceleration_max, strict=True)
        return Description(
            joints=[
                JointInfo(name=n, position_min=low, position_max=high, velocity=v, acceleration=a)
                for n, low, high, v, a in limits
            ],
            cameras=[CameraInfo(name=n, height=h, width=w) for n, (h, w) in self.cameras.items()],
        )

    def activate(self, mode) -> None:
        for height, width in self.cameras.values():  # the first picture takes long: before anybody waits for it
            self.picture(width, height)
        self._active, self._last_ns = True, 0

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scene.q, self.scene.dq

    def write(self, command) -> Status:
        if not self._active:
            return Status.fault
        passed = (command.t_ns - self._last_ns) * 1e-9 if self._last_ns else 0.0
        self._last_ns = command.t_ns
        self.scene.advance(min(passed, MAX_STEP), command.q)
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
