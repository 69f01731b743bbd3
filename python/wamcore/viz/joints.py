"""A plot of what the model asked of each joint, what was commanded and what the joint did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

TARGET, COMMAND, MEASURED, SEAM = "#d1495b", "#2e6f95", "#111111", "#b0a160"


@dataclass
class JointTrace:
    """One episode at servo rate.

    Args:
        title: shown above the column.
        t: s [n].
        command: after the safety filter, rad [n, dof].
        measured: rad [n, dof].
        chunk: sequence number of the chunk in execution, -1 for none [n].
        targets: of each chunk, (s [rows], rad [rows, dof]).
    """

    title: str
    t: np.ndarray
    command: np.ndarray
    measured: np.ndarray
    chunk: np.ndarray
    targets: list[tuple[np.ndarray, np.ndarray]]

    def seams(self) -> np.ndarray:
        """Times at which one chunk takes over from another, s."""
        change = np.flatnonzero(np.diff(self.chunk)) + 1
        return self.t[change[self.chunk[change] >= 0]]


def plot_joints(path: Path, names: list[str], traces: list[JointTrace]) -> None:
    """Writes a PNG: one row per joint, one column per episode.

    Args:
        path: file to write.
        names: of the joints.
        traces: episodes to show; three or four are legible.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    rows, columns = len(names), len(traces)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1 + 5.2 * columns, 1.2 + 1.9 * rows), sharex="col", squeeze=False, layout="constrained"
    )
    for column, trace in enumerate(traces):
        for row, name in enumerate(names):
            axis = axes[row, column]
            _draw(axis, trace, row)
            if column == 0:
                axis.set_ylabel(f"{name}  [rad]")
        axes[0, column].set_title(trace.title, fontsize=10)
        axes[-1, column].set_xlabel("time [s]")
    handles = [
        Line2D([], [], color=TARGET, marker=".", linewidth=0, label="target of the model, each chunk's rows"),
        Line2D([], [], color=COMMAND, linewidth=2.2, label="command after the safety filter"),
        Line2D([], [], color=MEASURED, linewidth=1.1, linestyle="--", label="measured"),
        Line2D([], [], color=SEAM, linewidth=1, label="seam: a chunk takes over"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4 if columns > 1 else 2, frameon=False, fontsize=9)
    figure.align_ylabels(axes[:, 0])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axis, trace: JointTrace, joint: int) -> None:
    for seam in trace.seams():
        axis.axvline(seam, color=SEAM, linewidth=1, zorder=0)
    for index, (t, q) in enumerate(trace.targets):
        shade = 1.0 if index % 2 == 0 else 0.5  # neighbours overlap; they must be told apart
        axis.plot(t, q[:, joint], ".", color=TARGET, alpha=shade, markersize=3.5, zorder=5)
    axis.plot(trace.t, trace.command[:, joint], color=COMMAND, linewidth=2.2, zorder=3)
    axis.plot(trace.t, trace.measured[:, joint], color=MEASURED, linewidth=1.1, linestyle="--", zorder=4)
    if len(trace.t) and trace.t[-1] > trace.t[0]:  # an episode may end before it began
        axis.set_xlim(trace.t[0], trace.t[-1])
    axis.grid(True, alpha=0.25)
    axis.margins(y=0.08)
