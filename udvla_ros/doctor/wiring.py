"""Who publishes what to whom: are the topics there, of the right type, with one writer, and do the policies meet?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import (
    BEST_EFFORT,
    RELIABLE,
    TRANSIENT_LOCAL,
    VOLATILE,
    Endpoint,
    Qos,
    Snapshot,
    Topic,
)
from udvla_ros.motion.robot import RobotDescription

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
NUMBERS = "std_msgs/msg/Float64MultiArray"
ARBITER = "arbiter_node"
LATCHED = Qos(RELIABLE, TRANSIENT_LOCAL)


@dataclass(frozen=True)
class Input:
    """A topic that the graph listens to, and how."""

    what: str
    topic: str
    type: str
    qos: Qos
    source: str


@dataclass(frozen=True)
class Output:
    """A topic that the arbiter alone writes to; ``action`` for the name of an action server."""

    what: str
    topic: str
    type: str
    action: bool = False


def inputs(robot: RobotDescription, cameras: Sequence[str] | None = None) -> list[Input]:
    """Return what the arbiter and the policy subscribe to of this robot, for all its cameras or the named ones."""
    start = robot.driver.get("start", "the robot's driver")
    found = [
        Input("joint_states", robot.topics.get("joint_states", "joint_states"), JOINT_STATE, Qos(BEST_EFFORT), start)
    ]
    for name in robot.cameras if cameras is None else cameras:
        topic = robot.cameras.get(name, {}).get("topic", "")
        kind = COMPRESSED if topic.endswith("/compressed") else IMAGE
        found.append(Input(f"camera {name}", topic, kind, Qos(BEST_EFFORT), "the camera's driver"))
    return found


def outputs(robot: RobotDescription) -> list[Output]:
    """Return what the arbiter writes to, as its backends do."""
    forward, topic = robot.controller["type"] == "forward_command_controller", robot.topics.get("command", "")
    if robot.controller.get("interface") == "action":
        name = robot.controller.get("action") or f"{topic.rpartition('/')[0]}/follow_joint_trajectory"
        found = [Output("command", name, "", action=True)]
    else:
        found = [Output("command", topic, NUMBERS if forward else TRAJECTORY)]
    gripper = robot.gripper
    if gripper is not None:
        kind = NUMBERS if gripper.type == "forward_command" else TRAJECTORY
        found.append(Output("gripper command", gripper.command_topic, kind, gripper.type.endswith("gripper_command")))
    return found


def check(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Judge every topic the robot file names."""
    found: list[Finding] = []
    for entry in inputs(robot):
        found += _input(entry, seen, robot)
    for output in outputs(robot):
        found += _action(output, seen) if output.action else _output(output, seen, robot)
    return found


def meets(publisher: Qos, subscription: Qos) -> str:
    """Return why a subscription gets nothing from a publisher, or an empty string."""
    if publisher.reliability == BEST_EFFORT and subscription.reliability == RELIABLE:
        return "it is published best effort and asked for reliably"
    if publisher.durability == VOLATILE and subscription.durability == TRANSIENT_LOCAL:
        return "it is published volatile and asked for transient local"
    return ""


def _input(entry: Input, seen: Snapshot, robot: RobotDescription) -> list[Finding]:
    check, file = f"topic {entry.what}", robot.path.name
    if not entry.topic:
        return [fail(check, f"{file} names no topic", f"give it one in {file}")]
    topic = seen.topic(entry.topic)
    wrong = _none_or_wrong_type(check, topic, topic.publishers, entry.type, "publishes", entry.source, file)
    if wrong:
        return wrong
    found = _do_not_meet(entry.what, topic, [Endpoint("this package", entry.type, entry.qos), *topic.subscriptions])
    nodes = _names(topic.publishers)
    if len(topic.publishers) > 1 and entry.type != JOINT_STATE:
        found.append(fail(check, f"{topic.name} has {len(topic.publishers)} publishers: {nodes}", "stop all but one"))
    if not found:
        found.append(ok(check, f"{topic.name} from {nodes}"))
    return found


def _do_not_meet(what: str, topic: Topic, subscriptions: Sequence[Endpoint]) -> list[Finding]:
    """Tell of each publisher and subscription whose policies keep them apart."""
    found = {}
    for publisher in topic.publishers:
        for subscription in subscriptions:
            why = meets(publisher.qos, subscription.qos)
            if why:
                found[publisher.node, subscription.node] = fail(
                    f"qos {what}",
                    f"nothing on {topic.name} reaches {subscription.node} from {publisher.node}: {why}",
                    "let both say the same, best by the one that publishes",
                )
    return list(found.values())


def _output(output: Output, seen: Snapshot, robot: RobotDescription) -> list[Finding]:
    check, file = f"topic {output.what}", robot.path.name
    if not output.topic:
        return [fail(check, f"{file} names no topic", f"give it one in {file}")]
    topic = seen.topic(output.topic)
    source = robot.driver.get("start", "the controller")
    wrong = _none_or_wrong_type(check, topic, topic.subscriptions, output.type, "listens to", source, file)
    found = list(wrong)
    if not wrong:
        ours = [Endpoint(ARBITER, output.type)]
        found += _do_not_meet(output.what, Topic(topic.name, (*ours, *topic.publishers)), topic.subscriptions)
    others = [end for end in topic.publishers if end.node.rpartition("/")[2] != ARBITER]
    if others:
        found.append(
            fail(
                check,
                f"{_names(others)} also writes to {topic.name}",
                "stop it: the arbiter must be the controller's only writer",
            )
        )
    if len(topic.publishers) - len(others) > 1:
        found.append(fail(check, f"{_names(topic.publishers)} all write to {topic.name}", "run one arbiter only"))
    return found or [ok(check, f"{topic.name} to {_names(topic.subscriptions)}")]


def _action(output: Output, seen: Snapshot) -> list[Finding]:
    """An action server is there when it publishes its status."""
    topic = seen.topic(f"{output.topic}/_action/status")
    if topic.publishers:
        return [ok(f"action {output.what}", f"{output.topic} of {_names(topic.publishers)}")]
    return [
        fail(
            f"action {output.what}",
            f"nobody serves {output.topic}",
            "start the driver that serves it, or mend its name in the robot file",
        )
    ]


def _none_or_wrong_type(
    check: str, topic: Topic, ends: Sequence[Endpoint], kind: str, does: str, source: str, file: str
) -> list[Finding]:
    if not ends:
        return [fail(check, f"nobody {does} {topic.name}", f"start it ({source}), or mend the name in {file}")]
    found = []
    for end in ends:
        if end.type != kind:
            found.append(fail(check, f"{topic.name} of {end.node} is {end.type}", f"it must be {kind}"))
    return found


def _names(ends: Sequence[Endpoint]) -> str:
    return ", ".join(sorted({end.node for end in ends}))


def check_listeners(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Say whether a sentence is heard of, which the policy waits for."""
    topic = seen.topic("instruction")
    if not topic.publishers:
        return [
            warn(
                "topic instruction",
                f"nobody publishes {topic.name}: the policy has no sentence yet",
                "ros2 topic pub --once --qos-durability transient_local "
                f'{topic.name} std_msgs/msg/String "data: ...", or policy_node\'s parameter instruction',
            )
        ]
    late = [end for end in topic.publishers if meets(end.qos, LATCHED)]
    if late:
        return [
            fail(
                "qos instruction",
                f"what {_names(late)} says on {topic.name} will not arrive: {meets(late[0].qos, LATCHED)}",
                "publish it with --qos-durability transient_local",
            )
        ]
    return [ok("topic instruction", f"{topic.name} from {_names(topic.publishers)}")]
