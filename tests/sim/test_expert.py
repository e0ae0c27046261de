"""The expert succeeds, keeps its limits, and its plan is what it then does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.sim.control import DeltaControl
from udvla_ros.sim.expert import MAX_STEP, MAX_TURN, Expert, Sight, foresee, law
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.kinematics import exp_so3
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.scene import Scene
from udvla_ros.sim.tasks import DIRECTIONS, KINDS, Task, all_tasks, tasks_of
from udvla_ros.sim.world import DOWN

TRAY = (0.45, 0.2)
STEPS = {"touch": 30, "pick": 30, "push": 22, "place": 45}


def sight(position, cube=(0.5, 0.0, 0.02), closed=0.0, held=False, width=0.04):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = DOWN, position
    return Sight(pose, np.array(cube), width, closed, closed, held, np.array(TRAY))


def run(world, task, steps=30):
    """Return the plans made and the actions done, and whether the task was fulfilled."""
    expert, control, monitor = Expert(world, task), DeltaControl(world), TaskMonitor(task)
    plans = []
    for _ in range(steps):
        plans.append(expert.plan(8))
        control.apply(plans[-1][0])
        monitor.update(world)
    return np.array(plans), monitor


@pytest.mark.parametrize("kind", KINDS)
def test_succeeds_and_does_as_planned(world, kind):
    errors = []
    for seed in range(12):
        task = tasks_of(kind)[seed % len(tasks_of(kind))]
        world.reset(sample_scene(seed, task))
        plans, monitor = run(world, task, steps=STEPS[kind])
        assert monitor.succeeded, f"seed {seed}: {monitor.reason}"
        done = plans[:, 0]
        errors += [plans[t] - done[t : t + 8] for t in range(len(plans) - 8)]
    errors = np.array(errors)
    # A grasp or a release one step early or late shifts a whole motion: place has two of them.
    assert np.sqrt((errors[..., :3] ** 2).mean()) < (0.006 if kind == "place" else 0.003)
    assert (errors[..., 6] != 0).mean() < 0.01


@pytest.mark.parametrize("yaw", np.linspace(-0.75, 0.75, 7))
def test_one_gripper_yaw_grasps_cubes_of_any_yaw(world, yaw):
    world.reset(Scene({"red": (0.5, 0.05, yaw), "green": (0.4, -0.15, 0), "blue": (0.6, -0.15, 0)}))
    _, monitor = run(world, Task("pick", "red"))
    assert monitor.succeeded


coordinates = st.tuples(st.floats(0.3, 0.68), st.floats(-0.25, 0.25), st.floats(0.02, 0.3))


@given(st.sampled_from(all_tasks()), coordinates, st.floats(0, 1), st.booleans())
def test_steps_are_bounded(task, position, closed, held):
    action = law(sight(position, closed=closed, held=held), task)
    assert np.hypot(*action[:2]) <= MAX_STEP + 1e-9
    assert abs(action[2]) <= MAX_STEP + 1e-9
    assert action[6] in (-1.0, 1.0)
    np.testing.assert_array_equal(action[3:6], 0.0)


@given(st.sampled_from(all_tasks()), coordinates)
def test_foreseen_future_ends_at_rest(task, position):
    seen = sight(position)
    for _ in range(90):
        action = law(seen, task)
        seen = foresee(seen, action, task)
    np.testing.assert_allclose(action[:6], 0.0, atol=1e-6)
    way = seen.cube - np.array([0.5, 0.0, 0.02])
    if task.kind == "pick":
        assert seen.held
        assert way[2] > 0.07
    elif task.kind == "place":
        assert not seen.held
        assert np.hypot(*(seen.cube[:2] - TRAY)) < 0.02
    elif task.kind == "push":
        assert way[:2] @ DIRECTIONS[task.direction] > 0.1  # to the edge of where cubes are pushed
        assert abs(way[:2] @ DIRECTIONS[task.direction][::-1]) < 1e-9
    else:
        assert seen.touched
        assert np.hypot(*(seen.pose[:2, 3] - seen.cube[:2])) < 1e-6
        assert seen.pose[2, 3] > 0.1  # away again: nobody is taught to stay on the cube


@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_drift_from_pointing_down_is_corrected(x, y, z):
    drift = exp_so3(np.array([x, y, z]))
    seen = sight((0.5, 0.0, 0.15))
    pose = seen.pose.copy()
    pose[:3, :3] = drift @ pose[:3, :3]
    seen = replace(seen, pose=pose)
    for _ in range(40):
        action = law(seen, Task("touch", "red"))
        assert np.linalg.norm(action[3:6]) <= MAX_TURN + 1e-9
        seen = foresee(seen, action, Task("touch", "red"))
    np.testing.assert_allclose(seen.pose[:3, :3], DOWN, atol=1e-3)


def test_low_beside_the_cube_rises_before_moving_over():
    action = law(sight((0.5, 0.08, 0.025)), Task("pick", "red"))
    assert action[2] > 0.02
    assert np.hypot(*action[:2]) < 0.005


def test_waits_above_until_the_fingers_are_closed_for_a_touch():
    above = (0.5, 0.0, 0.092)
    assert law(sight(above, closed=0.3), Task("touch", "red"))[2] > -0.002
    assert law(sight(above, closed=0.95), Task("touch", "red"))[2] < -0.02


def test_closes_only_around_the_cube():
    assert law(sight((0.5, 0.0, 0.022)), Task("pick", "red"))[6] == 1.0
    assert law(sight((0.5, 0.03, 0.022)), Task("pick", "red"))[6] == -1.0
    assert law(sight((0.5, 0.0, 0.06)), Task("pick", "red"))[6] == -1.0


def test_a_closed_empty_gripper_opens_again_above():
    action = law(sight((0.5, 0.0, 0.10), closed=1.0), Task("pick", "red"))
    assert action[6] == -1.0


def test_a_lost_cube_is_looked_for_again(world):
    world.reset(
        Scene({"red": (0.5, 0.0, 0.0), "green": (0.4, -0.15, 0), "blue": (0.6, 0.15, 0)}, (0.45, 0, 0.15))
    )
    task = Task("pick", "red")
    expert, control, monitor = Expert(world, task), DeltaControl(world), TaskMonitor(task)
    dropped = False
    for _ in range(60):
        action = expert.act()
        if world.tcp_command()[2, 3] > 0.05 and world.held("red") and not dropped:
            for _ in range(4):
                control.apply(np.array([0.02, 0.01, 0, 0, 0, 0, -1]))  # somebody opens the gripper
            dropped = True
            continue
        control.apply(action)
        monitor.update(world)
    assert dropped
    assert monitor.succeeded
