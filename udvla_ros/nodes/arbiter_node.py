"""``arbiter_node``: the only writer to the controller.

A thin shell around :class:`udvla_ros.motion.arbiter.Arbiter`: messages in, one trajectory out for each plan that
comes into force, the commanded state at 100 Hz for whoever needs it. It imports no torch and outlives the
policy. A stop here is not a safety-rated stop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import ConfigError
from udvla_ros.motion.arbiter import Arbiter, Event, Verdict
from udvla_ros.motion.modes import SOURCES, Mode
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.nodes import runtime
from udvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Rate, Report, Samples
from udvla_ros.nodes.messages import message_from_arrays
from udvla_ros.nodes.parameters import Entry, Parameters

TICK_HZ = 100.0
# The controller plays the plan in force until a new one reaches it. If that takes longer than the two plans are
# the same, the controller's own bridge to the first point has to hide the difference: then it is given room.
LATE, ROOM = 0.025, 0.08  # s
RECENT = 2.0  # s for which a refusal colours the diagnostics

TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("blend", 0.2, "s over which a new chunk takes over from the plan in force", 0.0, 1.0, read_only=True),
    Entry("frozen", 0.1, "s for which the plan in force goes on before it is blended", 0.0, 1.0, read_only=True),
    Entry(
        "stamp_commands", True,
        "stamp trajectories with the plan's own time; false: stamp 0, 'now', for a controller on another clock",
        read_only=True,
    ),
    Entry("speed", 1.0, "fraction of the velocity limits in use; changes only while the arm rests", 0.01, 1.0),
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
    plan = arbiter.take()
    if plan is not None:
        plan.points(0.7)


class ArbiterNode(Node):
    """Sources in, one stream of commands out."""

    def __init__(self) -> None:
        super().__init__("arbiter_node")
        self._ready = False
        self.parameters = Parameters(self, TABLE, check=self._check)
        self.robot = RobotDescription.load(self.parameters["robot"])
        stitch = StitchOptions(blend=self.parameters["blend"], frozen=self.parameters["frozen"])
        warm_up(self.robot, stitch)
        self.arbiter = Arbiter(self.robot, stitch=stitch)
        self.arbiter.set_speed(self.parameters["speed"], runtime.now(self))
        self._last_refusal, self._refused_at = "", -np.inf
        self._said: tuple[str, str] | None = None
        self._rates = {name: Rate() for name in ("tick", "joint_states", *SOURCES)}
        self._costs = {name: Samples() for name in ("tick", "offer", "tick_gap")}
        self._last_tick: float | None = None
        self._sent = self._late = 0
        self._advertise()
        self._listen()
        self._diagnostics = Diagnostics(self, self.robot.name, self._report)
        self.create_timer(1.0 / TICK_HZ, self._tick)
        self._ready = True
        self._publish_mode()
        runtime.announce_ready(self, f"{self.robot.name}, commands on {self.robot.topics['command']}")

    def _advertise(self) -> None:
        robot = self.robot
        kind, topic = robot.controller["type"], robot.topics.get("command")
        if not topic:
            raise ConfigError(f"{robot.path.name}: topics.command is missing; name the controller's topic")
        self._forward = kind == "forward_command_controller"
        self._arm = self.create_publisher(
            Float64MultiArray if self._forward else JointTrajectory, topic, runtime.COMMAND_QOS
        )
        self._gripper = None
        if robot.gripper is not None:
            if robot.gripper.type != "joint_trajectory":
                raise ConfigError(
                    f"{robot.path.name}: gripper.type '{robot.gripper.type}' is not supported; use joint_trajectory"
                )
            self._gripper = self.create_publisher(
                JointTrajectory, robot.gripper.command_topic, runtime.COMMAND_QOS
            )
        self._command = self.create_publisher(JointState, "arbiter/command", runtime.STATE_QOS)
        self._mode = self.create_publisher(String, "arbiter/mode", runtime.LATCHED_QOS)
        self._reason = self.create_publisher(String, "arbiter/mode_reason", runtime.LATCHED_QOS)

    def _listen(self) -> None:
        self.create_subscription(
            JointState, self.robot.topics.get("joint_states", "joint_states"), self._on_joints, runtime.STATE_QOS
        )
        for source in SOURCES:
            self.create_subscription(
                JointTrajectory, f"{source}/joint_trajectory", partial(self._on_offer, source), runtime.COMMAND_QOS
            )
        self.create_subscription(Bool, "emergency_stop", self._on_lock, runtime.LATCHED_QOS)
        arbiter = self.arbiter
        for name, act in {
            "engage_policy": lambda now: arbiter.engage("policy", now),
            "engage_teleop": lambda now: arbiter.engage("teleop", now),
            "hold": lambda now: arbiter.hold(now),
            "stop": lambda now: arbiter.stop("stop was called", now),
            "reset": lambda now: arbiter.reset(now),
        }.items():
            self.create_service(Trigger, f"~/{name}", partial(self._on_service, name, act))

    # -- in ----------------------------------------------------------------------------------------------
    def _on_joints(self, message: JointState) -> None:
        now = runtime.now(self)
        self._rates["joint_states"].note(now)
        self.arbiter.observe(message.name, message.position, message.velocity, now)

    def _on_offer(self, source: str, message: JointTrajectory) -> None:
        now, begin = runtime.now(self), time.perf_counter()
        self._rates[source].note(now)
        self.arbiter.offer(source, request_from_message(message), now)
        elapsed = time.perf_counter() - begin
        self._costs["offer"].add(elapsed * 1e3)
        self._send(late=elapsed > LATE)

    def _on_lock(self, message: Bool) -> None:
        self.arbiter.lock("emergency_stop", message.data, runtime.now(self))
        self._send()

    def _on_service(
        self, name: str, act: Callable[[float], Verdict], _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        verdict = act(runtime.now(self))
        self._send()
        response.success, response.message = verdict.accepted, verdict.reason or self.arbiter.mode.value
        if not verdict.accepted:
            self._note_refusal(f"{name}: {verdict.reason}")
            self._diagnostics.publish()
        return response

    def _check(self, values: dict[str, Any]) -> None:
        """Let the arbiter judge a new speed; the other parameters are read-only."""
        if not self._ready or values["speed"] == self.arbiter.safety.speed:
            return
        verdict = self.arbiter.set_speed(values["speed"], runtime.now(self))
        if not verdict.accepted:
            raise ConfigError(verdict.reason)

    # -- out ---------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        begin = time.perf_counter()
        if self._last_tick is not None:
            self._costs["tick_gap"].add((begin - self._last_tick) * 1e3)
        self._last_tick = begin
        now = runtime.now(self)
        self._rates["tick"].note(now)
        self._send(now)
        plan = self.arbiter.plan
        if plan is not None:
            state, gripper = plan.state(now), plan.gripper_at(now)
            self._publish_command(state.q, state.qd, gripper, now)
            if self._forward:
                self._arm.publish(Float64MultiArray(data=state.q.tolist()))
        self._costs["tick"].add((time.perf_counter() - begin) * 1e3)

    def _send(self, now: float | None = None, late: bool = False) -> None:
        """Send the plan if it is new, and tell what happened."""
        now = runtime.now(self) if now is None else now
        events = self.arbiter.tick(now)
        plan = self.arbiter.take()
        if plan is not None:
            self._send_plan(plan, now, late)
        self._tell(events)

    def _send_plan(self, plan: Plan, now: float, late: bool) -> None:
        self._late += late
        times, q, qd, qdd, gripper = plan.points(now, ROOM) if late else plan.points(now)
        stamp = now if self.parameters["stamp_commands"] else 0.0
        if not self._forward:
            self._arm.publish(message_from_arrays(self.robot.joints, times, q, qd, qdd, stamp))
        if self._gripper is not None and self.robot.gripper is not None:
            self._gripper.publish(
                message_from_arrays([self.robot.gripper.joint], times, gripper[:, None], stamp=stamp)
            )
        self._sent += 1

    def _publish_command(self, q: np.ndarray, qd: np.ndarray, gripper: float, now: float) -> None:
        message = JointState(name=list(self.robot.command_names), position=q.tolist(), velocity=qd.tolist())
        if self.robot.gripper is not None:
            message.position.append(gripper)
            message.velocity.append(0.0)
        message.header.stamp = runtime.to_stamp(now)
        message.header.frame_id = self.robot.base_frame
        self._command.publish(message)

    def _tell(self, events: list[Event]) -> None:
        log = self.get_logger()
        for event in events:
            if event.kind == "refused":
                self._note_refusal(event.text)
                log.warning(f"refused {event.text}")
            elif event.kind in ("mode", "ready"):
                log.info(event.text)
            else:
                log.info(f"{event.kind}: {event.text}", throttle_duration_sec=1.0)
        self._publish_mode()
        if any(event.kind in ("refused", "mode", "clock") for event in events):
            self._diagnostics.publish()

    def _publish_mode(self) -> None:
        said = (self.arbiter.mode.value, self.arbiter.mode_reason)
        if said != self._said:
            self._said = said
            self._reason.publish(String(data=said[1]))
            self._mode.publish(String(data=said[0]))

    def _note_refusal(self, text: str) -> None:
        self._last_refusal, self._refused_at = text, runtime.now(self)

    def _report(self) -> Report:
        arbiter, now = self.arbiter, runtime.now(self)
        values: dict[str, object] = {
            "mode": arbiter.mode.value,
            "mode_reason": arbiter.mode_reason,
            "speed": arbiter.safety.speed,
            "plans_sent": self._sent,
            "plans_sent_late": self._late,
            "last_refusal": self._last_refusal,
            "joint_states_age_s": float(now - arbiter.measured.time),
        }
        values |= {f"{name}_hz": rate.hz(now) for name, rate in self._rates.items()}
        values |= dict(sorted(arbiter.counts.items()))
        for name, samples in self._costs.items():
            values |= {f"{name}_ms_{key}": value for key, value in samples.percentiles().items()}
        if arbiter.mode is Mode.STOPPED:
            return ERROR, f"stopped: {arbiter.mode_reason}", values
        if now - self._refused_at < RECENT:
            return WARN, f"refused {self._last_refusal}", values
        if arbiter.plan is None:
            return WARN, arbiter.measured.why_not_still(now, arbiter.options) or arbiter.mode_reason, values
        return OK, f"{arbiter.mode.value}: {arbiter.mode_reason}", values


def main() -> int:
    """Run the node."""
    return runtime.run(ArbiterNode)


if __name__ == "__main__":
    sys.exit(main())
