"""Takes the arm over at random moments while the policy runs, gives it back, and watches what is commanded.

A client of the running graph, as :mod:`udvla_ros.proving.rigs.demo_client`: the operator whose touches are timed
lives in this process, the ones that are killed are processes of their own (``operator_node``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import rclpy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.evaluation.cases import Case
from udvla_ros.motion.modes import SOURCES
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.jog_stream import Command, JogStream
from udvla_ros.nodes.messages import command_from_message
from udvla_ros.proving.rigs.demo_client import FIRST_CHUNK, SEEN, DemoClient, GraphFailed
from udvla_ros.proving.takeovers import AROUND, FOLLOWS, MOSTLY, Takeover, departure, first_beyond, strain
from udvla_ros.teleop.wish import REST, Wish

TIMEOUT = SOURCES["teleop"].timeout
MOVING = 0.02  # rad/s at which the policy is under way
EPISODE = 8.0  # s for which one scene is used
KEPT = 4000  # commands remembered, at 100 Hz
EVERY = 2  # commands between an operator's messages
LOOKED_AT = 0.4  # s after the touch in which it must have been followed
RESUMES = 0.8  # s for which the policy must leave the arm alone after HOLD
HAND_BACK = 0.7  # s watched after the policy got the arm back


class Takeovers(DemoClient):
    """Takes over again and again.

    Args:
        robot, health, context: as for the demo's client.
        cases: episodes to run the policy in, in turn.
        rng: draws moments, directions and speeds.
    """

    def __init__(
        self,
        robot: RobotDescription,
        cases: list[Case],
        rng: np.random.Generator,
        health: Callable[[], str],
        context: rclpy.Context,
    ) -> None:
        super().__init__(robot, [], health, context)
        self.robot, self.rng, self._cases = robot, rng, cycle(cases)
        self._samples: deque[tuple[float, np.ndarray, np.ndarray]] = deque(maxlen=KEPT)
        self._plans: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque(maxlen=50)
        self.modes: list[tuple[float, str]] = []
        self._last_teleop = -np.inf
        self._began = -np.inf
        self._wish: Wish | None = None
        self._turn = 0
        self._touched: tuple[float, np.ndarray] | None = None
        subscribe = self.node.create_subscription
        subscribe(JointState, "arbiter/command", self._on_sample, runtime.STATE_QOS)
        subscribe(JointTrajectory, robot.topics["command"], self._on_plan, runtime.COMMAND_QOS)
        subscribe(JointTrajectory, "teleop/joint_trajectory", self._on_teleop, runtime.COMMAND_QOS)
        subscribe(String, "arbiter/mode", self._on_mode_change, runtime.LATCHED_QOS)
        self._stream = JogStream(self.node, robot, self._on_command)

    # -- in ------------------------------------------------------------------------------------------------
    def _on_sample(self, message: JointState) -> None:
        at = {name: k for k, name in enumerate(message.name)}
        order = [at[name] for name in self.robot.joints]
        q, qd = np.asarray(message.position)[order], np.asarray(message.velocity)[order]
        self._samples.append((runtime.to_seconds(message.header.stamp), q, qd))

    def _on_plan(self, message: JointTrajectory) -> None:
        plan = command_from_message(message)
        if plan.velocities is not None and plan.accelerations is not None and len(plan.times) > 1:
            order = [plan.names.index(name) for name in self.robot.joints]
            self._plans.append((plan.stamp + plan.times, plan.velocities[:, order], plan.accelerations[:, order]))

    def _on_teleop(self, message: JointTrajectory) -> None:
        self._last_teleop = self.now()

    def _on_mode_change(self, message: String) -> None:
        self.modes.append((self.now(), message.data))

    def _on_command(self, command: Command) -> None:
        """Be the operator: send what is wished, from the state just commanded."""
        if self._wish is None:
            return
        if self._turn % EVERY == 0:
            motion = self._stream.send(self._wish)
            if motion is not None and self._touched is None:
                self._touched = command.stamp, motion.wanted
        self._turn += 1

    # -- the policy ------------------------------------------------------------------------------------------
    def _speed(self) -> float:
        return float(np.abs(self._samples[-1][2]).max()) if self._samples else 0.0

    def let_run(self) -> None:
        """Have the policy move the arm, in a fresh scene where the last one is used up, up to a random moment."""
        while True:
            if self._over() or self.now() - self._began > EPISODE or self._mode == "STOPPED":
                self._prepare(next(self._cases))
                self._began = self.now()
            if self._mode != "POLICY":
                self.engage()
            if self.wait(lambda: self._speed() > MOVING, FIRST_CHUNK) is None:
                self._began = -np.inf  # it has nothing to do here
                continue
            self.wait(lambda: False, float(self.rng.uniform(0.0, 1.2)))
            if not self._over() and self._mode == "POLICY":
                return

    def engage(self) -> None:
        """Give the arm to the policy."""
        answer = self._services.trigger("arbiter_node/engage_policy")
        if not answer.success:
            raise GraphFailed(f"the arbiter did not engage the policy: {answer.message}")
        self._need(lambda: self._mode == "POLICY", "mode POLICY")

    # -- one takeover ------------------------------------------------------------------------------------------
    def take_over(self) -> Takeover:
        """Touch, jog, let go, see that the arm stays let go, give it back."""
        found = Takeover()
        self.let_run()
        modes, wish = len(self.modes), self._draw()
        self._stream.begin()
        self._touched, self._turn, self._wish = None, 0, wish
        self._need(lambda: self._touched, "a command to jog from")
        assert self._touched is not None
        touch, asked = self._touched
        self.wait(lambda: False, float(self.rng.uniform(LOOKED_AT, 0.9)))
        direct = self.rng.random() < 1 / 3
        self._wish = REST
        self.wait(lambda: False, 0.05)
        self._wish, let_go = None, self.now()
        self._judge_touch(found, touch, asked)
        if not direct:
            self._judge_release(found, modes)
        asked_back = self.now()
        self.engage()
        self.wait(lambda: False, HAND_BACK)
        heard = [mode for _, mode in self.modes[modes:]]
        expected = ["TELEOP", "POLICY"] if direct else ["TELEOP", "HOLD", "POLICY"]
        if heard[: len(expected)] != expected:
            found.faults.append(f"modes were {', '.join(heard) or 'none'} instead of {', '.join(expected)}")
        for name, moment in (("touch", touch), ("release", let_go), ("hand-back", asked_back)):
            found.strain[name] = self._strain(moment)
        return found

    def _draw(self) -> Wish:
        """Return a jog towards the inside of the workspace that differs from what the arm does."""
        command = self._stream.command
        assert command is not None
        box = self.robot.workspace.box
        inwards = box.mean(axis=0) - self.robot.kinematics.forward(command.q)[:3, 3]
        while True:
            twist = np.zeros(6)
            direction = inwards / np.linalg.norm(inwards) + self.rng.normal(size=3)
            twist[:3] = self.rng.uniform(0.1, 0.25) * direction / np.linalg.norm(direction)
            if self.rng.random() < 0.3:
                twist[3:] = self.rng.uniform(-0.6, 0.6, 3)
            motion = self._stream.jogger.motion(command.q, command.qd, Wish(twist=twist), command.qdd)
            if not motion.note and np.linalg.norm(motion.wanted - command.qd) > 0.2:
                return Wish(twist=twist)

    def _window(self, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        chosen = [(t, qd) for t, _, qd in self._samples if begin <= t <= end]
        return np.array([t for t, _ in chosen]), np.array([qd for _, qd in chosen]).reshape(len(chosen), -1)

    def _judge_touch(self, found: Takeover, touch: float, asked: np.ndarray) -> None:
        times, qd = self._window(touch - 0.05, touch + LOOKED_AT)
        before = [plan for plan in self._plans if plan[0][0] < touch]
        still = np.zeros((2, len(asked)))
        rest = (np.array([touch - 1.0, touch]), still, still)
        share = departure(times, qd, before[-1] if before else rest, asked)
        found.follow_ms = first_beyond(times, share, touch, FOLLOWS)
        found.mostly_ms = first_beyond(times, share, touch, MOSTLY)
        found.trace = ((1e3 * (times - touch)).round(2).tolist(), share.round(4).tolist())

    def _judge_release(self, found: Takeover, modes: int) -> None:
        """See that silence leads to HOLD in time, and that HOLD stays."""
        held = self.wait(lambda: "HOLD" in [mode for _, mode in self.modes[modes:]], TIMEOUT + 2.0)
        if not held:
            found.faults.append(f"mode is {self._mode} {TIMEOUT + 2.0:g} s after the hands let go")
            return
        found.silence_s = next(t for t, mode in self.modes[modes:] if mode == "HOLD") - self._last_teleop
        before = len(self.modes)
        self.wait(lambda: len(self.modes) > before, RESUMES)
        if len(self.modes) > before:
            found.faults.append(f"after HOLD the mode became {self.modes[before][1]} by itself")

    def _strain(self, moment: float) -> dict[str, float]:
        times, qd = self._window(moment - AROUND[0], moment + AROUND[1])
        return strain(times, qd, self.robot.limits)

    # -- one death ---------------------------------------------------------------------------------------------
    def watch_a_death(self, start: Callable[[], None], kill: Callable[[], None]) -> Takeover:
        """Let another process take over, and kill it.

        Args:
            start: starts it and returns when it is ready; it takes over once the policy has the arm.
            kill: ends it at once.
        """
        found = Takeover(died=True)
        self._stream.close()
        self._prepare(next(self._cases))
        start()
        modes, since = len(self.modes), self.now()
        self.engage()
        self._need(lambda: "TELEOP" in [mode for _, mode in self.modes[modes:]], "the operator to take over", 30.0)
        self._need(lambda: self._last_teleop > since, "a message of the operator")
        self.wait(lambda: False, float(self.rng.uniform(0.2, 0.8)))
        kill()
        killed = self.now()
        self._judge_release(found, modes)
        self.wait(lambda: False, AROUND[1])
        found.strain["death"] = self._strain(killed)
        if self._speed() > 0.0:
            found.faults.append("the arm still moves after HOLD")
        self._stream = JogStream(self.node, self.robot, self._on_command)
        self._need(lambda: self._stream.command, "a command")
        self.wait(lambda: False, SEEN)
        return found


@contextmanager
def joined(
    robot: RobotDescription, cases: list[Case], seed: int, health: Callable[[], str]
) -> Iterator[Takeovers]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    rclpy.init(context=context)
    client = Takeovers(robot, cases, np.random.default_rng(seed), health, context)
    try:
        yield client
    finally:
        client.close()
        rclpy.try_shutdown(context=context)
