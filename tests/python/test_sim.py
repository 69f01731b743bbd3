"""The tabletop world: what follows from a seed, what the expert reaches, how words become tokens."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:  # not imported here: wamcore.sim chooses its GL first
    pytest.skip("mujoco is not installed", allow_module_level=True)

from wamcore.sim import TASKS, Tabletop, Task

from examples.train_small_wam.expert import expert


@pytest.fixture(scope="module")
def world():
    w = Tabletop()
    yield w
    w.close()


def play(world, seed, task, limit=160):
    instruction, path = world.reset(seed, task), []
    while not world.done and world.tick < limit:
        world.step(expert(world))
        path.append(world.q)
    return instruction, np.array(path)


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_follows_from_its_seed(world, task):
    first, second = play(world, 7, task), play(world, 7, task)
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("task", TASKS)
def test_expert_succeeds_and_keeps_the_limits(world, task):
    for seed in range(8):
        world.reset(seed, task)
        targets = [world.q]
        while not world.done and world.tick < 160:
            targets.append(expert(world))
            world.step(targets[-1])
        assert world.success, f"{task}, seed {seed}: {world.instruction}"
        velocity = np.diff(np.array(targets), axis=0) * world.control_hz
        assert (np.abs(velocity) <= world.velocity_max).all()
        assert (np.array(targets) >= world.position_min).all() and (np.array(targets) <= world.position_max).all()


def test_frames_show_the_three_colours(world):
    from wamcore.sim.scene import COLOURS

    world.reset(3, "touch")
    frame = world.frame()
    assert frame.shape == (64, 96, 3) and frame.dtype == np.uint8
    for name in world.colours:
        distance = np.abs(frame / 255.0 - np.array(COLOURS[name])).max(-1)
        assert (distance < 0.25).sum() >= 15, name


def test_fine_steps_reach_the_same_time_as_ticks(world):
    world.reset(1, "touch")
    for _ in range(100):
        world.advance(0.002, world.q)  # 500 Hz on a 5 ms physics step
    assert world.tick == 4


def test_touching_another_block_fails(world):
    world.reset(5, "touch")
    named = world.task.block
    world.task = Task("touch", (named + 1) % 3)
    goal = world.task
    while not world.done:
        world.task = goal
        target = expert(world)
        world.task = Task("touch", named)
        world.step(target)
    assert world.success is False


def test_reset_refuses_an_unknown_task(world):
    with pytest.raises(ValueError, match="task must be one of"):
        world.reset(0, "juggle")


def test_tokens_end_with_the_mark_and_padding():
    pytest.importorskip("torch")
    from examples.train_small_wam.text import END, PAD, UNKNOWN, tokenize, vocabulary

    vocab = vocabulary()
    ids = tokenize("Touch the  THING block", vocab, 8)
    assert ids == [vocab["touch"], vocab["the"], UNKNOWN, vocab["block"], END, PAD, PAD, PAD]
    assert tokenize("the " * 20, vocab, 4) == [vocab["the"]] * 3 + [END]
