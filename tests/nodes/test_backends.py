"""Where plans go: real messages and real actions, on loopback.

``control_msgs`` is not among the wheels. The actions are tested with a stand-in, ``test_msgs/Fibonacci``: a real
action over ROS 2 whose goal carries the number of points in place of the trajectory. How goals of the true types are
filled is tested on objects with the same fields.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from harness import ros
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import ConfigError
from udvla_ros.motion.plan import Plan, Points
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import actions, runtime
from udvla_ros.nodes.actions import GripperAction, GripperCommand, ParallelGripperCommand, TrajectoryAction
from udvla_ros.nodes.backends import arm_backend, gripper_backend

ROBOT = RobotDescription.load("ur5e_sim")
POINTS = Points(
    np.array([0.1, 0.2]), np.array([ROBOT.home, ROBOT.home + 0.01]), np.zeros((2, 6)), np.zeros((2, 6)),
    np.array([0.0, 0.4]), 0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def probe():
    with ros() as made:
        yield made


def robot(gripper: dict | None = None, **controller) -> RobotDescription:
    hand = replace(ROBOT.gripper, **(gripper or {}))
    return replace(ROBOT, gripper=hand, controller={**ROBOT.controller, **controller})


def never(text: str) -> None:
    raise AssertionError(text)


def ramp(*knots: tuple[float, float]) -> Plan:
    """Return a plan of a resting arm whose gripper goes through (s, position)."""
    times = np.array([t for t, _ in knots])
    q, zero = np.repeat(ROBOT.home[None], len(knots), axis=0), np.zeros((len(knots), 6))
    return Plan(100.0, times, q, zero, zero, np.array([g for _, g in knots]))


def test_a_plan_reaches_the_arms_and_the_grippers_topic(probe):
    topics = (ROBOT.topics["command"], ROBOT.gripper.command_topic)
    arm, hand = arm_backend(probe.node, ROBOT, never), gripper_backend(probe.node, ROBOT, never)
    assert "nobody listens on" in arm.trouble() and topics[0] in arm.trouble() and hand.trouble()
    heard = [probe.hear(JointTrajectory, topic, runtime.COMMAND_QOS) for topic in topics]
    probe.until(lambda: not arm.trouble() and not hand.trouble(), "the subscriptions")
    arm.send(POINTS)
    hand.send(POINTS)
    probe.until(lambda: all(heard), "both messages")
    assert heard[0][0].joint_names == list(ROBOT.joints) and len(heard[0][0].points) == 2
    np.testing.assert_allclose(heard[0][0].points[1].positions, ROBOT.home + 0.01)
    assert list(heard[1][0].points[1].positions) == [0.4]


def test_forward_commands_are_what_is_commanded_at_each_tick(probe):
    made = robot({"type": "forward_command", "command_topic": "fingers/commands"}, type="forward_command_controller")
    made = replace(made, topics={**made.topics, "command": "forward/commands"})
    arm, hand = arm_backend(probe.node, made, never), gripper_backend(probe.node, made, never)
    heard = [probe.hear(Float64MultiArray, t, runtime.COMMAND_QOS) for t in ("forward/commands", "fingers/commands")]
    probe.until(lambda: not arm.trouble() and not hand.trouble(), "the subscriptions")
    plan = ramp((0.0, 0.0), (1.0, 0.8))
    for backend in (arm, hand):
        backend.send(POINTS)
        backend.follow(plan, 100.25)
        backend.follow(plan, 100.5)
    probe.until(lambda: all(len(messages) >= 2 for messages in heard), "the commands")
    np.testing.assert_allclose(heard[0][1].data, ROBOT.home)
    assert [round(m.data[0], 6) for m in heard[1]] == [0.2, 0.4]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: robot(interface="action"), "control_msgs/action/FollowJointTrajectory"),
        (lambda: robot(interface="pigeon"), "neither topic nor action"),
        (lambda: robot(type="forward_command_controller", interface="action"), "has no action"),
        (lambda: replace(ROBOT, topics={}), "topics.command is missing"),
    ],
)
def test_an_arm_that_cannot_be_had_is_refused_in_one_line(probe, monkeypatch, made, words):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with pytest.raises(ConfigError, match=words) as caught:
        arm_backend(probe.node, made(), never)
    assert "ur5e_sim.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gripper_command", "parallel_gripper_command"])
def test_a_gripper_by_action_needs_control_msgs_and_says_so(probe, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with pytest.raises(ConfigError, match=r"ros-jazzy-control-msgs"):
        gripper_backend(probe.node, robot({"type": kind}), never)
    with pytest.raises(ConfigError, match="not supported"):
        gripper_backend(probe.node, robot({"type": "chopsticks"}), never)
    assert gripper_backend(probe.node, replace(ROBOT, gripper=None), never) is None


def test_the_pandas_hand_is_spoken_to_by_its_action(probe, monkeypatch):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with pytest.raises(ConfigError, match=r"panda\.yaml: gripper\.type gripper_command needs"):
        gripper_backend(probe.node, RobotDescription.load("panda"), never)


class Command:
    """Stands in for the goal types of the gripper actions: the same fields, nothing else."""

    def __init__(self) -> None:
        self.command = SimpleNamespace()


def test_goals_of_grippers_are_filled_by_type(monkeypatch):
    module = ModuleType("control_msgs.action")
    module.GripperCommand = module.ParallelGripperCommand = SimpleNamespace(Goal=Command)
    monkeypatch.setitem(sys.modules, "control_msgs", ModuleType("control_msgs"))
    monkeypatch.setitem(sys.modules, "control_msgs.action", module)
    hand = replace(ROBOT.gripper, max_effort=20.0)
    goal = GripperCommand("x").goal(hand, 0.03)
    assert (goal.command.position, goal.command.max_effort) == (0.03, 20.0)
    goal = ParallelGripperCommand("x").goal(hand, 0.03)
    assert (goal.command.name, goal.command.position, goal.command.effort) == ([hand.joint], [0.03], [20.0])


def test_a_gripper_is_sent_to_where_it_next_turns_or_rests():
    plan = ramp((0.0, 0.0), (0.5, 0.0), (0.6, 0.1), (1.0, 0.8), (1.5, 0.8), (2.0, 0.2), (3.0, 0.2))
    assert [plan.next_turn(100.0 + t) for t in (0.1, 0.55, 0.9, 1.2, 1.6, 2.5)] == [0.0, 0.8, 0.8, 0.8, 0.2, 0.2]


class Server:
    """A stand-in action server in a thread of its own: it plays each goal until told how it ends."""

    def __init__(self, kind, name: str, accept: bool = True) -> None:
        import rclpy

        self.kind, self.accept, self.goals, self.end = kind, accept, [], "succeed"
        self.over = threading.Event()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("stand_in_controller", context=self.context)
        self.server = ActionServer(
            self.node, kind, name, self.execute, callback_group=ReentrantCallbackGroup(),
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.accept else GoalResponse.REJECT,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )  # fmt: skip
        self.executor = MultiThreadedExecutor(4, context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def execute(self, handle):
        self.goals.append(handle.request.order)
        self.over.wait(10.0)
        getattr(handle, self.end)()
        return self.kind.Result()

    def close(self) -> None:
        self.over.set()
        self.executor.shutdown()
        self.thread.join(5.0)
        self.server.destroy()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def fibonacci():
    return pytest.importorskip("test_msgs.action").Fibonacci


@pytest.fixture
def server(fibonacci):
    made = Server(fibonacci, "arm/follow")
    yield made
    made.close()


@pytest.fixture
def backend(probe, fibonacci):
    told: list[str] = []
    made = TrajectoryAction(
        probe.node, fibonacci, "arm/follow", lambda points: fibonacci.Goal(order=len(points.times)), told.append
    )
    return made, told


def test_plans_go_out_as_goals_and_a_new_one_takes_the_place_of_the_last(probe, server, backend):
    action, told = backend
    probe.until(lambda: not action.trouble(), "the action server")
    action.send(POINTS)
    probe.until(lambda: server.goals == [2], "the goal")
    action.send(POINTS._replace(times=np.array([0.1, 0.2, 0.3])))
    probe.until(lambda: server.goals == [2, 3], "the next goal while the first one plays")
    server.over.set()
    probe.until(lambda: action._goals._newest == 2, "both")
    assert told == []


def test_a_plan_that_the_controller_aborts_is_told(probe, server, backend):
    action, told = backend
    probe.until(lambda: not action.trouble(), "the action server")
    server.end = "abort"
    action.send(POINTS)
    probe.until(lambda: server.goals, "the goal")
    server.over.set()
    probe.until(lambda: told, "the failure")
    assert told == ["arm/follow aborted the plan"]


def test_an_old_plan_that_is_aborted_for_a_new_one_is_no_news(probe, server, backend):
    action, told = backend
    probe.until(lambda: not action.trouble(), "the action server")
    server.end = "abort"
    action.send(POINTS)
    probe.until(lambda: server.goals, "the goal")
    action._goals._newest += 1  # a newer one is on its way
    server.over.set()
    probe.until(lambda: server.node is not None and server.over.is_set(), "the end")
    for _ in range(10):
        probe._executor.spin_once(timeout_sec=0.05)
    assert told == []


def test_a_plan_that_is_rejected_is_told(probe, server, backend):
    action, told = backend
    probe.until(lambda: not action.trouble(), "the action server")
    server.accept = False
    action.send(POINTS)
    probe.until(lambda: told, "the refusal")
    assert "rejected" in told[0]


def test_without_a_server_nothing_is_sent_and_that_is_told(backend):
    action, told = backend
    assert "no action server arm/follow" in action.trouble()
    action.send(POINTS)
    assert told == [action.trouble()]


def test_a_gripper_gets_a_goal_when_its_target_changes_and_not_at_every_tick(probe, fibonacci):
    server, told = Server(fibonacci, "hand/command"), []
    hand = replace(ROBOT.gripper, command_topic="hand/command")
    kind = SimpleNamespace(kind=fibonacci, goal=lambda gripper, at: fibonacci.Goal(order=round(at * 100)))
    try:
        action = GripperAction(probe.node, hand, kind, told.append)
        probe.until(lambda: not action.trouble(), "the action server")
        server.end = "abort"  # as a gripper does that closes on something
        server.over.set()
        plan = ramp((0.0, 0.0), (0.5, 0.0), (1.0, 0.8), (1.5, 0.8), (2.0, 0.2), (3.0, 0.2))
        for t in np.arange(0.0, 3.0, 0.01):
            action.follow(plan, 100.0 + t)
        probe.until(lambda: len(server.goals) >= 2, "two goals")
        for _ in range(10):
            probe._executor.spin_once(timeout_sec=0.02)
        assert sorted(server.goals) == [20, 80] and told == []
    finally:
        server.close()


def test_the_type_is_that_of_control_msgs_where_it_is():
    pytest.importorskip("control_msgs")
    assert actions.action_type("FollowJointTrajectory", "x").Goal().trajectory.joint_names == []
