"""Is the controller the active, unscaled receiver of nobody's plans but ours? What can be known of it, and what cannot.

A controller keeps its subscription while it is inactive and drops every message; its lifecycle has no state to ask for,
so its transitions are listened to. What the robot file names under ``driver`` tells more: whether the robot's program
runs, and how fast it plays what it is told.
"""

from __future__ import annotations

from lifecycle_msgs.msg import TransitionEvent
from rclpy.node import Node
from std_msgs.msg import Float64

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.backends import Backend
from udvla_ros.nodes.locks import LockTopic
from udvla_ros.nodes.polled import Polled

UNSCALED = 99.0  # percent of its speed from which on a robot plays in time
SILENT = 1.0  # s without a word about the scaling after which it is not known


class ControllerWatch:
    """Watches the controllers of one arm; :meth:`poll` at every tick, :meth:`look` now and then.

    Args:
        arm, hand: where plans go; a bare arm has no hand.
    """

    def __init__(self, node: Node, robot: RobotDescription, arm: Backend, hand: Backend | None) -> None:
        self._node, self._arm, self._hand = node, arm, hand
        topics = [robot.topics["command"], *([robot.gripper.command_topic] if robot.gripper else [])]
        self._controllers = [topic.rpartition("/")[0] for topic in topics if "/" in topic]
        self._transitions = [
            Polled(node, TransitionEvent, f"{name}/transition_event", runtime.STATE_QOS) for name in self._controllers
        ]
        self._topic = node.resolve_topic_name(robot.topics["command"])
        self._writers = 0 if robot.controller.get("interface") == "action" else 1  # that are ours
        self._program_topic, self._scaling_topic = (robot.driver.get(k) for k in ("program_running", "speed_scaling"))
        self._program = LockTopic(node, self._program_topic) if self._program_topic else None
        self._scaling = LockTopic(node, self._scaling_topic, Float64) if self._scaling_topic else None
        self.states = dict.fromkeys(self._controllers, "unknown")
        self.running: bool | None = None
        self.percent, self._percent_heard = float("nan"), -float("inf")
        self._unheard = self._others = ""

    def poll(self, now: float) -> dict[str, str]:
        """Return why the controllers cannot be relied on, by the names of ``IMPEDIMENTS``; empty reasons are good."""
        for name, polled in zip(self._controllers, self._transitions, strict=True):
            for event, _ in polled.messages():
                self.states[name] = event.goal_state.label or "unknown"
        inactive = [f"{name} is {state}" for name, state in self.states.items() if state not in ("active", "unknown")]
        found = {"controller": f"{inactive[0]}; activate it, then reset" if inactive else self._unheard}
        found["writers"] = self._others
        if self._program is not None:
            for running in self._program.take():
                self.running = running
            found["program"] = "" if self.running else self._said("the robot's program does not run", self.running)
        if self._scaling is not None:
            for percent in self._scaling.take():
                self.percent, self._percent_heard = percent, now
            if not 0.0 <= now - self._percent_heard <= SILENT:
                found["scaling"] = f"nothing heard on {self._scaling_topic}: how fast the robot plays is not known"
            else:
                slow = f"the robot plays at {self.percent:.0f} % of its speed; set its slider to 100 %"
                found["scaling"] = "" if self.percent >= UNSCALED else slow
        return found

    def _said(self, text: str, known: object) -> str:
        return text if known is not None else f"nothing heard on {self._program_topic}: whether it runs is not known"

    def foreign(self) -> str:
        """Return that somebody else commanded arm or hand since the last call, or nothing."""
        said = [backend.foreign() for backend in (self._arm, self._hand) if backend is not None]
        return next((text for text in said if text), "")

    def look(self) -> None:
        """Look for receivers and for other writers."""
        hand = "" if self._hand is None else self._hand.trouble()
        self._unheard = self._arm.trouble() or (f"gripper: {hand}" if hand else "")
        self._others = ""
        if self._node.count_publishers(self._topic) > self._writers:
            own = (self._node.get_name(), self._node.get_namespace())
            infos = self._node.get_publishers_info_by_topic(self._topic)
            others = {(i.node_namespace.rstrip("/") + "/" + i.node_name) for i in infos
                      if (i.node_name, i.node_namespace) != own}  # fmt: skip
            names = ", ".join(sorted(others)) or "another node of this name"
            self._others = f"{names} may write to {self._topic} too; end it"
        for topic in (self._program, self._scaling):
            if topic is not None:
                topic.look()

    def report(self) -> dict[str, object]:
        """Return what is known, for the diagnostics."""
        values: dict[str, object] = {f"controller/{name}": state for name, state in self.states.items()}
        values["program_running"] = "unknown" if self.running is None else self.running
        values["speed_scaling_percent"] = "unknown" if self.percent != self.percent else self.percent
        return values
