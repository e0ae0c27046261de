"""The arm: names and positions of its joints, its limits, its controller, its driver, and the arbiter."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence

import numpy as np

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import Snapshot
from udvla_ros.motion.robot import RobotDescription

SLACK = 1e-3  # rad, rad/s: the rounding of a data sheet is no contradiction
CARRIES_ON = ("interpolate_from_desired_state", "open_loop_control")  # since Jazzy, and before


def check(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Judge everything about the arm itself."""
    return [
        *_joints(robot, seen),
        *_positions(robot, seen),
        *_urdf(robot, seen.urdf),
        *_controller(robot, seen),
        *_driver(robot, seen),
        *_arbiter(robot, seen),
    ]


def hint(missing: Sequence[str], heard: Sequence[str]) -> str:
    """Return why names differ, where it is a prefix or another order of words, or an empty string."""
    for name in heard:
        for wanted in missing:
            if name != wanted and name.endswith(wanted):
                return (
                    f"the driver puts '{name.removesuffix(wanted)}' before them (tf_prefix): write it in the robot file"
                )
            if name != wanted and wanted.endswith(name):
                return f"the driver leaves out '{wanted.removesuffix(name)}': take it out of the robot file"
    return "write the driver's names in the robot file, in kinematic order"


def _joints(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    states = seen.joint_states
    topic = seen.topic(robot.topics.get("joint_states", "joint_states"))
    if not states.arrivals:
        if not topic.publishers:
            return []  # told with the topics
        return [fail("joints", f"no joint state came within {seen.seconds:g} s of looking", "is the driver connected?")]
    heard = sorted(states.positions)
    gripper = robot.gripper.joint if robot.gripper is not None and robot.gripper.feedback else None
    wanted = [*robot.joints, *([gripper] if gripper else [])]
    missing = [name for name in wanted if name not in heard]
    found = []
    if missing:
        mend = hint(missing, [name for name in heard if name not in wanted])
        if missing == [gripper]:
            mend += "; a gripper that is not among the joint states needs gripper.feedback: false"
        found.append(fail("joints", f"{', '.join(missing)} not among the joint states ({', '.join(heard)})", mend))
    twice = sorted({name for a in states.groups for b in states.groups if a != b for name in set(a) & set(b)})
    if twice or len(topic.publishers) > len(states.groups):
        ends = ", ".join(end.node for end in topic.publishers)
        found.append(
            warn("joints", f"{topic.name}: more than one tells of the same joints ({ends})", "stop all but one")
        )
    if not states.with_velocity:
        found.append(
            warn("joints", "joint states come without velocities", "they are taken from differences of positions")
        )
    return found or [ok("joints", f"{', '.join(wanted)}")]


def _positions(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    at, found, limits = seen.joint_states.positions, [], robot.limits
    if not all(name in at for name in robot.joints):
        return []
    for i, name in enumerate(robot.joints):
        value = at[name]
        if not limits.hard_lower[i] <= value <= limits.hard_upper[i]:
            found.append(
                fail(
                    "position",
                    f"{name} is at {value:.3f} rad, outside {limits.hard_lower[i]:.3f} to {limits.hard_upper[i]:.3f}",
                    "move it back by the driver's own means: the arbiter will not engage",
                )
            )
        elif not limits.lower[i] <= value <= limits.upper[i]:
            found.append(
                warn("position", f"{name} is within the margin of its limit", "only motion inwards is accepted")
            )
    here = robot.kinematics.forward(np.array([at[name] for name in robot.joints]))[:3, 3]
    said = f"TCP at ({here[0]:.3f}, {here[1]:.3f}, {here[2]:.3f}) m in {robot.base_frame}"
    outside = float(robot.workspace.depth(here[None]).max())
    if outside > 0:
        found.append(
            warn("position", f"{said}: {outside:.3f} m outside the workspace", "move it inside, or mend workspace.box")
        )
    return found or [ok("position", f"{said}, inside joint limits and workspace")]


def _urdf(robot: RobotDescription, text: str) -> list[Finding]:
    own = f"{robot.path.name}: speed, acceleration and jerk limits do not contradict each other"
    if not text:
        return [ok("limits", f"{own}; no robot_description is published to compare with")]
    try:
        joints = {joint.get("name", ""): joint for joint in ElementTree.fromstring(text).iter("joint")}
    except ElementTree.ParseError as error:
        return [warn("limits", f"robot_description cannot be read ({error})", "look at robot_state_publisher's log")]
    found, limits = [], robot.limits
    missing = [name for name in robot.joints if name not in joints]
    if missing:
        others = [name for name in joints if name not in robot.joints]
        return [fail("limits", f"robot_description has no joint {', '.join(missing)}", hint(missing, others))]
    for i, name in enumerate(robot.joints):
        bound = joints[name].find("limit")
        if bound is None:
            continue
        lower, upper, velocity = (_number(bound, key) for key in ("lower", "upper", "velocity"))
        if joints[name].get("type") != "continuous":
            if lower is not None and limits.hard_lower[i] < lower - SLACK:
                found.append(_beyond(robot, name, "lower bound", limits.hard_lower[i], lower))
            if upper is not None and limits.hard_upper[i] > upper + SLACK:
                found.append(_beyond(robot, name, "upper bound", limits.hard_upper[i], upper))
        if velocity is not None and limits.velocity[i] > velocity + SLACK:
            found.append(_beyond(robot, name, "velocity", limits.velocity[i], velocity))
    return found or [ok("limits", f"{own}, and lie inside robot_description's")]


def _number(element: ElementTree.Element, key: str) -> float | None:
    text = element.get(key)
    return None if text is None else float(text)


def _beyond(robot: RobotDescription, joint: str, what: str, ours: float, theirs: float) -> Finding:
    return fail(
        "limits",
        f"{what} of {joint} is {ours:.3f} in {robot.path.name} and {theirs:.3f} in robot_description",
        f"stay inside the robot's: mend {robot.path.name}",
    )


def _controller(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    controller, found = seen.controller, []
    name = controller.node.rpartition("/")[2]
    if controller.states is not None:
        kind, state = controller.states.get(name, ("", ""))
        if not kind:
            loaded = ", ".join(controller.states) or "none"
            found.append(
                fail("controller", f"{name} is not loaded; there are {loaded}", f"ros2 control load_controller {name}")
            )
        elif state != "active":
            found.append(
                fail("controller", f"{name} ({kind}) is {state}", f"ros2 control switch_controllers --activate {name}")
            )
        else:
            found.append(ok("controller", f"{name} ({kind}) is active"))
    elif controller.manager:
        found.append(
            warn(
                "controller",
                f"{controller.manager} could not be asked ({controller.why_unknown})",
                "ros2 control list_controllers",
            )
        )
    elif seen.topic(robot.topics.get("command", "")).subscriptions:
        who = seen.topic(robot.topics["command"]).subscriptions[0].node
        found.append(ok("controller", f"no controller_manager in this graph: {who} plays the commands itself"))
    if controller.parameters is not None:
        found += _controller_parameters(robot, name, controller.parameters)
    return found


def _controller_parameters(robot: RobotDescription, name: str, values: Mapping[str, object]) -> list[Finding]:
    found = []
    joints = values.get("joints")
    if isinstance(joints, (list, tuple)) and joints and set(joints) != set(robot.joints):
        missing = [joint for joint in robot.joints if joint not in joints]
        found.append(
            fail(
                "controller joints",
                f"{name} moves {', '.join(map(str, joints))}",
                hint(missing, [str(j) for j in joints]),
            )
        )
    carries_on = [values[key] for key in CARRIES_ON if values.get(key) is not None]
    if carries_on and not any(carries_on):
        found.append(
            warn(
                "controller splice",
                f"{name} starts each trajectory where the arm is, not where it was told to be: a step back at each one",
                f"set {CARRIES_ON[0]}: true ({CARRIES_ON[1]} before Jazzy) in its configuration",
            )
        )
    tolerances = [values.get(f"constraints.{joint}.trajectory") for joint in robot.joints]
    least = min((float(t) for t in tolerances if isinstance(t, float) and t > 0), default=None)
    following = robot.arbiter.get("following_error")
    if least is not None and following is not None and following > least + SLACK:
        found.append(
            warn(
                "controller tolerance",
                f"{name} gives up {least:g} rad behind, the arbiter only {following:g}",
                f"lower arbiter.following_error to {least:g}",
            )
        )
    return found or [ok("controller settings", f"{name}: joints and splicing are as they must be")]


def _driver(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    found = []
    for key in ("program_running", "speed_scaling"):
        if key not in robot.driver:
            continue
        topic, value = seen.topic(robot.driver[key]), seen.driver.get(key)
        if not topic.publishers:
            found.append(
                fail("driver", f"nobody publishes {topic.name}", f"start it: {robot.driver.get('start', 'the driver')}")
            )
        elif value is None:
            found.append(warn("driver", f"nothing came on {topic.name}", "is the robot switched on and connected?"))
        elif key == "program_running":
            found.append(
                ok("driver", "the robot's program runs")
                if value
                else fail("driver", "the robot's program does not run", "play External Control on the pendant")
            )
        elif float(value) < 99.0:  # type: ignore[arg-type]
            found.append(
                warn(
                    "driver",
                    f"the robot runs at {float(value):.0f} % of what it is told",  # type: ignore[arg-type]
                    "set the pendant's slider to 100 and slow down with the arbiter's speed: else the arm falls behind",
                )
            )
        else:
            found.append(ok("driver", "speed scaling at 100 %"))
    return found


def _arbiter(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    topic, arbiter = seen.topic("arbiter/mode"), seen.arbiter
    if not topic.publishers:
        return [ok("arbiter", "does not run yet")]
    if len(topic.publishers) > 1:
        return [fail("arbiter", f"{len(topic.publishers)} of them run", "stop all but one")]
    if not arbiter.mode:
        return [fail("arbiter", f"{topic.name} is silent", "look at its log")]
    speed, dry = arbiter.values.get("speed", "?"), arbiter.values.get("dry_run", "")
    said = f"{arbiter.mode} ({arbiter.reason}), speed {speed}" + (", dry run: nothing is sent" if dry == "True" else "")
    if arbiter.mode == "STOPPED":
        return [
            warn("arbiter", said, "ros2 service call /arbiter_node/reset std_srvs/srv/Trigger once the reason is gone")
        ]
    if arbiter.level > 0:
        return [warn("arbiter", f"{said}: {arbiter.message}", "see /diagnostics")]
    return [ok("arbiter", said)]
