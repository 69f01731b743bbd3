"""Tabletop: a small MuJoCo world with three tasks, stepped in 50 ms ticks or as finely as a servo thread likes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import mujoco
import numpy as np

from . import scene

TICK = 0.05  # s
TASKS = ("touch", "push", "moving")
BOUNDS = ((0.21, 0.37), (-0.15, 0.15))  # m, x and y of moving blocks
GAP = 0.085  # m, moving blocks turn back when their centres come closer


@dataclass(frozen=True)
class Task:
    """What the instruction asks for.

    `kind` is "touch", "push" or "moving", `block` the index of the named block and `side` the sign of y
    a block is pushed to: +1 is right in the camera image, -1 left.
    """

    kind: str
    block: int
    side: int = 1


class SceneCamera:
    """Renders worlds that share one model; one off-screen renderer per image size, made on first use.

    Use it from one thread: an off-screen GL context belongs to the thread that made it.
    """

    def __init__(self, model: mujoco.MjModel):
        self._model = model
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def render(self, world: Tabletop, width: int, height: int) -> np.ndarray:
        """Returns what the scene camera sees, uint8 [height, width, 3]."""
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = self._renderers[width, height] = _renderer(self._model, width, height)
        with world.lock:
            for i in range(3):
                self._model.geom(f"block{i}").rgba[:3] = scene.COLOURS[world.colours[i]]
            renderer.update_scene(world.data, camera="scene")
        return renderer.render().copy()

    def close(self) -> None:
        """Frees the GL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    renderer = mujoco.Renderer(model, height, width)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return renderer


