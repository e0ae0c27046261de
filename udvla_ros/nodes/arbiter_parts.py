"""``arbiter_node``'s parameters, and what it does with a message and before the first one."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.nodes import runtime
from udvla_ros.nodes.parameters import Entry

TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("blend", 0.25, "s over which a new chunk takes over from the plan in force", 0.0, 1.0, read_only=True),
    Entry("frozen", 0.1, "s for which the plan in force goes on before it is blended", 0.0, 1.0, read_only=True),
    Entry(
        "lead", 0.02,
        "s for which every new plan, a stop too, goes on along the one in force; longer than a message takes to the "
        "controller", 0.0, 0.1, read_only=True,
    ),
    Entry(
        "stamp_commands", True,
        "stamp trajectories with the plan's own time; false: stamp 0, 'now', for a controller on another clock",
        read_only=True,
    ),
    Entry("dry_run", False, "plan and publish as ever, but send the controller nothing", read_only=True),
    Entry(
        "emergency_stop_timeout", 0.0,
        "s of silence of emergency_stop, once heard, that count as pressed; 0: the robot file's arbiter.lock_timeout",
        0.0, 60.0, read_only=True,
    ),
    Entry("speed", 0.1, "fraction of the velocity limits in use; changes only while the arm rests", 0.01, 1.0),
)  # fmt: skip


def request_from_message(message: JointTrajectory) -> Trajectory:
    """Return what a source asks for, unchecked: the arbiter says what is wrong with it."""
    velocities: Any = [list(point.velocities) for point in message.points]
    times: Any = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
    positions: Any = [list(point.positions) for point in message.points]  # ragged perhaps: not an array yet
    return Trajectory(
        names=list(message.joint_names),
        times=times,
        positions=positions,
        velocities=velocities if any(velocities) else None,
        stamp=runtime.to_seconds(message.header.stamp),
    )


def warm_up(robot: RobotDescription, stitch: StitchOptions) -> None:
    """Plan, replan and stop once with an arbiter that is thrown away: the first time through takes 100 ms."""
    arbiter = Arbiter(robot, stitch=stitch)
    gripper = [] if robot.gripper is None else [robot.gripper.open]
    rest = [*robot.home.tolist(), *gripper]
    still = [0.0] * len(rest)
    arbiter.observe(robot.command_names, rest, still, 0.0)
    arbiter.engage("policy", 0.0)
    times = 0.1 * np.arange(1, 11)
    for begin in (0.1, 0.5):
        arbiter.observe(robot.command_names, rest, still, begin)
        sway = Trajectory(robot.command_names, times, np.array(rest) + 0.02 * times[:, None], stamp=begin)
        arbiter.offer("policy", sway, begin)
    arbiter.stop("warmed up", 0.7)
    arbiter.tick(0.7)
    arbiter.take(0.7)
    gc.collect()
    gc.freeze()  # the modules are no garbage: looking through them again takes milliseconds
