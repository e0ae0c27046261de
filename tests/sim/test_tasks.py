"""Words become tasks, and what happened is judged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.sim.control import DeltaControl
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.judge import TaskMonitor, success
from udvla_ros.sim.phrasings import HELD_OUT, PHRASINGS
from udvla_ros.sim.scene import Scene
from udvla_ros.sim.tasks import KINDS, Task, all_tasks, parse

CUBES = {"red": (0.42, 0.1, 0.3), "green": (0.55, 0.0, 0.0), "blue": (0.45, -0.1, 1.0)}


TRAY = (0.45, 0.22)  # left of all cubes


@given(st.sampled_from(all_tasks()), st.integers(0, 10_000), st.booleans())
def test_every_phrasing_is_understood(task, seed, held_out):
    assert parse(task.instruction(np.random.default_rng(seed), held_out)) == task


def words(phrases):
    return {word for phrase in phrases for word in phrase.split() if not word.startswith("{")}


def test_there_are_enough_phrasings_and_others_of_the_same_words():
    known = words(phrase for phrases in PHRASINGS.values() for phrase in phrases)
    for kind in KINDS:
        assert len(set(PHRASINGS[kind])) >= 8, kind
        assert len(set(HELD_OUT[kind])) >= 3, kind
        assert not set(PHRASINGS[kind]) & set(HELD_OUT[kind]), kind
        assert words(HELD_OUT[kind]) <= known, kind


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Please TOUCH the blue block!", Task("touch", "blue")),
        ("could you grab that green one", Task("pick", "green")),
        ("shove the green cube backwards", Task("push", "green", "back")),
        ("now push the red block away from you", Task("push", "red", "forward")),
        ("carry the blue cube to the tray", Task("place", "blue")),
        ("touch the cube", None),
        ("push the red cube", None),
        ("push the red cube left and right", None),
        ("touch the red cube left of the tray", None),
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
    with pytest.raises(ValueError, match="left"):
        Task("push", "red")
    with pytest.raises(ValueError, match="push"):
        Task("pick", "red", "left")


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
    world.reset(Scene(CUBES, tray=TRAY))
    assert not success(world, task)
    monitor = _run(world, task, task, steps=60)
    assert monitor.succeeded
    assert not monitor.failed
    assert task.colour in monitor.reason
    assert success(world, task)


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrong_cube_fails(world, kind):
    world.reset(Scene(CUBES, tray=TRAY))
    way = "forward" if kind == "push" else ""
    monitor = _run(world, Task(kind, "red", way), Task(kind, "green", way))
    assert monitor.failed
    assert not monitor.succeeded
    assert "red" in monitor.reason


def test_touching_is_not_picking(world):
    world.reset(Scene(CUBES, tray=TRAY))
    monitor = _run(world, Task("touch", "red"), Task("pick", "red"), steps=20)
    assert not monitor.succeeded


def test_the_wrong_way_fails(world):
    world.reset(Scene(CUBES))
    monitor = _run(world, Task("push", "red", "left"), Task("push", "red", "right"))
    assert monitor.failed
    assert "another way" in monitor.reason


def test_holding_a_cube_over_the_tray_is_not_placing_it(world):
    world.reset(Scene(CUBES, tray=TRAY))
    task = Task("place", "red")
    monitor, expert, control = TaskMonitor(task), Expert(world, task), DeltaControl(world)
    opened = False
    for _ in range(60):
        action = expert.act()
        opened |= world.held("red") and action[6] < 0
        if world.held("red"):
            action[6] = 1.0  # never lets go
        control.apply(action)
        monitor.update(world)
    assert opened  # it would have
    assert not monitor.succeeded


def test_without_a_tray_nothing_is_placed(world):
    world.reset(Scene(CUBES))
    monitor = _run(world, Task("place", "red"), Task("place", "red"), steps=2)
    assert (monitor.failed, monitor.reason) == (True, "there is no tray")


def test_doing_nothing_is_neither(world):
    world.reset(Scene(CUBES, tray=TRAY))
    monitor = TaskMonitor(Task("touch", "red"))
    world.step(0.5)
    monitor.update(world)
    assert (monitor.succeeded, monitor.failed, monitor.reason) == (False, False, "")


def test_a_verdict_stands(world):
    world.reset(Scene(CUBES, tray=TRAY))
    monitor = _run(world, Task("touch", "red"), Task("touch", "red"))
    world.reset(Scene(CUBES, tray=TRAY))
    monitor.update(world)
    assert monitor.succeeded
