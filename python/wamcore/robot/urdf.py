"""URDF, read strictly: what is contradictory is an error, what has nothing to do with motion is not looked at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET

from .._core import ConfigError
from .description import Description, Frame, Joint

MAX_BYTES = 16 << 20
KINDS = {"revolute": "hinge", "continuous": "hinge", "prismatic": "slide", "fixed": "fixed"}


def parse(path: Path) -> ET.Element:
    """The root element of a file without document type, which no description needs and which may hold entity bombs.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"read_description: {path}: {e.strerror}") from e
    if len(data) > MAX_BYTES:
        raise ConfigError(f"read_description: {path}: wanted at most {MAX_BYTES} bytes, got {len(data)}")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ConfigError(f"read_description: {path}: wanted a file without document type, got one")
    try:
        return ET.fromstring(data)
    except ET.ParseError as e:
        raise ConfigError(f"read_description: {path}: {e}") from e


def describe(root: ET.Element, path: Path) -> Description:
    """The description that a <robot> element holds.

    Raises:
        ConfigError: joints or links are missing, doubled or in a circle, or a number is none.
    """
    return _Reader(root, path).read()


class _Reader:
    def __init__(self, root: ET.Element, path: Path):
        self.root, self.path = root, path
        self.joints: dict[str, Joint] = {}
        self.elements: dict[str, ET.Element] = {}

    def refuse(self, what: str) -> NoReturn:
        raise ConfigError(f"read_description: {self.path}: {what}")

    def read(self) -> Description:
        links = [e.get("name") or self.refuse("a link has no name") for e in self.root.findall("link")]
        if len(set(links)) != len(links) or not links:
            self.refuse("wanted links of different names, got " + ("none" if not links else "one twice"))
        for element in self.root.findall("joint"):
            name = element.get("name") or self.refuse("a joint has no name")
            if name in self.elements:
                self.refuse(f"joint '{name}' is there twice")
            self.elements[name] = element
            kind = element.get("type", "")
            if kind not in KINDS:
                self.refuse(f"joint '{name}': wanted type {', '.join(KINDS)}, got '{kind}'")
            if KINDS[kind] != "fixed":
                self.joints[name] = self.joint(element, name, kind)
        for joint in self.joints.values():
            if joint.follows is not None and joint.follows not in self.joints:
                self.refuse(f"joint '{joint.name}' mimics '{joint.follows}', which is no joint that moves")
            if joint.follows is not None and self.joints[joint.follows].follows is not None:
                self.refuse(f"joint '{joint.name}' mimics '{joint.follows}', which does not move by itself")
        frames, numbers = self.frames(links)
        return Description(self.path, self.joints, frames, numbers)

    def joint(self, element: ET.Element, name: str, kind: str) -> Joint:
        limit, mimic = element.find("limit"), element.find("mimic")
        velocity, low, high = math.inf, -math.inf, math.inf
        if limit is None and kind != "continuous":
            self.refuse(f"joint '{name}': wanted <limit>, got none")
        if limit is not None:
            velocity = self.number(limit, "velocity", name)
            if not velocity > 0:
                self.refuse(f"joint '{name}': wanted a velocity limit above 0, got {velocity}")
            if kind != "continuous":
                low, high = self.number(limit, "lower", name, 0.0), self.number(limit, "upper", name, 0.0)
                if not low < high:
                    self.refuse(f"joint '{name}': wanted lower < upper, got {low} and {high}")
        follows = None if mimic is None else mimic.get("joint", "")
        return Joint(name, KINDS[kind], low, high, velocity, follows)

    def number(self, element: ET.Element, key: str, name: str, default: float | None = None) -> float:
        text = element.get(key)
        if text is None and default is not None:
            return default
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.refuse(f"joint '{name}': <{element.tag}> {key}: wanted a finite number, got {text!r}")
        return value

    def three(self, element: ET.Element | None, key: str, name: str, default: tuple) -> tuple[float, float, float]:
        if element is None or element.get(key) is None:
            return default
        words = element.get(key, "").split()
        try:
            values = tuple(float(w) for w in words)
        except ValueError:
            values = ()
        if len(values) != 3 or not all(map(math.isfinite, values)):
            self.refuse(f"joint '{name}': <{element.tag}> {key}: wanted three numbers, got {element.get(key)!r}")
        return values

    def frames(self, links: list[str]) -> tuple[list[Frame], dict[str, int]]:
        """The links as frames, parents first."""
        above: dict[str, str] = {}  # link -> the joint that carries it
        for name, element in self.elements.items():
            ends = [(e.get("link", "") if (e := element.find(k)) is not None else "") for k in ("parent", "child")]
            for link in ends:
                if link not in links:
                    self.refuse(f"joint '{name}' names the link '{link}', which is not there")
            if ends[1] in above:
                self.refuse(f"link '{ends[1]}' hangs on two joints, '{above[ends[1]]}' and '{name}'")
            above[ends[1]] = name
        roots = [link for link in links if link not in above]
        if len(roots) != 1:
            self.refuse(f"wanted one link that hangs on no joint, got {roots}")
        frames, numbers = [Frame(roots[0], -1)], {roots[0]: 0}
        waiting = dict(above)
        while waiting:
            ready = [link for link, joint in waiting.items() if self.parent(joint) in numbers]
            if not ready:
                self.refuse(f"the links {sorted(waiting)} hang on each other in a circle")
            for link in ready:
                frames.append(self.frame(link, waiting.pop(link), numbers))
                numbers[link] = len(frames) - 1
        return frames, numbers

    def parent(self, joint: str) -> str:
        return self.elements[joint].find("parent").get("link")  # type: ignore[union-attr, return-value]

    def frame(self, link: str, name: str, numbers: dict[str, int]) -> Frame:
        element, joint = self.elements[name], self.joints.get(name)
        origin, mimic = element.find("origin"), element.find("mimic")
        place = self.three(origin, "xyz", name, (0.0, 0.0, 0.0))
        rotation = quaternion(*self.three(origin, "rpy", name, (0.0, 0.0, 0.0)))
        parent = numbers[self.parent(name)]
        if joint is None:
            return Frame(link, parent, place, rotation)
        axis = self.three(element.find("axis"), "xyz", name, (1.0, 0.0, 0.0))
        length = math.hypot(*axis)
        if length < 1e-6:
            self.refuse(f"joint '{name}': wanted an axis of some length, got {axis}")
        if joint.kind == "slide" and abs(length - 1) > 1e-3:  # readers differ in what such a joint's metres mean
            self.refuse(f"joint '{name}': wanted an axis of length 1 for a sliding joint, got {length:g}")
        unit = (axis[0] / length, axis[1] / length, axis[2] / length)
        scale = 1.0 if mimic is None else self.number(mimic, "multiplier", name, 1.0)
        offset = 0.0 if mimic is None else self.number(mimic, "offset", name, 0.0)
        return Frame(link, parent, place, rotation, joint.kind, joint.follows or name, unit, scale, offset)


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Of a rotation about the fixed axes x, then y, then z, rad; w x y z."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a / 2), math.sin(a / 2)) for a in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )
