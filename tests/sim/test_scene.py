"""Scenes keep their promises for every seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.sim.sampler import (
    CONDITIONS,
    DISTRACTOR_SPACING,
    PUSH_AREA,
    PUSH_ROOM,
    PUSH_WAY,
    TRAY_SPACING,
    SceneSampler,
    sample_scene,
)
from udvla_ros.sim.scene import COLOURS, CUBE_AREA, CUBE_SPACING, HOME_TCP, START_JITTER, CameraShift, Scene
from udvla_ros.sim.tasks import DIRECTIONS, Task, all_tasks


@given(st.integers(0, 2**32))
@settings(max_examples=100)
def test_cubes_lie_apart_and_inside(seed):
    scene = sample_scene(seed)
    assert set(scene.cubes) == set(COLOURS)
    centres = np.array([place[:2] for place in scene.cubes.values()])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + np.eye(len(centres))
    assert gaps.min() >= CUBE_SPACING
    for axis, (low, high) in enumerate(CUBE_AREA):
        assert np.all((centres[:, axis] >= low) & (centres[:, axis] <= high))
    assert np.all(np.abs(np.array(scene.tcp) - HOME_TCP) <= START_JITTER)
    assert scene.gripper in (0.0, 1.0)


def test_a_seed_is_a_scene():
    assert sample_scene(7) == sample_scene(7)
    assert sample_scene(7) != sample_scene(8)


def test_no_room_is_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        SceneSampler(area=((0.4, 0.45), (0.0, 0.05))).sample(np.random.default_rng(0))


def places(scene):
    return {colour: np.array(place[:2]) for colour, place in scene.cubes.items()}


@given(st.integers(0, 2**32), st.sampled_from([t for t in all_tasks() if t.kind == "push"]))
@settings(max_examples=50)
def test_a_cube_to_push_has_room(seed, task):
    at = places(sample_scene(seed, task))
    way = at.pop(task.colour) + np.linspace(*PUSH_WAY, 30)[:, None] * np.array(DIRECTIONS[task.direction])
    for other in at.values():
        assert np.linalg.norm(way - other, axis=1).min() > PUSH_ROOM - 0.003  # between two of the points looked at
    for axis, (low, high) in enumerate(PUSH_AREA):
        assert low <= way[-1, axis] <= high


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_tray_stands_clear_where_a_cube_is_to_be_placed(seed):
    scene = sample_scene(seed, Task("place", "green"))
    assert scene.tray is not None
    assert min(np.linalg.norm(at - scene.tray) for at in places(scene).values()) >= TRAY_SPACING


def test_scenes_of_touch_and_pick_do_not_depend_on_the_task():
    assert sample_scene(7) == sample_scene(7, Task("touch", "red")) == sample_scene(7, Task("pick", "blue"))


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_distractors_stand_clear_and_change_nothing_else(seed):
    task = Task("pick", "red")
    plain, cluttered = sample_scene(seed, task), sample_scene(seed, task, "distractors")
    assert (plain.cubes, plain.tcp, plain.gripper) == (cluttered.cubes, cluttered.tcp, cluttered.gripper)
    for name, place in cluttered.distractors.items():
        others = [*places(cluttered).values()]
        others += [np.array(at) for other, at in cluttered.distractors.items() if other != name]
        assert min(np.linalg.norm(np.array(place) - other) for other in others) >= DISTRACTOR_SPACING


def test_conditions_differ_from_plain():
    scenes = {name: sampler.sample(np.random.default_rng(3)) for name, sampler in CONDITIONS.items()}
    assert scenes["light"].light != 1.0
    assert set(scenes["camera"].cameras) == {"front", "wrist"}
    assert scenes["distractors"].distractors
    assert scenes["plain"] == sample_scene(3)


def test_light_cameras_and_furniture_are_seen_and_put_back(world):
    cubes = {"red": (0.42, 0.1, 0.3), "green": (0.55, 0.0, 0.0), "blue": (0.45, -0.1, 1.0)}

    def seen(**changes):
        world.reset(Scene(cubes, **changes))
        return world.render()["front"].astype(int)

    plain = seen()
    assert seen(light=0.8).mean() < plain.mean() - 10
    assert np.abs(seen(cameras={"front": CameraShift((0.02, 0.0, 0.0))}) - plain).max() > 60
    tray = np.abs(seen(tray=(0.44, 0.0)) - plain).sum(-1)
    assert (tray > 200).sum() > 50  # dark where the table was light
    can = np.abs(seen(distractors={"orange_can": (0.5, -0.15)}) - plain).sum(-1)
    assert 5 < (can > 100).sum() < 200
    np.testing.assert_array_equal(seen(), plain)
