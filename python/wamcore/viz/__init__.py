"""Pictures of a run: a video of camera and imagined future, a plot of joints. Needs the extra `wamcore[sim]`."""

from .joints import JointTrace, plot_joints
from .video import Film, open_film

__all__ = ["Film", "JointTrace", "open_film", "plot_joints"]
