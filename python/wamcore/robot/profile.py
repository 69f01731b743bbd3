"""robot.toml: what a robot may do, how a model's channels map to its joints, and which driver moves it."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import _core
from .._core import ChannelPolicy, Clock, ConfigError, Hal, JointLimits, Policy, Workspace
from .description import Description, Joint, read_description
from .table import Table, read_table
from .units import Units, read_units
from .workspace import read_workspace

SCHEMA = 1


@dataclass(frozen=True)
class Driver:
    """Which driver moves the robot; see `RobotProfile.open_driver`."""

    kind: str = "mock"
    library: Path | None = None
    name: str = ""  # of a driver in a library
    factory: str = ""  # "module:callable" of one in Python
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RobotProfile:
    """A robot as its robot.toml describes it.

    Attributes:
        path: the file.
        name: of the robot.
        description: what its URDF or MJCF file says.
        limits: JointLimits in the robot's order, rad (m for sliding joints).
        grippers: for the `grippers` option of Runner.
        actions, states: for each channel of the model (joint, scale, offset): joint = scale * channel + offset.
        workspace: where the safety filter lets it be; None = everywhere within the limits.
        driver: which one moves it.
        camera_latency: {camera: s}, from mid-exposure to the time that its frames claim to be of.
        state_latency: the same of the measured joints, s.
        first_step: how far from the measured joints a chunk may begin, rad or m for each; None: the filter's default.
    """

    path: Path
    name: str
    description: Description
    limits: JointLimits
    grippers: list[dict[str, Any]]
    actions: list[tuple[int, float, float]]
    states: list[tuple[int, float, float]]
    workspace: Workspace | None
    driver: Driver
    camera_latency: dict[str, float] = field(default_factory=dict)
    state_latency: float = 0.0
    first_step: list[float] | None = None

    def runner_options(self) -> dict[str, Any]:
        """Keyword arguments for Runner and VirtualRunner."""
        safety: dict[str, Any] = {} if self.workspace is None else {"workspace": self.workspace}
        if self.first_step is not None:
            safety["max_first_step"] = self.first_step
        return {
            "grippers": self.grippers,
            "parameters": self.driver.parameters,
            "safety": safety,
            "camera_latency": self.camera_latency,
            "state_latency": self.state_latency,
        }

    def policy(self, inner: Policy) -> Policy:
        """A policy that speaks of this robot's joints, in their order and units.

        Args:
            inner: the model's Session, or another Policy with the channels that the file names.

        Raises:
            ConfigError: it has another number of channels.
        """
        return ChannelPolicy(inner, self.actions, self.states)

    def open_driver(self, clock: Clock | None = None, cameras: list[_core.CameraInfo] | None = None) -> Hal:
        """The driver that the file names, not yet configured.

        Args:
            clock: the runner's clock; for "mock" only.
            cameras: names and sizes of the pictures that a mock robot or a simulator shall give.

        Raises:
            ConfigError, RobotError: it cannot be had.
        """
        from .. import hal

        if self.driver.kind == "library":
            return hal.load(str(self.driver.library), self.driver.name)
        if self.driver.kind == "python":
            return self.python_driver()
        if self.driver.kind == "mujoco-native":
            return hal.load(str(hal.build_driver("mujoco")))
        if self.driver.kind == "mujoco":
            sizes = {c.name: (c.height, c.width) for c in cameras or []}
            return hal.MuJoCo(self.description.path, cameras=sizes or None, joints=list(self.limits.names))
        middle = (self.limits.position_min + self.limits.position_max) / 2
        return hal.MockHal(clock, joints=list(self.limits.names), cameras=cameras or [], start=middle)

    def python_driver(self) -> Hal:
        """What the factory makes; its module may lie beside the file."""
        module, _, attribute = self.driver.factory.partition(":")
        folder = str(self.path.parent.resolve())
        sys.path.insert(0, folder)
        try:
            driver = getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError) as e:
            raise ConfigError(f"read_robot: {self.path}: driver.factory: {self.driver.factory}: {e}") from e
        finally:
            sys.path.remove(folder)
        if not isinstance(driver, Hal):
            raise ConfigError(
                f"read_robot: {self.path}: driver.factory: wanted a wamcore.Hal, got a {type(driver).__name__}"
            )
        return driver


def read_robot(path: str | Path, description: str | Path | None = None) -> RobotProfile:
    """Reads a robot.toml; docs/robot.md has the keys.

    Args:
        path: the file. Paths in it are relative to its folder.
        description: the URDF or MJCF file to read instead of the one it names, e.g. one inside an installed package.

    Raises:
        ConfigError: a key is unknown, missing or contradictory, or a limit is wider than the description's.
    """
    return _Reader(read_table(Path(path)), description).read()


class _Reader:
    def __init__(self, top: Table, description: str | Path | None):
        self.top, self.elsewhere = top, description
        self.steps: list[float] | None = None

    def read(self) -> RobotProfile:
        top = self.top
        if (schema := top.take("schema", f"{SCHEMA}")) != SCHEMA:
            top.refuse("schema", f"{SCHEMA}, the format this version reads", repr(schema))
        name = top.text("name")
        named = top.file.parent / top.text("description", "the path of a URDF or MJCF file")
        self.description = read_description(Path(self.elsewhere or named))
        units = top.table("units")
        self.units = read_units(units)
        units.finish()
        limits = self.limits()
        self.names = list(limits.names)
        self.position = list(zip(limits.position_min, limits.position_max, strict=True))
        grippers, ends = self.grippers()
        actions, states = self.channels(ends)
        workspace = read_workspace(top.table("workspace"), self.description, self.names, self.units)
        driver, late = self.driver(), self.latency()
        top.finish()
        return RobotProfile(
            top.file, name, self.description, limits, grippers, actions, states, workspace, driver, *late, self.steps
        )

    # --- joints

    def limits(self) -> JointLimits:
        if not self.top.has("joints"):
            self.top.refuse("joints", "a list of joints in the robot's order", "nothing")
        tables = self.top.tables("joints")
        rows: dict[str, list[float]] = {}
        for table in tables:
            name = table.text("name", "the name of a joint of the description")
            if name in rows:
                table.refuse("name", "every joint once", f"'{name}' again")
            if table.has("first_step"):
                self.first_step(table, name)
            rows[name] = self.joint(table, name)
        if self.steps is not None and len(self.steps) != len(tables):
            self.top.refuse("joints", "first_step for every joint or for none", f"{len(self.steps)} of {len(tables)}")
        held = self.top.values.pop("held", [])
        moving = {n for n, j in self.description.joints.items() if j.follows is None}
        if not isinstance(held, list) or not set(map(str, held)) <= moving - set(rows):
            self.top.refuse("held", "names of joints that are not in `joints`", repr(held))
        if left := sorted(moving - set(rows) - set(held)):
            self.top.refuse(
                "joints", f"every joint of {self.description.path.name} here or in `held`", f"none of {left}"
            )
        columns = [list(column) for column in zip(*rows.values(), strict=True)]
        try:
            return JointLimits(list(rows), *columns)
        except ConfigError as e:
            raise ConfigError(f"read_robot: {self.top.file}: {e}") from e

    def joint(self, table: Table, name: str) -> list[float]:
        """[position_min, position_max, velocity, acceleration, jerk] of a joint, in rad or m."""
        stated = self.described(table, name)
        unit = self.units.of(stated.kind)
        word = self.units.word(stated.kind)
        low, high, speed = stated.position_min, stated.position_max, stated.velocity
        if table.has("position"):
            low, high = (v * unit for v in table.numbers("position", 2, f"[from, to] in {word}"))
        elif math.isinf(low):
            table.refuse("position", f"[from, to] in {word}, since the description states no limits", "nothing")
        if table.has("velocity") or math.isinf(speed):
            speed = unit * table.number("velocity", f"a positive number of {word}/s", positive=True)
        acceleration = unit * table.number("acceleration", f"a positive number of {word}/s^2", positive=True)
        jerk = unit * table.number("jerk", f"a positive number of {word}/s^3", positive=True)
        wider = table.flag("wider_than_description")
        table.finish()
        if not low < high:
            table.refuse("position", "two numbers, the first below the second", f"[{low / unit:g}, {high / unit:g}]")
        own = (stated.position_min, stated.position_max)
        outside = low < own[0] - 1e-9 or high > own[1] + 1e-9
        if outside and not wider:
            said = f"[{own[0] / unit:g}, {own[1] / unit:g}] {word}"
            table.refuse("position", f"limits within the description's {said} or wider_than_description = true",
                         f"[{low / unit:g}, {high / unit:g}] {word}")  # fmt: skip
        fast = speed > stated.velocity * (1 + 1e-9)
        if fast and not wider:
            table.refuse("velocity", f"at most the description's {stated.velocity / unit:g} {word}/s or "
                         "wider_than_description = true", f"{speed / unit:g} {word}/s")  # fmt: skip
        if wider and not outside and not fast:
            table.refuse("wider_than_description", "it only where a limit is wider", "limits within the description's")
        return [low, high, speed, acceleration, jerk]

    def first_step(self, table: Table, name: str) -> None:
        kind = self.described(table, name).kind
        step = table.number("first_step", f"a positive number of {self.units.word(kind)}", positive=True)
        self.steps = [*(self.steps or []), step * self.units.of(kind)]

    def described(self, table: Table, name: str) -> Joint:
        stated = self.description.joints.get(name)
        if stated is None:
            table.refuse("name", f"one of {sorted(self.description.joints)}", repr(name))
        if stated.follows is not None:
            table.refuse("name", "a joint that moves by itself", f"'{name}', which mimics '{stated.follows}'")
        return stated

    def number_of(self, table: Table, key: str) -> int:
        name = table.text(key, "the name of a joint")
        if name not in self.names:
            table.refuse(key, f"one of {self.names}", repr(name))
        return self.names.index(name)

    # --- what the model speaks

    def grippers(self) -> tuple[list[dict[str, Any]], dict[int, tuple[float, float]]]:
        """Grippers for the runner, and for each joint of one the model's channel as (scale, offset)."""
        out, maps = [], {}
        for table in self.top.tables("grippers"):
            j = self.number_of(table, "joint")
            if j in maps:
                table.refuse("joint", "every gripper once", f"'{self.names[j]}' again")
            unit = self.units.of(self.description.joints[self.names[j]].kind)
            ends = [unit * table.number(key) for key in ("open", "closed")]
            low, high = self.position[j]
            if not all(low - 1e-9 <= end <= high + 1e-9 for end in ends):
                table.refuse("", f"open and closed within the joint's limits, [{low / unit:g}, {high / unit:g}]",
                             f"{[end / unit for end in ends]}")  # fmt: skip
            says = [table.number(key, "what the model says for it") for key in ("model_open", "model_closed")]
            if says[0] == says[1] or ends[0] == ends[1]:
                table.refuse("", "different numbers for open and closed", f"{ends} and {says}")
            scale = (ends[1] - ends[0]) / (says[1] - says[0])
            maps[j] = (scale, ends[0] - scale * says[0])
            entry = {"joint": j, "open": ends[0], "closed": ends[1]}
            if table.has("hysteresis"):
                entry["hysteresis"] = table.number("hysteresis", share := "a share from 0 to below 1", least=0.0)
                if entry["hysteresis"] >= 1:
                    table.refuse("hysteresis", share, repr(entry["hysteresis"]))
            table.finish()
            out.append(entry)
        return out, maps

    def channels(self, ends: dict[int, tuple[float, float]]) -> tuple[list, list]:
        table = self.top.table("channels")
        units = read_units(table) if table.values else Units()
        wanted = "names of joints in the order of the model's channels"
        action = table.texts("actions", wanted) if table.has("actions") else self.names
        state = table.texts("states", wanted) if table.has("states") else action
        table.finish()
        if sorted(action) != sorted(self.names):
            table.refuse("actions", f"every joint once, {sorted(self.names)}", repr(action))
        for name in state:
            if name not in self.names:
                table.refuse("states", f"some of {self.names}", repr(name))
        scales = {n: ends.get(j, (units.of(self.description.joints[n].kind), 0.0)) for j, n in enumerate(self.names)}
        maps = [[(self.names.index(n), *scales[n]) for n in names] for names in (action, state)]
        return maps[0], maps[1]

    # --- how late what it measures is

    def latency(self) -> tuple[dict[str, float], float]:
        """Latencies of the cameras by name and of the joints, s."""
        table = self.top.table("latency")
        seconds = "a number of s, at least 0"
        state = table.number("state", seconds, least=0.0) if table.has("state") else 0.0
        cameras = table.table("cameras")
        named = {name: cameras.number(name, seconds, least=0.0) for name in list(cameras.values)}
        table.finish()
        return named, state

    # --- what moves it

    def driver(self) -> Driver:
        table = self.top.table("driver")
        if not table.values:
            return Driver()
        kind = table.text("kind", choices=("mock", "mujoco", "mujoco-native", "library", "python"))
        library = (
            self.top.file.parent / table.text("library", "the path of a shared library") if kind == "library" else None
        )
        name = table.text("name") if kind == "library" and table.has("name") else ""
        factory = ""
        if kind == "python":
            factory = table.text("factory", '"module:callable"')
            if not all(factory.partition(":")):
                table.refuse("factory", '"module:callable"', repr(factory))
        parameters = table.table("parameters").values
        for key, value in parameters.items():
            if not isinstance(value, str):
                table.refuse(f"parameters.{key}", "a text", repr(value))
        table.finish()
        if kind == "mujoco-native":
            parameters |= {"model": str(self.description.path), "joints": ",".join(self.names)}
        return Driver(kind, library, name, factory, parameters)
