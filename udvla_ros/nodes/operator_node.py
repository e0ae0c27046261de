"""``operator_node``: a scripted operator on the topics of a real one.

Each time somebody else gives the arm to the policy, the script begins. It touches the arm like ``teleop_node``
does, and gives it back by the same service; like there, a touch that is taken away is over.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.jog_stream import Command, JogStream
from udvla_ros.nodes.parameters import Entry, Parameters
from udvla_ros.teleop.script import Script, Step
from udvla_ros.teleop.touch import Phase, Touch
from udvla_ros.teleop.wish import REST

EVERY = 2  # commands between two messages: 50 Hz

TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("script", "builtin", "file of the steps, or builtin", read_only=True),
)


class OperatorNode(Node):
    """One operator who keeps to a script."""

    def __init__(self) -> None:
        super().__init__("operator_node")
        self.parameters = Parameters(self, TABLE)
        self.robot = RobotDescription.load(self.parameters["robot"])
        self.script = Script.load(self.parameters["script"])
        self._touch = Touch()
        self._began: float | None = None
        self._last_mode = ""
        self._own = False  # the next engagement of the policy is this operator's doing
        self._asked: Step | None = None
        self._turn = 0
        self._engage = self.create_client(Trigger, "arbiter_node/engage_policy")
        self.stream = JogStream(self, self.robot, self._on_command)
        runtime.announce_ready(self, f"script of {self.script.seconds:.1f} s")

    def _on_command(self, command: Command) -> None:
        now, mode = time.monotonic(), self.stream.mode
        self._follow(mode, now)
        step = self.script.at(now - self._began) if self._began is not None else None
        if step is not None and step.hand_back and step is not self._asked:
            self._asked = step
            self._hand_back()
        wish = step.wish if step is not None else None
        before = self._touch.phase
        phase = self._touch.update(wish is not None, mode, now)
        if phase is Phase.DRIVES and before is not Phase.DRIVES:
            self.get_logger().info(f"takes over, {now - (self._began or now):.2f} s after the policy got the arm")
            self._turn = 0
            self.stream.begin()
        if phase is Phase.DRIVES and wish is not None and self._turn % EVERY == 0:
            self.stream.send(wish)
        elif phase is Phase.RELEASED:
            self.stream.send(REST)
        self._turn += 1

    def _follow(self, mode: str, now: float) -> None:
        """Begin the script where the policy gets the arm, and end it where the arm was taken away."""
        if mode == self._last_mode:
            return
        before, self._last_mode = self._last_mode, mode
        if mode == "POLICY":
            if not self._own:
                self._began, self._asked = now, None
            self._own = False
        elif mode == "STOPPED" or (mode == "HOLD" and before == "POLICY"):
            self._began = None

    def _hand_back(self) -> None:
        if not self._engage.service_is_ready():
            self.get_logger().warning("arbiter_node/engage_policy is not there; nothing is handed back")
            return
        self._own = True
        self._touch.spend("handed back")
        self._engage.call_async(Trigger.Request()).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        answer = future.result()
        if answer.success:
            self.get_logger().info("gave the arm back to the policy")
        else:
            self._own = False
            self.get_logger().warning(f"could not give the arm back: {answer.message}")


def main() -> int:
    """Run the node."""
    return runtime.run(OperatorNode)


if __name__ == "__main__":
    sys.exit(main())
