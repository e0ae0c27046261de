"""Record demonstration after demonstration beside a running graph: the operator drives, this counts and records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from sensor_msgs.msg import JointState

from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.operate import NotThere, Operator
from udvla_ros.rollouts.collecting import Collection

KEYS = "ENTER start, then ENTER success or f failure or d discard; u undo the last, ? what is covered, q quit"
OUTCOMES = {"": "success", "f": "failure"}
STATE = 5.0  # s in which joint states come


class Collector:
    """The operator's clerk.

    Args:
        operator: joined to the graph.
        robot: whose TCP tells where an episode started.
        collection: what is to be collected.
        tell: takes each line for the person.
        prepare: called before each episode: sets a simulated scene, or tells the person to.
    """

    def __init__(
        self, operator: Operator, robot: RobotDescription, collection: Collection, tell: Callable[[str], object],
        prepare: Callable[[int], object] | None = None,
    ) -> None:  # fmt: skip
        self.operator, self.robot, self.collection, self.tell = operator, robot, collection, tell
        self._prepare = prepare or (lambda number: tell("put the arm and the scene back"))
        self._joints: dict[str, float] = {}
        topic = robot.topics.get("joint_states", "joint_states")
        operator.node.create_subscription(JointState, topic, self._on_joints, runtime.ANY_QOS)

    def _on_joints(self, message: JointState) -> None:
        self._joints |= dict(zip(message.name, message.position, strict=False))

    def start(self) -> np.ndarray:
        """Return where the TCP is now [3], m.

        Raises:
            NotThere: no joint states come.
        """
        self._joints.clear()
        if not self.operator.wait(lambda: all(joint in self._joints for joint in self.robot.joints), STATE):
            names = ", ".join(self.robot.joints)
            raise NotThere(f"no joint states of {names} within {STATE:g} s; is the driver running?")
        joints = np.array([self._joints[joint] for joint in self.robot.joints])
        return self.robot.kinematics.forward(joints)[:3, 3].copy()

    def run(self, keys: Iterable[str]) -> int:
        """Collect until there are enough or the keys end; returns the successes."""
        self.tell(KEYS)
        lines = iter(keys)
        number = 0
        while not self.collection.done:
            self._prepare(number)
            sentence = self.collection.sentence()
            self.operator.say(sentence)
            self.tell(f"next: '{sentence}' (ENTER when you are ready)")
            key = self._key(lines)
            if key is None:
                break
            number += 1
            self._one(sentence, lines)
        self.tell(self.collection.covered())
        return self.collection.good

    def _key(self, lines: Iterable[str]) -> str | None:
        """Return once the person is ready; None to end."""
        for line in lines:
            key = line.strip().lower()
            if key == "":
                return key
            if key == "q":
                return None
            try:
                self.tell({"u": self.collection.undo, "?": self.collection.covered}.get(key, lambda: KEYS)())
            except UdvlaError as error:
                self.tell(str(error))
        return None

    def _one(self, sentence: str, lines: Iterable[str]) -> None:
        start = self.start()
        folder = Path(self.operator.trigger("recorder_node/start"))
        self.tell("recording: drive (udvla teleop in another terminal); ENTER success, f failure, d discard")
        for line in lines:
            key = line.strip().lower()
            if key == "d":
                self.operator.trigger("recorder_node/discard")
                self.tell("discarded")
                return
            if key in OUTCOMES:
                self.operator.trigger(f"recorder_node/stop_{OUTCOMES[key]}")
                self.operator.trigger("arbiter_node/hold")
                self.tell(self.collection.add(folder, sentence, OUTCOMES[key], start))
                return
            self.tell("ENTER success, f failure, d discard")
        self.operator.trigger("recorder_node/discard")  # the terminal is gone: nobody has judged it
