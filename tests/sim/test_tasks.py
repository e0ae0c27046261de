"""Words become tasks, and what happened is judged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.sim.control import DeltaControl
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.scene import Scene
from udvla_ros.sim.tasks import TASKS, Task, TaskMonitor, all_tasks, parse, success

CUBES = {"red": (0.42, 0.1, 0.3), "green": (0.55, 0.0, 0.0), "blue": (0.45, -0.1, 1.0)}


@given(st.sampled_from(all_tasks()), st.integers(0, 10_000))
def test_every_phrasing_is_understood(task, seed):
    assert parse(task.instruction(np.random.default_rng(seed))) == task


def test_there_are_enough_phrasings():
    for kind, phrases in TASKS.items():
        assert len(set(phrases)) >= 5, kind


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Please TOUCH the blue block!", Task("touch", "blue")),
        ("could you grab that green one", Task("pick", "green")),
        ("touch the cube", None),
        ("the red cube", None),
        ("touch the red cube, then the green cube", None),
        ("touch and lift the red cube", None),
        ("touch the scarred cube", None),
        ("", None),
    ],
)
def test_parse(text, task):
    assert Task.parse(text) == task


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="purple"):
        Task("touch", "purple")


def _run(world, doing, judged, steps=40):
    monitor, expert, control = TaskMonitor(judged), Expert(world, doing), DeltaControl(world)
    for _ in range(steps):
        control.apply(expert.act())
        monitor.update(world)
        if monitor.succeeded or monitor.failed:
            break
    return monitor


@pytest.mark.parametrize("task", all_tasks(), ids=str)
def test_the_right_cube_counts(world, task):
    world.reset(Scene(CUBES))
    assert not success(world, task)
    monitor = _run(world, task, task)
    assert monitor.succeeded
    assert not monitor.failed
    assert task.colour in monitor.reason
    assert success(world, task)


@pytest.mark.parametrize("kind", TASKS)
def test_the_wrong_cube_fails(world, kind):
    world.reset(Scene(CUBES))
    monitor = _run(world, Task(kind, "red"), Task(kind, "green"))
    assert monitor.failed
    assert not monitor.succeeded
    assert "red" in monitor.reason


def test_touching_is_not_picking(world):
    world.reset(Scene(CUBES))
    monitor = _run(world, Task("touch", "red"), Task("pick", "red"), steps=20)
    assert not monitor.succeeded


def test_doing_nothing_is_neither(world):
    world.reset(Scene(CUBES))
    monitor = TaskMonitor(Task("touch", "red"))
    world.step(0.5)
    monitor.update(world)
    assert (monitor.succeeded, monitor.failed, monitor.reason) == (False, False, "")


def test_a_verdict_stands(world):
    world.reset(Scene(CUBES))
    monitor = _run(world, Task("touch", "red"), Task("touch", "red"))
    world.reset(Scene(CUBES))
    monitor.update(world)
    assert monitor.succeeded
