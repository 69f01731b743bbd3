"""`wamcore inspect`: what a flight record holds, in words and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .._core import ConfigError
from ..record import FlightRecord, read_record
from .tables import table

SHADES = {"hold": "#f2e2b3", "stop": "#f0b8a8", "stopped": "#dddddd", "estop": "#e07a6a"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, help="a flight record, flight-*.safetensors")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write the picture here (default: beside the record)")
    parser.add_argument("--no-plot", action="store_true", help="words only")


def run(args: argparse.Namespace) -> int:
    record = read_record(args.record)
    print(tell(record))
    if args.no_plot:
        return 0
    path = args.plot or args.record.with_suffix(".png")
    try:
        plot(record, path)
    except ImportError as e:
        raise ConfigError(f"no picture without matplotlib ({e.name} is missing): pip install matplotlib") from e
    print(f"\nwrote {path}")
    return 0


def tell(r: FlightRecord) -> str:
    """The record for people."""
    n = len(r.t_ns)
    if n == 0:
        return f"an empty record; the run ended: {r.why}"
    seconds = (int(r.t_ns[-1]) - int(r.t_ns[0])) * 1e-9
    period = seconds / max(1, n - 1)
    lines = [f"{seconds:.2f} s, {n} servo cycles of {len(r.joints)} joints; the run ended: {r.why}", ""]
    count = {p: int((r.phase == p).sum()) for p in dict.fromkeys(r.phase.tolist())}
    lines.append("  phases:  " + ", ".join(f"{k} {v * period:.2f} s" for k, v in count.items()))
    why = {x: int((r.reason == x).sum()) for x in dict.fromkeys(r.reason.tolist()) if x != "none"}
    lines.append("  changed by:  " + (", ".join(f"{k} {v}" for k, v in why.items()) or "no stage"))
    age = r.obs_age[np.isfinite(r.obs_age)]
    if len(age):
        lines.append(f"  age of the observation: median {np.median(age):.3f} s, most {age.max():.3f} s")
    lines += ["", table(list(_joint_rows(r, period)), ("joint", "from", "to", "max speed", "of limit", "max error"))]
    return "\n".join(lines)


def _joint_rows(r: FlightRecord, period: float):
    for j, name in enumerate(r.joints):
        q = r.command[:, j]
        speed = np.abs(np.diff(q)).max() / period if len(q) > 1 else 0.0
        error = np.abs(q - r.measured[:, j]).max()
        share = speed / r.limits["velocity_max"][j]
        yield name, f"{q.min():+.3f}", f"{q.max():+.3f}", f"{speed:.3f} rad/s", f"{share:.0%}", f"{error:.4f} rad"


def plot(r: FlightRecord, path: Path) -> None:
    """Writes a PNG: reference, command and measured of each joint, shaded where the robot was not following."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = len(r.joints)
    figure, axes = plt.subplots(rows + 1, 1, figsize=(11, 1.4 + 1.7 * rows), sharex=True, layout="constrained")
    t = (r.t_ns.astype(np.int64) - int(r.t_ns[-1] if len(r.t_ns) else 0)) * 1e-9
    for j, name in enumerate(r.joints):
        axes[j].plot(t, r.reference[:, j], color="#d1495b", linewidth=1.0)
        axes[j].plot(t, r.command[:, j], color="#2e6f95", linewidth=2.0)
        axes[j].plot(t, r.measured[:, j], color="#111111", linewidth=1.0, linestyle="--")
        axes[j].set_ylabel(f"{name}  [rad]")
    axes[-1].plot(t, r.obs_age, color="#555555", linewidth=1.0)
    axes[-1].set_ylabel("age [s]")
    axes[-1].set_xlabel("time before the end [s]")
    for axis in axes:
        axis.grid(True, alpha=0.25)
        for phase, shade in SHADES.items():
            for begin, end in _spans(r.phase == phase):
                axis.axvspan(t[begin], t[min(end, len(t) - 1)], color=shade, zorder=0)
    handles = [
        Line2D([], [], color="#d1495b", label="reference"),
        Line2D([], [], color="#2e6f95", linewidth=2, label="command"),
        Line2D([], [], color="#111111", linestyle="--", label="measured"),
        *(Patch(color=shade, label=phase) for phase, shade in SHADES.items()),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spans(mask: np.ndarray):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return zip(edges[::2], edges[1::2], strict=True)
