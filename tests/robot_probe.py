"""A probe that knows the arm's topics: sends chunks, follows commands, reads diagnostics."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from harness import Probe
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.messages import message_from_arrays

ROBOT = RobotDescription.load("ur5e_sim")
DT = 0.1


class RobotProbe:
    """What tests do with the running graph."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.commands = probe.hear(JointState, "arbiter/command")
        self.states = probe.hear(JointState, "joint_states")
        self.diagnostics = probe.hear(DiagnosticArray, "/diagnostics", 50)
        self.modes = probe.hear(String, "arbiter/mode", runtime.LATCHED_QOS)
        self.episodes = probe.hear(String, "sim_node/episode", runtime.LATCHED_QOS)
        self.chunks = probe.publisher(JointTrajectory, "policy/joint_trajectory")

    @staticmethod
    @cache
    def of(probe: Probe) -> RobotProbe:
        """Return the one probe of this graph."""
        return RobotProbe(probe)

    @property
    def mode(self) -> str:
        return self.modes[-1].data if self.modes else ""

    @property
    def episode(self) -> dict:
        return json.loads(self.episodes[-1].data)

    def fresh_episode(self) -> None:
        """Stop, put the arm and the cubes back, and leave the arm in HOLD."""
        call = self.probe.call
        call("arbiter_node/stop")
        assert call("sim_node/reset_episode").success
        self.probe.until(lambda: call("arbiter_node/reset").success, "the arm to be reset", 15.0)
        self.probe.until(lambda: self.mode == "HOLD", "HOLD")
        self.commanded()

    def engage(self) -> None:
        """Give the arm to the policy."""
        answer = self.probe.call("arbiter_node/engage_policy")
        assert answer.success, answer.message
        self.probe.until(lambda: self.mode == "POLICY", "POLICY")

    def commanded(self) -> np.ndarray:
        """Return what is commanded now, the gripper last."""
        return np.array(self._fresh(self.commands, "a command").position)

    def _fresh(self, messages: list, what: str) -> Any:
        """Return a message stamped after this call: those on their way before it tell of the past."""
        asked = self.probe.now()
        return self.probe.until(
            lambda: messages and runtime.to_seconds(messages[-1].header.stamp) > asked and messages[-1], what
        )

    def chunk(self, offset: np.ndarray, start: np.ndarray, steps: int = 10, **changes) -> JointTrajectory:
        """Return a chunk from ``start`` [7] to ``start + offset`` over ``steps``, stamped now."""
        share = 0.5 * (1.0 - np.cos(np.pi * np.arange(1, steps + 1) / steps))
        positions = start + share[:, None] * offset
        fields = {"names": ROBOT.command_names, "stamp": self.probe.now(), "positions": positions} | changes
        return message_from_arrays(
            fields["names"], DT * np.arange(1, steps + 1), fields["positions"], stamp=fields["stamp"]
        )

    def values(self, node: str) -> dict[str, str]:
        """Return the newest diagnostic values of a node, with its message as ``message``."""
        for array in reversed(self.diagnostics):
            for status in array.status:
                if status.name == node:
                    return {v.key: v.value for v in status.values} | {"message": status.message}
        return {}

    def fresh_values(self, node: str) -> dict[str, str]:
        """Return diagnostic values published after this call."""
        self.diagnostics.clear()
        return self.probe.until(lambda: self.values(node), f"diagnostics of {node}", 5.0)

    def violations(self) -> int:
        """Return how many samples at the controller broke a limit since the start."""
        return int(self.fresh_values("sim_node")["limit_violations"])

    def measured(self) -> np.ndarray:
        """Return the newest measured arm joints [6]."""
        message = self._fresh(self.states, "a joint state")
        at = dict(zip(message.name, message.position, strict=True))
        return np.array([at[joint] for joint in ROBOT.joints])

    def resting(self) -> bool:
        """Return whether the last 30 commands are one and the same."""
        last = [np.array(m.position) for m in self.commands[-30:]]
        return len(last) == 30 and all(np.array_equal(q, last[0]) for q in last)