class Tabletop:
    """An arm, three of four coloured blocks and an instruction; everything follows from the seed.

    Tasks: "touch" (the first block touched must be the named one), "push" (bring the named block over the line on
    the named side, as seen in the image) and "moving" (touch while all blocks glide over the table).
    """

    joint_names = scene.JOINTS
    position_min = np.array(scene.POSITION_MIN)  # rad
    position_max = np.array(scene.POSITION_MAX)  # rad
    velocity_max = np.array(scene.VELOCITY_MAX)  # rad/s
    acceleration_max = np.array(scene.ACCELERATION_MAX)  # rad/s^2
    control_hz = 1.0 / TICK

    def __init__(self, seed: int = 0, task: str | None = None, camera: SceneCamera | None = None):
        self.haste = 1.0  # moving blocks glide that much faster than the model has seen; counts from the next reset
        self.lock = threading.Lock()  # held while physics advances and while a scene is read
        self.model = camera._model if camera else mujoco.MjModel.from_xml_string(scene.mjcf())
        self.data = mujoco.MjData(self.model)
        self._camera = camera
        self._own_camera = camera is None
        self._tip = self.model.site("tip").id
        self._finger = self.model.geom("finger").id
        self._block_geoms = [self.model.geom(f"block{i}").id for i in range(3)]
        self._block_qpos = [int(self.model.joint(f"block{i}").qposadr[0]) for i in range(3)]
        self._block_qvel = [int(self.model.joint(f"block{i}").dofadr[0]) for i in range(3)]
        self.reset(seed, task)

    # --- episodes

    def reset(self, seed: int, task: str | Task | None = None) -> str:
        """Starts an episode and returns its instruction.

        Args:
            seed: decides the colours, the layout, the starting pose and what `task` leaves open.
            task: "touch", "push", "moving", a `Task`, or None for any.
        """
        rng = np.random.default_rng(seed)
        if task is None:
            task = TASKS[rng.integers(len(TASKS))]
        if isinstance(task, str):
            if task not in TASKS:
                raise ValueError(f"Tabletop.reset: task must be one of {TASKS}, got {task!r}")
            task = Task(task, int(rng.integers(3)), int(rng.choice((-1, 1))))
        names = list(scene.COLOURS)
        self.colours = [names[i] for i in rng.permutation(len(names))[:3]]
        layout = _layout(rng, task)
        heading = rng.uniform(-np.pi, np.pi, 3)
        speed = rng.uniform(0.04, 0.06, 3)  # m/s
        start = inverse_kinematics(rng.uniform(0.19, 0.34), rng.uniform(-0.7, 0.7), rng.uniform(0.11, 0.19))
        with self.lock:
            mujoco.mj_resetData(self.model, self.data)
            for i in range(3):
                a, turn = self._block_qpos[i], rng.uniform(-0.3, 0.3)
                self.data.qpos[a : a + 3] = [*layout[i], scene.BLOCK_HALF]
                self.data.qpos[a + 3 : a + 7] = [np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
            self.data.qpos[:4] = self.data.ctrl[:] = start
            self._velocity = np.stack([np.cos(heading), np.sin(heading)], 1) * (self.haste * speed[:, None])
            self._begin(task)
            mujoco.mj_forward(self.model, self.data)
        return self.instruction

    def retask(self, task: Task) -> str:
        """Gives a new instruction in the world as it stands; static tasks only."""
        if "moving" in (task.kind, self.task.kind):
            raise ValueError("Tabletop.retask: blocks that move need a reset")
        with self.lock:
            self._begin(task)
        return self.instruction

    def _begin(self, task: Task) -> None:
        self.task = task
        self.success: bool | None = None  # None until the episode is decided
        self.decided_at: int | None = None  # tick
        self.touched: int | None = None
        self._over = [abs(self.block(i)[1]) > scene.LINE_Y for i in range(3)]
        self._steps = 0
        self._remainder = 0.0  # s of time asked for and not yet simulated

    @property
    def instruction(self) -> str:
        colour = self.colours[self.task.block]
        if self.task.kind == "push":
            return f"push the {colour} block {'right' if self.task.side > 0 else 'left'}"
        return f"touch the {colour} block"

    @property
    def done(self) -> bool:
        """Whether the episode is decided."""
        return self.success is not None

    @property
    def tick(self) -> int:
        """Whole 50 ms ticks since the instruction was given."""
        return int(self._steps * scene.TIMESTEP / TICK + 1e-9)

    # --- state

    @property
    def q(self) -> np.ndarray:
        """Measured joint positions, rad [4]."""
        return self.data.qpos[:4].copy()

    @property
    def dq(self) -> np.ndarray:
        """Measured joint velocities, rad/s [4]."""
        return self.data.qvel[:4].copy()

    @property
    def tip(self) -> np.ndarray:
        """Fingertip, m [3]."""
        return self.data.site_xpos[self._tip].copy()

    def block(self, index: int) -> np.ndarray:
        """Centre of a block, m [3]."""
        a = self._block_qpos[index]
        return self.data.qpos[a : a + 3].copy()

    def block_velocity(self, index: int) -> np.ndarray:
        """Velocity of a block over the table, m/s [2]."""
        a = self._block_qvel[index]
        return self.data.qvel[a : a + 2].copy()

    # --- time

    def step(self, q_target: np.ndarray) -> None:
        """Advances one tick while the joint targets go linearly to `q_target`, rad [4]."""
        start, count = self.data.ctrl.copy(), round(TICK / scene.TIMESTEP)
        with self.lock:
            for i in range(count):
                self._substep(start + (q_target - start) * ((i + 1) / count))

    def advance(self, dt: float, q_target: np.ndarray) -> None:
        """Advances by `dt` s (of any size, what is left over is kept) with the joint targets at `q_target`, rad [4]."""
        with self.lock:
            self._remainder += dt
            while self._remainder >= scene.TIMESTEP - 1e-9:
                self._remainder -= scene.TIMESTEP
                self._substep(q_target)

    def _substep(self, target: np.ndarray) -> None:
        self.data.ctrl[:] = target
        if self.task.kind == "moving":
            self._glide()
        mujoco.mj_step(self.model, self.data)
        self._steps += 1
        if self.touched is None:
            self.touched = self._contact()
        if self.success is None:
            self.success = self._judge()
            self.decided_at = None if self.success is None else self.tick

    def _glide(self) -> None:
        """Holds each block at its velocity; they turn at the bounds and before each other, stop at a touch."""
        if self.touched is not None:
            return
        position = np.stack([self.block(i)[:2] for i in range(3)])
        for axis, (low, high) in enumerate(BOUNDS):
            v = self._velocity[:, axis]
            v[position[:, axis] < low] = np.abs(v[position[:, axis] < low])
            v[position[:, axis] > high] = -np.abs(v[position[:, axis] > high])
        for i in range(3):
            for j in range(i):
                apart = position[i] - position[j]
                distance = np.linalg.norm(apart)
                closing = (self._velocity[i] - self._velocity[j]) @ apart / distance
                if distance < GAP and closing < 0:  # equal masses exchange the normal velocity
                    self._velocity[i] -= closing * apart / distance
                    self._velocity[j] += closing * apart / distance
        for i, a in enumerate(self._block_qvel):
            self.data.qvel[a : a + 2] = self._velocity[i]
            self.data.qvel[a + 3 : a + 6] = 0

    def _contact(self) -> int | None:
        if self.data.site_xpos[self._tip, 2] > 3 * scene.BLOCK_HALF:  # nothing to touch up there
            return None
        for first, second in self.data.contact.geom:
            if self._finger in (first, second):
                other = int(first if second == self._finger else second)
                if other in self._block_geoms:
                    return self._block_geoms.index(other)
        return None

    def _judge(self) -> bool | None:
        if self.task.kind != "push":
            return None if self.touched is None else self.touched == self.task.block
        y = [self.block(i)[1] for i in range(3)]
        named = y[self.task.block] * self.task.side
        if abs(named) > scene.LINE_Y:
            return bool(named > 0)
        strays = [abs(y[i]) > scene.LINE_Y and not self._over[i] for i in range(3) if i != self.task.block]
        return False if any(strays) else None

    # --- pictures

    def frame(self, width: int = 96, height: int = 64) -> np.ndarray:
        """What the scene camera sees, uint8 [height, width, 3]; at most 960 x 640."""
        if self._camera is None:
            self._camera = SceneCamera(self.model)
        return self._camera.render(self, width, height)

    def close(self) -> None:
        """Frees the renderer."""
        if self._own_camera and self._camera is not None:
            self._camera.close()
            self._camera = None


def inverse_kinematics(radius: float, yaw: float, z: float) -> np.ndarray:
    """Joint positions, rad [4], that put a downward finger's tip at `radius` m, `yaw` rad and height `z` m."""
    wrist_z = z + scene.FINGER - scene.SHOULDER_Z
    l1, l2 = scene.LINK_1, scene.LINK_2
    reach = float(np.clip(np.hypot(radius, wrist_z), 0.12, l1 + l2 - 1e-3))
    lift = np.arctan2(wrist_z, radius)
    inner = np.arccos(np.clip((l1**2 + reach**2 - l2**2) / (2 * l1 * reach), -1, 1))
    elbow = np.arccos(np.clip((l1**2 + l2**2 - reach**2) / (2 * l1 * l2), -1, 1)) - np.pi
    shoulder = lift + inner
    return np.array([yaw, shoulder, elbow, -np.pi / 2 - shoulder - elbow])


def _layout(rng: np.random.Generator, task: Task) -> np.ndarray:
    """Block centres, m [3, 2]: apart from each other, and with a free way for a push."""
    while True:
        radius, y = rng.uniform(0.24, 0.355, 3), rng.uniform(-0.125, 0.125, 3)
        centres = np.stack([np.sqrt(radius**2 - y**2), y], 1)
        if min(np.linalg.norm(centres[i] - centres[j]) for i in range(3) for j in range(i)) < 0.095:
            continue
        if task.kind == "push" and not _way_is_free(centres, task):
            continue
        return centres


def _way_is_free(centres: np.ndarray, task: Task) -> bool:
    radius, yaw = np.hypot(*centres.T), np.arctan2(centres[:, 1], centres[:, 0])
    for i in range(3):
        along = task.side * (yaw[i] - yaw[task.block]) * radius[task.block]
        if i != task.block and abs(radius[i] - radius[task.block]) < 0.075 and along > -0.115:
            return False
    return True
