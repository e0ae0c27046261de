"""``teleop_node``: an operator's keyboard, gamepad or leader arm as ``teleop/joint_trajectory``.

Touching the device takes the arm over at once; giving it back is a service call, bound to a key or a button. The
arbiter decides who moves the arm and what is safe; this node only asks, and says what came of it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.jog_stream import Command, JogStream
from udvla_ros.nodes.parameters import Entry, Parameters
from udvla_ros.resources import find
from udvla_ros.teleop.actions import ENDS_TOUCH, SERVICES
from udvla_ros.teleop.deadman import Deadman
from udvla_ros.teleop.gamepad import Gamepad, Mapping
from udvla_ros.teleop.jog import Speeds
from udvla_ros.teleop.keyboard import HELP, LEADER_HELP, Keyboard
from udvla_ros.teleop.leader import Leader
from udvla_ros.teleop.status import Status, recorder_line
from udvla_ros.teleop.terminal import Terminal
from udvla_ros.teleop.touch import Phase, Touch
from udvla_ros.teleop.wish import REST, Wish

EVERY = 2  # commands between two messages: 50 Hz of the arbiter's 100
STATUS_HZ = 10.0
SPEED_STEP = 1.25  # factor of a press on faster or slower
SLOWEST = 0.02
GRIPPER_TOUCH = 0.1  # s for which a gripper command is repeated
GRIPPER_STROKE = 1.5  # s after which the gripper is where it was sent
NEWS = 6.0  # s for which news stay in the status line
# Best effort hears both kinds of publishers; devices repeat what they say.
DEVICE_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)

TABLE = (
    Entry("robot", "config/robots/ur5e.yaml", "robot file", read_only=True),
    Entry("source", "keyboard", "device", choices=("keyboard", "joy", "leader"), read_only=True),
    Entry("speed", 0.4, "speed scale: part of the speeds below", SLOWEST, 1.0),
    Entry("linear", 0.25, "m/s of the TCP at scale 1", 0.001, 2.0, read_only=True),
    Entry("angular", 1.0, "rad/s of the TCP at scale 1", 0.001, 6.0, read_only=True),
    Entry("joint", 1.0, "rad/s of a joint at scale 1", 0.001, 6.0, read_only=True),
    Entry("key_timeout", 0.25, "s a key moves the arm after it was heard", 0.05, 1.0, read_only=True),
    Entry("mapping", "config/teleop/xbox.yaml", "which axis and button of the gamepad does what", read_only=True),
    Entry("leader", "config/teleop/leader.yaml", "joints and scale of the leader arm", read_only=True),
    Entry("deadman", "topic", "of a leader arm", choices=("topic", "joy", "keyboard"), read_only=True),
)


class TeleopNode(Node):
    """One operator at one device."""

    def __init__(self) -> None:
        super().__init__("teleop_node")
        self._terminal: Terminal | None = None
        self.parameters = Parameters(self, TABLE)
        values = self.parameters.values()
        self.robot = RobotDescription.load(values["robot"])
        self.source = values["source"]
        self._deadman_kind = values["deadman"] if self.source == "leader" else self.source
        self._frame = "base"
        self._touch = Touch()
        self._gripper: tuple[float, float] | None = None  # closed fraction asked for, when
        self._said = self._news = self._note = ""
        self._news_until = 0.0
        self._recorder = ""
        self._turn = 0
        speeds = Speeds(values["linear"], values["angular"], values["joint"])
        self._keyboard = Keyboard(len(self.robot.joints), speeds, values["key_timeout"])
        self._pad: Gamepad | None = None
        self._leader: Leader | None = None
        self._switch = Deadman()
        if "joy" in (self.source, self._deadman_kind):
            self._pad = Gamepad(Mapping.load(find(values["mapping"])), speeds)
            self.create_subscription(Joy, "joy", self._on_joy, DEVICE_QOS)
        if self.source == "leader":
            self._leader = Leader.load(find(values["leader"]), self.robot)
            self.create_subscription(JointState, "leader/joint_states", self._on_leader, DEVICE_QOS)
            self.create_subscription(Bool, "teleop/deadman", self._on_deadman, DEVICE_QOS)
        self._triggers = {name: self.create_client(Trigger, service) for name, (service, _) in SERVICES.items()}
        self.create_subscription(String, "recorder_node/status", self._on_recorder, runtime.LATCHED_QOS)
        self.stream = JogStream(self, self.robot, self._on_command)
        self._typed: list[bytes] = []
        self._wake = self.create_guard_condition(self._on_typed)
        self.create_timer(1.0 / STATUS_HZ, self._show)
        if self._deadman_kind == "keyboard":
            self._terminal = Terminal(self._on_keys, self._on_gone)
            self._terminal.say(self._help())
        else:
            runtime.announce_ready(self, f"{self.source} for {self.robot.name}")

    # -- devices -------------------------------------------------------------------------------------------
    def _on_keys(self, data: bytes) -> None:
        """Take what was typed, in the terminal's thread, over to the executor's."""
        self._typed.append(data)
        self._wake.trigger()

    def _on_typed(self) -> None:
        while self._typed:
            for action in self._keyboard.feed(self._typed.pop(0), time.monotonic()):
                self._act(action)

    def _on_gone(self) -> None:
        self.context.try_shutdown()

    def _on_joy(self, message: Joy) -> None:
        assert self._pad is not None
        for action in self._pad.feed(message.axes, message.buttons, time.monotonic()):
            self._act(action)

    def _on_leader(self, message: JointState) -> None:
        assert self._leader is not None
        self._leader.feed(message.name, message.position, time.monotonic())

    def _on_deadman(self, message: Bool) -> None:
        self._switch.feed(message.data, time.monotonic())

    def _on_recorder(self, message: String) -> None:
        self._recorder = recorder_line(message.data)

    def _held(self, now: float) -> bool:
        """Return whether the operator's hands are on the device."""
        if self._gripper is not None and now - self._gripper[1] < GRIPPER_TOUCH:
            return True
        if self._leader is None:
            return self._pad.held(now) if self._pad is not None else self._keyboard.held(now)
        held = self._deadman(now)
        if not held:
            self._leader.recover()
        elif not self._leader.ready(now):
            self._distrust()
            return False
        return held

    def _deadman(self, now: float) -> bool:
        if self._deadman_kind == "keyboard":
            return self._keyboard.deadman(now)
        return self._switch.held(now) if self._pad is None else self._pad.held(now)

    def _distrust(self) -> None:
        """Let the deadman count only after it was let go: the leader went away while it was held."""
        if self._deadman_kind == "topic":
            self._switch.distrust()
        elif self._pad is not None:
            self._pad.distrust()
        else:
            self._keyboard.distrust()

    def _wish(self, command: Command, now: float) -> Wish:
        scale = self.parameters["speed"]
        if self._leader is not None:
            wish = self._leader.wish(now, self.stream.closed())
        elif self._pad is not None:
            wish = self._pad.wish(now, scale, self._frame)
        else:
            wish = self._keyboard.wish(now, scale, self._frame)
        if self._gripper is not None and now - self._gripper[1] < GRIPPER_TOUCH:
            wish = replace(wish, gripper=self._gripper[0])
        return wish

    # -- the arm -------------------------------------------------------------------------------------------
    def _on_command(self, command: Command) -> None:
        """Send what the hands ask for, from the state that was just commanded."""
        now, before = time.monotonic(), self._touch.phase
        phase = self._touch.update(self._held(now), self.stream.mode, now)
        begins = phase is Phase.DRIVES and before is not Phase.DRIVES
        if begins:
            self.stream.begin()
        if self._leader is not None and begins:
            self._leader.engage(command.q)
        if self._leader is not None and phase is not Phase.DRIVES:
            self._leader.release()
        self._turn = 0 if begins else self._turn + 1
        if phase is Phase.DRIVES and self._turn % EVERY == 0:
            motion = self.stream.send(self._wish(command, now))
            self._note = motion.note if motion is not None else ""
        elif phase is Phase.RELEASED:
            self.stream.send(REST)
            self._note = ""

    # -- keys and buttons ------------------------------------------------------------------------------------
    def _act(self, action: str) -> None:
        if action in SERVICES:
            self._call(action)
        elif action in ("faster", "slower"):
            factor = SPEED_STEP if action == "faster" else 1.0 / SPEED_STEP
            self._set_speed(min(1.0, max(SLOWEST, self.parameters["speed"] * factor)))
        elif action == "frame":
            self._frame = "tcp" if self._frame == "base" else "base"
            self._tell(f"axes of the {self._frame}")
        elif action == "gripper":
            self._toggle_gripper()
        elif action == "help" and self._terminal is not None:
            self._terminal.say(self._help())

    def _set_speed(self, scale: float) -> None:
        self.set_parameters([Parameter("speed", value=scale)])

    def _toggle_gripper(self) -> None:
        now = time.monotonic()
        if self.robot.gripper is None:
            self._tell(f"{self.robot.name} has no gripper")
            return
        if self._touch.phase is Phase.SPENT:
            self._tell(f"the gripper stays: {self._touch.reason}")
            return
        closed = self.stream.closed() > 0.5
        if self._gripper is not None and now - self._gripper[1] < GRIPPER_STROKE:
            closed = self._gripper[0] > 0.5
        self._gripper = (0.0 if closed else 1.0, now)
        self._tell("gripper opens" if closed else "gripper closes")

    def _call(self, action: str) -> None:
        if action in ENDS_TOUCH:
            self._touch.spend(f"{action} was asked for: let go first")
        client = self._triggers[action]
        if not client.service_is_ready():
            self._tell(f"{client.srv_name.rsplit('/', 1)[0].lstrip('/')} is not running: {action} did nothing")
            return
        future = client.call_async(Trigger.Request())
        future.add_done_callback(partial(self._on_answer, action))

    def _on_answer(self, action: str, future: Any) -> None:
        answer = future.result()
        self._tell(f"{action}: {answer.message}" if answer.success else f"{action} REFUSED: {answer.message}")

    # -- for people ----------------------------------------------------------------------------------------
    def _tell(self, news: str) -> None:
        self._news, self._news_until = news, time.monotonic() + NEWS
        if self._terminal is None:
            self.get_logger().info(news)

    def _help(self) -> str:
        return HELP if self._leader is None else LEADER_HELP

    def _device(self) -> str:
        now = time.monotonic()
        if self._leader is not None:
            if self._leader.fault:
                return self._leader.fault
            if self._leader.silent(now):
                return "no leader/joint_states heard"
            return "leader follows" if self._leader.engaged else "leader ready, hold the deadman"
        if self._pad is not None:
            if self._pad.fault or self._pad.silent(now):
                return self._pad.fault or "no joy heard; is the pad plugged in and joy_node running?"
            return f"pad, {self._frame} axes"
        return self._keyboard.describe(self._frame)

    def _show(self) -> None:
        now = time.monotonic()
        news = self._news if now < self._news_until else ""
        status = Status(
            self.stream.mode, self.stream.reason, self._device(), self.parameters["speed"], self._recorder,
            self.stream.why_not() or self._touch.reason or self._note or news,
        )  # fmt: skip
        if self._terminal is not None:
            self._terminal.status(status.line())
            return
        said = replace(status, speed=0.0, news=status.news if status.news != news else "").line()
        if said != self._said:
            self._said = said
            self.get_logger().info(status.line())

    def close(self) -> None:
        """Give the terminal back."""
        if self._terminal is not None:
            self._terminal.close()


def main() -> int:
    """Run the node."""
    return runtime.run(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
