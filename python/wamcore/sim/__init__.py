"""The bundled MuJoCo world: `Tabletop` needs only mujoco and numpy."""

import os

if not os.environ.get("DISPLAY"):  # mujoco reads this once, when it is imported
    os.environ.setdefault("MUJOCO_GL", "egl")

from .tabletop import TASKS, TICK, SceneCamera, Tabletop, Task, inverse_kinematics

__all__ = ["TASKS", "TICK", "SceneCamera", "Tabletop", "Task", "inverse_kinematics"]
