"""The simulated robot behind its controllers, without ROS; and the witness that counts broken limits."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.sim.audit import CommandAudit
from udvla_ros.sim.jtc import TrajectoryCommand

pytest.importorskip("mujoco")

from udvla_ros.nodes.sim_robot import SimulatedRobot, choose_task
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import TabletopWorld

ROBOT = RobotDescription.load("ur5e_sim")


@pytest.fixture(scope="module")
def simulated():
    world = TabletopWorld(render=False)
    yield SimulatedRobot(world, ROBOT)
    world.close()


def run(simulated: SimulatedRobot, now: float, seconds: float) -> float:
    for _ in range(round(seconds / simulated.period)):
        simulated.tick(now)
        now += simulated.period
    return now


def test_the_arm_goes_where_the_trajectory_says_by_name(simulated):
    simulated.reset(1, "touch/red", "")
    goal = simulated.world.q + np.array([0.1, -0.1, 0.05, 0.0, 0.1, 0.2])
    order = [3, 1, 0, 2, 5, 4]
    names = tuple(ROBOT.joints[i] for i in order)
    simulated.accept(TrajectoryCommand(names, np.array([1.0]), goal[None, order]), 50.0)
    closed = TrajectoryCommand((ROBOT.gripper.joint,), np.array([0.5]), np.array([[ROBOT.gripper.closed]]))
    simulated.accept(closed, 50.0, gripper=True)
    run(simulated, 50.0, 2.0)
    names, position, velocity = simulated.joint_state()
    assert names == ROBOT.command_names
    np.testing.assert_allclose(position[:6], goal, atol=0.01)
    assert position[6] == pytest.approx(ROBOT.gripper.closed, abs=0.05)
    assert np.abs(velocity).max() < 0.05
    assert simulated.episode.state in ("running", "failed") and simulated.episode.seconds == pytest.approx(2.0)


def test_an_episode_waits_for_the_first_command_and_succeeds_when_the_task_is_done(simulated):
    episode = simulated.reset(4, "touch/green", "")
    now = run(simulated, 10.0, 0.5)
    assert (episode.state, episode.steps) == ("waiting", 0)
    expert = Expert(simulated.world, Task("touch", "green"))
    changed = False
    for _ in range(60):
        action = expert.act()
        q = simulated.world.kinematics.inverse(_after(simulated, action), simulated.world.q_command)
        simulated.accept(TrajectoryCommand(ROBOT.joints, np.array([0.1]), q[None]), now)
        finger = np.array([[ROBOT.gripper.position((action[6] + 1) / 2)]])
        simulated.accept(TrajectoryCommand((ROBOT.gripper.joint,), np.array([0.1]), finger), now, gripper=True)
        for _ in range(10):
            changed |= simulated.tick(now)
            now += simulated.period
        if episode.state != "running":
            break
    assert changed and episode.state == "succeeded" and episode.success, episode
    assert "green" in episode.reason and 0 < episode.steps <= 60


def _after(simulated: SimulatedRobot, action: np.ndarray) -> np.ndarray:
    pose = simulated.world.tcp_command()
    pose[:3, 3] += action[:3]
    return pose


def test_the_same_seed_is_the_same_episode(simulated):
    first = simulated.reset(9, "", "").as_dict()
    cubes = simulated.world.cube_poses()
    simulated.reset(10, "", "")
    assert not np.allclose(simulated.world.cube_poses(), cubes)
    second = simulated.reset(9, "", "").as_dict()
    np.testing.assert_allclose(simulated.world.cube_poses(), cubes)
    assert first | {"number": 0} == second | {"number": 0}


def test_a_command_that_is_no_number_is_counted_and_not_carried_out(simulated):
    simulated.reset(1, "touch/red", "")
    before = simulated.world.q
    points = np.full((1, 6), np.nan)
    simulated.accept(TrajectoryCommand(ROBOT.joints, np.array([0.5]), points), 0.0)
    run(simulated, 0.0, 0.3)
    assert simulated.episode.limit_violations > 0
    np.testing.assert_allclose(simulated.world.q, before, atol=1e-3)


@pytest.mark.parametrize("hz", [250, 500])
def test_the_controllers_may_run_faster_and_the_episode_keeps_its_pace(hz):
    world = TabletopWorld(render=False)
    fast = SimulatedRobot(world, ROBOT, controller_hz=hz)
    q = np.stack([world.q_command, world.q_command + 0.1])
    rest = np.zeros_like(q)
    fast.accept(TrajectoryCommand(ROBOT.joints, np.array([0.0, 0.5]), q, rest, rest, 1.0), 1.0)
    assert run(fast, 1.0, 1.0) == pytest.approx(2.0) and fast.episode.steps == 10
    assert fast.audit.violations == 0 and 0.01 < fast.audit.worst["jerk"] < 1.0
    np.testing.assert_allclose(fast.arm.command.position, q[1], atol=1e-9)
    world.close()
    with pytest.raises(ConfigError, match="controller_hz is 300; give 100, 250 or 500"):
        SimulatedRobot(TabletopWorld(render=False), ROBOT, controller_hz=300)


@given(st.integers(0, 10_000))
def test_what_is_left_open_is_drawn_from_the_seed(seed):
    task, sentence = choose_task(seed, "", "")
    assert choose_task(seed, "", "") == (task, sentence)
    assert Task.parse(sentence) == task
    assert choose_task(seed, "pick", "")[0].kind == "pick"
    assert choose_task(seed, "blue", "")[0].colour == "blue"


def test_an_instruction_may_be_the_task_or_only_its_words():
    assert choose_task(0, "", "please lift the green block")[0] == Task("pick", "green")
    assert choose_task(0, "touch/red", "give it a nudge") == (Task("touch", "red"), "give it a nudge")
    with pytest.raises(ConfigError, match="set the parameter task"):
        choose_task(0, "", "do something nice")
    with pytest.raises(ConfigError, match="touch/red"):
        choose_task(0, "juggle", "")


def test_a_robot_file_of_another_arm_is_refused():
    world = SimpleNamespace(joint_names=("a", "b"))
    with pytest.raises(ConfigError, match="not the simulated arm"):
        SimulatedRobot(world, ROBOT)


def audit() -> CommandAudit:
    """Return the witness of an arm whose first joint may go 1 rad from home at 2 rad/s, 10 rad/s2 and 100 rad/s3."""
    ones, home = np.ones(6), ROBOT.home
    limits = replace(
        ROBOT.limits, hard_lower=home - 1, hard_upper=home + 1, velocity=2 * ones, acceleration=10 * ones,
        jerk=100 * ones, tcp_speed=0.7,
    )  # fmt: skip
    return CommandAudit(replace(ROBOT, limits=limits))


def feed(witness: CommandAudit, path, seconds: float = 1.0, period: float = 0.01) -> CommandAudit:
    for t in np.arange(0.0, seconds, period):
        witness.look(ROBOT.home + np.r_[path(t), np.zeros(5)], period)
    return witness


def test_audit_is_silent_about_motion_within_limits():
    w = np.pi
    assert feed(audit(), lambda t: 0.9 * np.sin(0.5 * w * t) ** 2, 4.0).violations == 0


def test_audit_is_the_same_by_blocks_and_leaves_out_what_the_controller_skipped():
    way = ROBOT.home + np.outer(0.4 * np.sin(2.0 * np.arange(0.0, 1.0, 0.002)) ** 2, np.eye(6)[0])
    single, blocks = audit(), audit()
    for q in way:
        single.look(q, 0.002)
    for block in np.split(way, [1, 2, 7, 300]):
        blocks.look(block, 0.002)
    assert single.worst == pytest.approx(blocks.worst) and single.counts == blocks.counts
    whole, skipping, stepping = audit(), audit(), audit()
    whole.look(way, 0.002)
    for witness, passed in ((skipping, way[200:201]), (stepping, None)):
        witness.look(way[:200], 0.002)
        witness.look(way[201:], 0.002, passed)
    assert whole.violations == 0 and skipping.violations == 0 and stepping.counts["acceleration"] > 0
    assert skipping.worst.pop("skipped") == pytest.approx(np.abs(way[200] - way[199]).max())
    assert skipping.worst == pytest.approx(whole.worst)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("position", lambda t: 1.01 * np.sin(t) ** 2),
        ("velocity", lambda t: 2.2 * t - 1.0),
        ("acceleration", lambda t: 0.0 if t < 0.5 else 1.9 * (t - 0.5)),
        ("velocity", lambda t: 0.0 if t < 0.5 else 0.1),
        ("jerk", lambda t: 0.0 if t < 0.5 else 4.0 * (t - 0.5) ** 2),
        ("tcp_speed", lambda t: 1.9 * t),
        ("non_finite", lambda t: np.inf if t > 0.5 else 0.0),
    ],
)
def test_audit_names_what_was_broken(kind, path):
    assert feed(audit(), path, 2.0 if kind == "position" else 0.9).counts[kind] > 0


def test_audit_sees_the_tcp_leave_its_workspace():
    witness = CommandAudit(ROBOT)
    for t in np.arange(0.0, 1.0, 0.01):
        witness.look(ROBOT.home + 0.8 * np.sin(t) ** 2 * np.eye(6)[1], 0.01)
    assert set(witness.counts) == {"workspace"} and witness.worst["workspace"] > 0.01


def test_audit_starts_anew_after_a_restart_and_keeps_its_counts():
    witness = feed(audit(), lambda t: 0.0 if t < 0.5 else 0.5)
    counts = witness.violations
    assert counts > 0
    witness.restart()
    feed(witness, lambda t: -0.9)
    assert witness.violations == counts
