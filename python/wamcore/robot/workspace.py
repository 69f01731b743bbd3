"""[workspace] of a robot.toml: spheres on the robot's links, and where they may be. Evaluated in C++."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import ConfigError, Workspace
from .description import Description
from .table import Table
from .units import Units
from .urdf import quaternion

SHAPES = ("half_space", "box", "cylinder", "sphere")
THREE = "three numbers"


def read_workspace(table: Table, description: Description, joints: list[str], units: Units) -> Workspace | None:
    """The workspace that a table describes; None for an empty one.

    Args:
        table: [workspace].
        description: the robot's links.
        joints: the robot's joints in its order; others stand at 0.
        units: of the table's numbers.

    Raises:
        ConfigError: a key is unknown, missing or contradictory.
    """
    if not table.values:
        return None
    margin = units.length * table.number("margin", "a number of at least 0") if table.has("margin") else 0.01
    tables = table.tables("spheres")
    spheres = [_sphere(one, description, units.length) for one in tables]
    regions = [_region(one, key == "keep_out", units) for key in ("keep_in", "keep_out") for one in table.tables(key)]
    apart = _pairs(table, [description.frames[s["frame"]].name for s in spheres])
    table.finish()
    frames = [
        {
            "parent": f.parent,
            "position": f.position,
            "rotation": f.rotation,
            "motion": f.kind,
            "joint": joints.index(f.joint) if f.joint in joints else -1,
            "axis": f.axis,
            "scale": f.scale,
            "offset": f.offset,
        }
        for f in description.frames
    ]
    try:
        return Workspace(len(joints), frames, spheres, regions, margin, apart)
    except ConfigError as e:
        raise ConfigError(f"read_robot: {table.file}: {table.where}: {e}") from e


def _sphere(table: Table, description: Description, unit: float) -> dict[str, Any]:
    link = table.text("link", "the name of a link of the description")
    if link not in description.links:
        table.refuse("link", f"one of {sorted(description.links)}", repr(link))
    at = [unit * v for v in table.numbers("at", 3, THREE)] if table.has("at") else [0.0, 0.0, 0.0]
    radius = unit * table.number("radius", "a positive number", positive=True)
    table.finish()
    return {"frame": description.links[link], "centre": at, "radius": radius}


def _pairs(table: Table, links: list[str]) -> list[tuple[int, int]]:
    """The spheres of two links that must not touch, each with each."""
    wanted = "pairs of different links that have spheres"
    pairs = table.values.pop("apart", [])
    if not isinstance(pairs, list):
        table.refuse("apart", wanted, repr(pairs))
    out = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1] or not set(map(str, pair)) <= set(links):
            table.refuse("apart", f"{wanted}, {sorted(set(links))}", repr(pair))
        out += [(i, j) for i, a in enumerate(links) for j, b in enumerate(links) if (a, b) == tuple(pair)]
    return out


def _region(table: Table, keep_out: bool, units: Units) -> dict[str, Any]:
    shape = table.text("shape", choices=SHAPES)
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)
    positive, unit = "a positive number", units.length
    if shape == "half_space":
        centre, size = table.numbers("point", 3, THREE), []
        rotation = _from_z(table)
    else:
        centre = table.numbers("centre", 3, THREE)
        if shape == "box":
            size = [v / 2 for v in table.numbers("size", 3, "the lengths of three edges")]
        else:
            size = [table.number("radius", positive, positive=True)]
        if shape == "cylinder":
            size.append(table.number("height", positive, positive=True) / 2)
        if shape != "sphere" and table.has("rpy"):
            rotation = quaternion(*(v * units.angle for v in table.numbers("rpy", 3, "roll, pitch and yaw")))
    table.finish()
    return {
        "shape": shape,
        "keep_out": keep_out,
        "centre": [unit * v for v in centre],
        "rotation": rotation,
        "size": [unit * v for v in size],
    }


def _from_z(table: Table) -> tuple[float, float, float, float]:
    """The rotation that turns z into `normal`."""
    n = np.array(table.numbers("normal", 3, "a direction of three numbers"))
    length = float(np.linalg.norm(n))
    if length < 1e-9:
        table.refuse("normal", "a direction of three numbers", n.tolist())
    x, y, z = n / length
    if z < -1 + 1e-12:
        return (0.0, 1.0, 0.0, 0.0)
    w = math.sqrt((1 + z) / 2)
    return (w, float(-y / (2 * w)), float(x / (2 * w)), 0.0)
