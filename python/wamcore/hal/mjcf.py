"""Any MJCF file with position actuators, as a scene for the MuJoCo driver."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from .._core import RobotError


class MjcfScene:
    """A world read from a file.

    Args:
        path: the MJCF file.
        joints: order of the joints; None for that of the actuators.
        camera: name of the camera that `frame` renders; None for the first.

    Raises:
        RobotError: the file does not compile, or a joint has no limits or no position actuator.
    """

    def __init__(self, path: Path, joints: list[str] | None = None, camera: str | None = None):
        try:
            self.model = mujoco.MjModel.from_xml_path(str(path))
        except ValueError as e:
            raise RobotError(f"MjcfScene: {path}: {e}") from e
        self.data = mujoco.MjData(self.model)
        m = self.model
        driven = {m.joint(m.actuator_trnid[i, 0]).name: i for i in range(m.nu) if _drives_position(m, i)}
        self.joint_names = tuple(joints or driven)
        for name in self.joint_names:
            if name not in driven:
                raise RobotError(
                    f"MjcfScene: wanted a joint with a position actuator, got '{name}'; there are {[*driven]}"
                )
            if not m.joint(name).limited[0]:
                raise RobotError(f"MjcfScene: joint '{name}' has no range")
        self._actuators = [driven[n] for n in self.joint_names]
        self._qpos = [int(m.joint(n).qposadr[0]) for n in self.joint_names]
        self._dof = [int(m.joint(n).dofadr[0]) for n in self.joint_names]
        bounds = np.array([m.joint(n).range for n in self.joint_names])
        self.position_min, self.position_max = bounds[:, 0], bounds[:, 1]
        self.velocity_max = self.acceleration_max = np.full(len(bounds), np.inf)  # MJCF states none
        self._camera = camera or (m.camera(0).name if m.ncam else -1)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._remainder = 0.0  # s of time asked for and not yet simulated
        mujoco.mj_forward(m, self.data)
        self.data.ctrl[self._actuators] = self.q

    @property
    def q(self) -> np.ndarray:
        """Measured joint positions, rad [dof]."""
        return self.data.qpos[self._qpos].copy()

    @property
    def dq(self) -> np.ndarray:
        """Measured joint velocities, rad/s [dof]."""
        return self.data.qvel[self._dof].copy()

    def advance(self, dt: float, q_target: np.ndarray) -> None:
        """Advances by `dt` s with the joint targets at `q_target`, rad [dof]."""
        self.data.ctrl[self._actuators] = q_target
        self._remainder += dt
        while self._remainder >= self.model.opt.timestep - 1e-9:
            self._remainder -= self.model.opt.timestep
            mujoco.mj_step(self.model, self.data)

    def frame(self, width: int, height: int) -> np.ndarray:
        """What the camera sees, uint8 [height, width, 3]."""
        size = (width, height)
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(self.model, height, width)
        self._renderers[size].update_scene(self.data, camera=self._camera)
        return self._renderers[size].render().copy()

    def close(self) -> None:
        """Frees the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _drives_position(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator acts on a joint and its command is that joint's position."""
    on_joint = model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT
    kp = model.actuator_gainprm[actuator, 0]
    return bool(on_joint and kp > 0 and model.actuator_biasprm[actuator, 1] == -kp)
