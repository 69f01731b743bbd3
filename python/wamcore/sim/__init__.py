"""The bundled MuJoCo world: `Tabletop` needs only mujoco and numpy."""

import ctypes.util
import os

if not os.environ.get("DISPLAY"):  # mujoco reads this once, when it is imported: import wamcore.sim before mujoco
    os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "osmesa")

from .tabletop import TASKS, TICK, SceneCamera, Tabletop, Task, inverse_kinematics

__all__ = ["TASKS", "TICK", "SceneCamera", "Tabletop", "Task", "inverse_kinematics"]
