"""What a robot's own files say about it: joints with their limits, and how its frames hang together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .._core import ConfigError

INF = float("inf")


@dataclass(frozen=True)
class Joint:
    """A joint as the file states it; rad for a hinge, m for a slide; infinite means "not stated"."""

    name: str
    kind: str  # "hinge" or "slide"
    position_min: float = -INF
    position_max: float = INF
    velocity: float = INF  # rad/s
    follows: str | None = None  # the joint it mimics


@dataclass(frozen=True)
class Frame:
    """A frame on the robot: fixed in its parent, then turned or shifted by a joint.

    It lies at `position`, `rotation` in its parent, and its own joint moves it by `scale * q + offset` about or along
    `axis`.
    """

    name: str
    parent: int  # number of the parent frame, -1 = the world
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m
    rotation: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)  # unit quaternion w x y z
    kind: str = "fixed"  # or "hinge", "slide"
    joint: str | None = None
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)  # unit vector
    scale: float = 1.0
    offset: float = 0.0  # rad or m


@dataclass(frozen=True)
class Description:
    """A robot as its file describes it."""

    path: Path
    joints: dict[str, Joint]
    frames: list[Frame]  # parents before their children
    links: dict[str, int] = field(default_factory=dict)  # number of the frame of each link or body

    def poses(self, positions: dict[str, float]) -> dict[str, np.ndarray]:
        """Where every link is, {name: float64 [4, 4]}, by the plain definition.

        Args:
            positions: {joint: rad or m}; joints that are not named stand at 0.
        """
        world: list[np.ndarray] = []
        for f in self.frames:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = matrix_of(f.rotation), f.position
            moved = f.scale * positions.get(f.joint or "", 0.0) + f.offset
            motion = np.eye(4)
            if f.kind == "hinge":
                half = moved / 2
                motion[:3, :3] = matrix_of((np.cos(half), *(np.sin(half) * np.array(f.axis))))
            elif f.kind == "slide":
                motion[:3, 3] = moved * np.array(f.axis)
            world.append((np.eye(4) if f.parent < 0 else world[f.parent]) @ pose @ motion)
        return {name: world[i] for name, i in self.links.items()}


def read_description(path: Path) -> Description:
    """Reads a URDF or an MJCF file; the root element says which it is.

    Args:
        path: the file.

    Raises:
        ConfigError: it is neither, or it is contradictory; an MJCF file and MuJoCo is not installed.
    """
    from . import urdf

    root = urdf.parse(path)
    if root.tag == "robot":
        return urdf.describe(root, path)
    if root.tag == "mujoco":
        try:
            from . import mjcf
        except ImportError as e:
            raise ConfigError(f"read_description: {path}: MuJoCo reads MJCF files: pip install 'wamcore[sim]'") from e
        return mjcf.describe(path)
    raise ConfigError(f"read_description: {path}: wanted <robot> (URDF) or <mujoco> (MJCF), got <{root.tag}>")


def matrix_of(q: tuple[float, float, float, float]) -> np.ndarray:
    """The rotation matrix [3, 3] of a unit quaternion w x y z."""
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
