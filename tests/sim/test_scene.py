"""Scenes keep their promises for every seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.sim.scene import (
    COLOURS,
    CUBE_AREA,
    CUBE_SPACING,
    HOME_TCP,
    START_JITTER,
    SceneSampler,
    sample_scene,
)


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
