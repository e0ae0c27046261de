"""``arbiter_node``: the only writer to the controller.

A thin shell around :class:`udvla_ros.motion.arbiter.Arbiter`: messages in, one trajectory out for each plan that
comes into force, the commanded state at 100 Hz for whoever needs it. It imports no torch and outlives the
policy. A stop here is not a safety-rated stop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Empty, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import ConfigError
from udvla_ros.motion.arbiter import Arbiter, Event, Verdict
from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.modes import SOURCES, Mode
from udvla_ros.motion.plan import Plan, Points
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.nodes import runtime
from udvla_ros.nodes.arbiter_parts import TABLE, request_from_message, warm_up
from udvla_ros.nodes.backends import arm_backend, arm_message, gripper_backend
from udvla_ros.nodes.controller_watch import ControllerWatch
from udvla_ros.nodes.diagnostics import ERROR, OK, WARN, CpuShare, Diagnostics, Rate, Report, Samples
from udvla_ros.nodes.locks import LockTopic
from udvla_ros.nodes.parameters import Parameters
from udvla_ros.nodes.polled import Polled, PolledJointStates
from udvla_ros.nodes.timekeeping import Timekeeper
from udvla_ros.nodes.writers import Writers

TICK_HZ = 100.0
# Plans and those before them are the same for the lead, and a little later they differ by little. What took much longer
# to make has missed its moment: the controller is left to make its own way to it, which costs a step of its own.
LATE = 0.04  # s
RECENT = 2.0  # s for which a refusal colours the diagnostics
LOOK = 25  # ticks between looks at who is there: receivers, other writers, publishers of locks
OFFERS = 3  # of a source, the newest, that are considered at a tick
EMERGENCY_STOP = "emergency_stop"
REASON = 200  # characters of a reason given by another node
DRY_RUN = " (dry run: nothing is sent to the controller)"


class ArbiterNode(Node):
    """Sources in, one stream of commands out."""

    def __init__(self) -> None:
        super().__init__("arbiter_node")
        self._ready = False
        self.parameters = Parameters(self, TABLE, check=self._check)
        self.robot = RobotDescription.load(self.parameters["robot"])
        stitch = StitchOptions(**{name: self.parameters[name] for name in ("blend", "frozen", "lead")})
        warm_up(self.robot, stitch)
        self.arbiter = Arbiter(self.robot, self._options(), stitch)
        self.arbiter.set_speed(self.parameters["speed"], runtime.now(self))
        self._last_refusal, self._refused_at = "", -np.inf
        self._said: tuple[str, str] | None = None
        self._rates = {name: Rate() for name in ("tick", "joint_states", *SOURCES)}
        self._costs = {name: Samples() for name in ("tick", "offer", "tick_gap")}
        self._cpu = CpuShare()
        self._writers = {name: Writers(self, f"{name}/joint_trajectory") for name in SOURCES}
        self._last_tick: float | None = None
        self._ticks = self._sent = self._late = 0
        self._advertise()
        self._listen()
        self._diagnostics = Diagnostics(self, self.robot.name, self._report)
        simulated = self.get_parameter("use_sim_time").value
        self._clock_watch = Timekeeper(lambda: runtime.now(self), simulated=simulated)
        self._ready = True
        self._publish_mode()
        runtime.announce_ready(self, f"{self.robot.name}, commands on {self.robot.topics['command']}{self._suffix}")

    def fault(self, line: str) -> None:
        """Stop: something in here failed, and what state it left is not known."""
        self.arbiter.stop(f"a fault in arbiter_node: {line}", runtime.now(self))

    def _options(self) -> ArbiterOptions:
        options = ArbiterOptions.of(self.robot)
        return replace(
            options,
            dry_run=options.dry_run or self.parameters["dry_run"],
            lock_timeout=self.parameters["emergency_stop_timeout"] or options.lock_timeout,
            stamp_commands=options.stamp_commands and self.parameters["stamp_commands"],
        )

    @property
    def _suffix(self) -> str:
        return DRY_RUN if self.arbiter.options.dry_run else ""

    def _advertise(self) -> None:
        self._arm = arm_backend(self, self.robot, self._on_failure)
        self._gripper = gripper_backend(self, self.robot, lambda text: self._on_failure(f"gripper: {text}"))
        publish = partial(self.create_publisher, event_callbacks=runtime.unwatched())
        self._shown = publish(JointTrajectory, "~/dry_run/joint_trajectory", runtime.COMMAND_QOS)
        self._command = publish(JointState, "arbiter/command", runtime.STATE_QOS)
        self._mode = publish(String, "arbiter/mode", runtime.LATCHED_QOS)
        self._reason = publish(String, "arbiter/mode_reason", runtime.LATCHED_QOS)
        self._message = JointState(name=list(self.robot.command_names))
        self._message.header.frame_id = self.robot.base_frame

    def _listen(self) -> None:
        self._joints = PolledJointStates(self, self.robot.topics.get("joint_states", "joint_states"))
        self._offers = {
            name: Polled(self, JointTrajectory, f"{name}/joint_trajectory", runtime.COMMAND_QOS) for name in SOURCES
        }
        self._lock = LockTopic(self, "emergency_stop")
        self._watch = ControllerWatch(self, self.robot, self._arm, self._gripper)
        self._hand_over = Polled(self, String, "policy/hand_over", runtime.COMMAND_QOS)
        self._alive = Polled(self, Empty, "policy/alive", runtime.STATE_QOS)
        self._policy_heard: float | None = None  # on a steady clock; a policy of somebody else's never says
        arbiter = self.arbiter
        for name, act in {
            "engage_policy": lambda now: self._engage("policy", now),
            "engage_teleop": lambda now: self._engage("teleop", now),
            "hold": lambda now: arbiter.hold(now),
            "stop": lambda now: arbiter.stop("stop was called", now),
            "reset": lambda now: arbiter.reset(now),
        }.items():
            self.create_service(Trigger, f"~/{name}", partial(self._on_service, name, act))

    # -- in ----------------------------------------------------------------------------------------------
    def _time(self) -> float:
        """Return the time, after telling the arbiter of a clock that was set or a process that stood still."""
        now, stepped, silent = self._clock_watch.read()
        if self.arbiter.plan is not None:
            if stepped:
                self.arbiter.clock_stepped(stepped, now)
            elif silent > self.arbiter.options.clock_jump:
                self.arbiter.stalled(silent, now)
        return now

    def _take_joints(self, now: float) -> None:
        for message in self._joints.take():
            self._rates["joint_states"].note(now)
            stamp = runtime.to_seconds(message.header.stamp)
            self.arbiter.observe(message.name, message.position, message.velocity, now, stamp)

    def _take_locks(self, now: float) -> None:
        for held in self._lock.take():
            self.arbiter.lock(EMERGENCY_STOP, held, now)
        for name, reason in self._watch.poll(now).items():
            self.arbiter.impede(name, reason, now)
        if not self.arbiter.options.dry_run and (foreign := self._watch.foreign()):
            self.arbiter.intruded(foreign, now)

    def _take_offers(self) -> None:
        if self._alive.take():
            self._policy_heard = time.monotonic()
        for message, _ in self._hand_over.messages():
            reason = " ".join(message.data.split())[:REASON] or "the policy asks to be held"
            self.arbiter.hand_over(reason, self._time())
        for source, polled in self._offers.items():
            taken = polled.take()
            for number, (data, info) in enumerate(taken):
                if rivals := self._writers[source].hear(info, runtime.now(self)):
                    self.arbiter.contest(source, rivals, self._time())
                if number >= len(taken) - OFFERS:
                    self._on_offer(source, deserialize_message(data, JointTrajectory))

    def _on_offer(self, source: str, message: JointTrajectory) -> None:
        now, begin = self._time(), time.perf_counter()
        self._rates[source].note(now)
        self.arbiter.offer(source, request_from_message(message), now)
        elapsed = time.perf_counter() - begin
        self._costs["offer"].add(elapsed * 1e3)
        self._send(self._time(), late=elapsed > LATE)

    def _on_failure(self, text: str) -> None:
        """Stop: the controller refused a plan or gave one up, so what it does now is not what is commanded."""
        now = self._time()
        self.arbiter.stop(text, now)
        self.get_logger().error(text)

    def _engage(self, source: str, now: float) -> Verdict:
        trouble = self._writers[source].rivals()
        if not trouble and source == "policy" and not self.count_publishers(f"{source}/joint_trajectory"):
            trouble = f"nobody publishes on {source}/joint_trajectory; is policy_node active?"
        silent = 0.0 if self._policy_heard is None else time.monotonic() - self._policy_heard
        if not trouble and source == "policy" and silent > runtime.ALIVE:
            trouble = f"policy_node has not been heard for {silent:.0f} s; see its log, start it again"
        if trouble:
            return Verdict(False, trouble, "not_ready", self.arbiter.plan)
        self._watch.look()
        self._take_locks(now)
        return self.arbiter.engage(source, now)

    def _on_service(
        self, name: str, act: Callable[[float], Verdict], _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        now = self._time()
        self._take_joints(now)
        verdict = act(now)
        self._send(now)
        response.success, response.message = verdict.accepted, verdict.reason or self.arbiter.mode.value
        if not verdict.accepted:
            self._note_refusal(f"{name}: {verdict.reason}")
            self._diagnostics.publish()
        return response

    def _check(self, values: dict[str, Any]) -> None:
        """Let the arbiter judge a new speed; the other parameters are read-only."""
        if not self._ready or values["speed"] == self.arbiter.safety.speed:
            return
        verdict = self.arbiter.set_speed(values["speed"], self._time())
        if not verdict.accepted:
            raise ConfigError(verdict.reason)

    # -- out ---------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Look at the arm and the clock, send what is new, publish what is commanded."""
        begin = time.perf_counter()
        if self._last_tick is not None:
            self._costs["tick_gap"].add((begin - self._last_tick) * 1e3)
        self._last_tick = begin
        now = self._time()
        self._rates["tick"].note(now)
        self._take_joints(now)
        self._ticks += 1
        if self._ticks % LOOK == 0:
            self._lock.look()
            self._watch.look()
        self._take_locks(now)
        self._take_offers()
        self._send(now)
        plan = self.arbiter.plan
        if plan is not None:
            self._publish_command(plan, now)
            if not self.arbiter.options.dry_run:
                self._arm.follow(plan, now)
                if self._gripper is not None:
                    self._gripper.follow(plan, now)
        self._costs["tick"].add((time.perf_counter() - begin) * 1e3)

    def _send(self, now: float, late: bool = False) -> None:
        """Send the plan if it is new, and tell what happened."""
        events = self.arbiter.tick(now)
        points = self.arbiter.take(now, late)
        if points is not None:
            self._send_points(points, late)
        elif self.arbiter.withheld is not None:
            self._shown.publish(arm_message(self.robot, self.arbiter.withheld))
        self._tell(events)

    def _send_points(self, points: Points, late: bool) -> None:
        self._late += late
        self._arm.send(points)
        if self._gripper is not None and points.gripper.size:
            self._gripper.send(points)
        self._sent += 1

    def _publish_command(self, plan: Plan, now: float) -> None:
        state, message = plan.state(now), self._message
        position, velocity = state.q.tolist(), state.qd.tolist()
        if self.robot.gripper is not None:
            position.append(plan.gripper_at(now))
            velocity.append(0.0)
        message.position, message.velocity = position, velocity
        message.header.stamp = runtime.to_stamp(now)
        self._command.publish(message)

    def _tell(self, events: list[Event]) -> None:
        log = self.get_logger()
        for event in events:
            if event.text.startswith(Mode.STOPPED.value):
                log.error(event.text)
            elif event.kind == "refused":
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
        said = (self.arbiter.mode.value, self.arbiter.mode_reason + self._suffix)
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
            "mode_reason": arbiter.mode_reason + self._suffix,
            "dry_run": arbiter.options.dry_run,
            "cpu_percent": self._cpu.percent(),
            "speed": arbiter.safety.speed,
            "plans_sent": self._sent,
            "plans_sent_late": self._late,
            "last_refusal": self._last_refusal,
            "joint_states_age_s": float(now - arbiter.measured.time),
        }
        values |= {f"{name}_hz": rate.hz(now) for name, rate in self._rates.items()}
        values |= dict(sorted(arbiter.counts.items()))
        values |= self._watch.report()
        for name, samples in self._costs.items():
            values |= {f"{name}_ms_{key}": value for key, value in samples.percentiles().items()}
        if arbiter.mode is Mode.STOPPED:
            return ERROR, f"stopped: {arbiter.mode_reason}", values
        if now - self._refused_at < RECENT:
            return WARN, f"refused {self._last_refusal}", values
        if arbiter.impediments:
            return WARN, next(iter(arbiter.impediments.values())), values
        if arbiter.plan is None:
            return WARN, arbiter.measured.why_not_still(now, arbiter.options) or arbiter.mode_reason, values
        if arbiter.options.dry_run:
            return WARN, f"{arbiter.mode.value}: {arbiter.mode_reason}{self._suffix}", values
        return OK, f"{arbiter.mode.value}: {arbiter.mode_reason}", values


def main() -> int:
    """Run the node."""
    return runtime.run(ArbiterNode, every=1.0 / TICK_HZ)


if __name__ == "__main__":
    sys.exit(main())
