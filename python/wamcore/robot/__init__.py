"""A robot's own files: `robot.toml`, and the URDF or MJCF that it names."""

from .description import Description, read_description
from .profile import RobotProfile, read_robot

__all__ = ["Description", "RobotProfile", "read_description", "read_robot"]
