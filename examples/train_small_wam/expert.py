"""The scripted expert: Markov in (tip, blocks, block velocity), so that it can be learnt from a few frames."""

from __future__ import annotations

import numpy as np
from wamcore.sim import Tabletop, inverse_kinematics, scene

SPEED = 0.26  # m/s, fastest tip
GAIN = 7.0  # 1/s, slows the tip down near its goal
LEAD = 0.085  # s, how far ahead of the tip the joint targets run: the arm follows with about this lag
HOVER = 0.095  # m, tip height that clears the blocks
TOUCH = 2 * scene.BLOCK_HALF - 0.006  # m, tip height that presses a block lightly
LOW = 0.018  # m, tip height while pushing
BESIDE = 0.052  # m, distance of the paddle from the centre of the block it is about to push


def expert(world: Tabletop) -> np.ndarray:
    """Joint targets, rad [4], for the next tick."""
    tip = world.tip
    here = np.array([np.hypot(tip[0], tip[1]), np.arctan2(tip[1], tip[0]), tip[2]])
    goal = _push_goal(world, here) if world.task.kind == "push" else _touch_goal(world, here)
    arc = max(here[0], 0.15)  # m per rad of yaw
    way = np.array([goal[0] - here[0], (goal[1] - here[1]) * arc, goal[2] - here[2]])
    speed = min(SPEED, GAIN * np.linalg.norm(way))
    step = way / (np.linalg.norm(way) + 1e-9) * speed * LEAD
    return inverse_kinematics(here[0] + step[0], here[1] + step[1] / arc, here[2] + step[2])


def _polar(xy: np.ndarray) -> tuple[float, float]:
    return float(np.hypot(xy[0], xy[1])), float(np.arctan2(xy[1], xy[0]))


def _touch_goal(world: Tabletop, here: np.ndarray) -> np.ndarray:
    """Over the block, then down: the goal's height is a funnel around the block's axis."""
    xy = world.block(world.task.block)[:2]
    tip_xy = here[0] * np.array([np.cos(here[1]), np.sin(here[1])])
    if world.task.kind == "moving" and world.touched is None:
        ahead = min(np.linalg.norm(xy - tip_xy) / SPEED + 0.12, 0.8)  # s until the tip is there
        xy = xy + world.block_velocity(world.task.block) * ahead
    radius, yaw = _polar(xy)
    distance = np.linalg.norm(xy - tip_xy)
    rise = np.clip((distance - 0.012) / 0.03, 0.0, 1.0)
    goal = np.array([radius, yaw, TOUCH + (HOVER - TOUCH) * rise])
    return _clear(here, goal, distance)


def _clear(here: np.ndarray, goal: np.ndarray, distance: float) -> np.ndarray:
    """Holds sideways motion back while the tip is too low to pass over blocks."""
    if distance < 0.04:
        return goal
    free = np.clip((here[2] - 0.062) / 0.02, 0.0, 1.0)
    return np.array([here[0] + free * (goal[0] - here[0]), here[1] + free * (goal[1] - here[1]), goal[2]])


def _push_goal(world: Tabletop, here: np.ndarray) -> np.ndarray:
    """Beside the block, down, then along the arc through the block."""
    side = world.task.side
    block = world.block(world.task.block)
    radius, yaw = _polar(block[:2])
    if world.success or side * block[1] > scene.LINE_Y:
        return np.array([here[0], here[1], 0.03])  # arrived: stay, a little higher
    behind = side * (yaw - here[1]) * radius  # m, positive on the side to push from
    if here[2] < 0.045 and 0.02 < behind < 0.085 and abs(here[0] - radius) < 0.03:
        return np.array([radius, here[1] + side * 0.3, LOW])
    beside = yaw - side * BESIDE / radius
    distance = np.hypot(here[0] - radius, (here[1] - beside) * radius)
    rise = np.clip((distance - 0.012) / 0.02, 0.0, 1.0)
    return _clear(here, np.array([radius, beside, LOW + (HOVER - LOW) * rise]), distance)
