"""MJCF, as MuJoCo itself compiles it: defaults, units, includes and automatic limits are its affair."""

from __future__ import annotations

from pathlib import Path

import mujoco

from .._core import ConfigError
from .description import INF, Description, Frame, Joint

KINDS = {int(mujoco.mjtJoint.mjJNT_HINGE): "hinge", int(mujoco.mjtJoint.mjJNT_SLIDE): "slide"}


def describe(path: Path) -> Description:
    """The description that an MJCF file holds. Bodies on free or ball joints are things, not the robot: no frames.

    Raises:
        ConfigError: MuJoCo does not take the file, or a joint has no name.
    """
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as e:
        raise ConfigError(f"read_description: {path}: {e}") from e
    joints: dict[str, Joint] = {}
    for i in range(model.njnt):
        joint = model.joint(i)
        if (kind := KINDS.get(int(joint.type[0]))) is None:
            continue
        if not joint.name:
            raise ConfigError(f"read_description: {path}: joint {i} has no name")
        low, high = joint.range if joint.limited[0] else (-INF, INF)
        joints[joint.name] = Joint(joint.name, kind, float(low), float(high))
    return Description(path, joints, *_frames(model))


def _frames(model: mujoco.MjModel) -> tuple[list[Frame], dict[str, int]]:
    frames: list[Frame] = []
    place: dict[int, int] = {0: -1}  # body -> its frame
    links: dict[str, int] = {}
    for b in range(1, model.nbody):
        body, parent = model.body(b), int(model.body_parentid[b])
        mine = [model.joint(int(body.jntadr[0]) + k) for k in range(int(body.jntnum[0]))]
        if parent not in place or any(int(j.type[0]) not in KINDS for j in mine):
            continue
        at, rotation, above = tuple(map(float, body.pos)), tuple(map(float, body.quat)), place[parent]
        for joint in mine:  # a joint turns about its anchor, which need not be the body's origin
            anchor = tuple(map(float, joint.pos))
            frames.append(Frame(f"{body.name}: {joint.name}, fixed", above, at, rotation))
            start = float(model.qpos0[int(joint.qposadr[0])])
            frames.append(
                Frame(
                    f"{body.name}: {joint.name}",
                    len(frames) - 1,
                    anchor,
                    kind=KINDS[int(joint.type[0])],
                    joint=joint.name,
                    axis=tuple(map(float, joint.axis)),
                    offset=-start,
                )
            )
            at, rotation, above = tuple(-a for a in anchor), (1.0, 0.0, 0.0, 0.0), len(frames) - 1
        frames.append(Frame(body.name, above, at, rotation))
        place[b] = links[body.name] = len(frames) - 1
    return frames, links
