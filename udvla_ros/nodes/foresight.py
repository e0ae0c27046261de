"""The foresight monitor's place in ``policy_node``: scores of each chunk, and at an alarm a word to the arbiter.

Everything here happens in the inference thread, after the chunk has left. It asks to be held, never to go on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import String

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.monitor.calibration import PATIENCE, Calibration
from udvla_ros.monitor.scores import Look, Scorer, scorer_for
from udvla_ros.monitor.watch import Judgement, Watch
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.inference import Result
from udvla_ros.nodes.parameters import Entry

MODES = ("none", "warn", "hold")
TABLE = (
    Entry(
        "monitor", "warn", "when what comes is not what was foreseen: nothing, a warning, or a word to the arbiter, "
        "which holds", choices=MODES,
    ),
    Entry("monitor_threshold", 0.0, "level that counts as an alarm; 0: as calibrated with the bundle", 0.0, 100.0),
    Entry("monitor_patience", 0, "chunks in a row above it; 0: as calibrated with the bundle", 0, PATIENCE),
)  # fmt: skip


class Foresight:
    """Scores, judges and tells.

    Args:
        node: that publishes ``~/scores`` (JSON) and ``policy/hand_over`` (the reason).
        values: returns the parameters of :data:`TABLE` as they are.
        told: takes one line at each alarm.
    """

    def __init__(self, node: Node, values: Callable[[], dict[str, Any]], told: Callable[[str], None]) -> None:
        self._node, self._values, self._told = node, values, told
        self._scores = node.create_publisher(String, "~/scores", runtime.STATE_QOS)
        self._hand_over = node.create_publisher(String, "policy/hand_over", runtime.COMMAND_QOS)
        self._begin = threading.Event()
        self._scorer: Scorer | None = None
        self._calibration: Calibration | None = None
        self._missing = "no bundle is loaded"
        self._watch: Watch | None = None
        self._instruction = ""
        self.last: Judgement | None = None
        self.alarms = 0

    def open(self, policy: Any, robot: RobotDescription, folder: Path | None) -> str:
        """Take a bundle; return why its monitor has no threshold, or nothing.

        Raises:
            ConfigError: ``hold`` is asked for and there is no threshold.
        """
        self._scorer, self._positions = scorer_for(policy), robot.kinematics.positions
        self._unknown = policy.unknown_words
        self._calibration, self._watch, self._missing = None, None, ""
        try:
            if folder is None:
                raise ConfigError("this policy has no bundle here, so the monitor has no threshold")
            self._calibration = Calibration.load(folder, policy.hash)
        except ConfigError as error:
            self._missing = str(error)
        self.check(self._values())
        self.reset()
        return self._missing

    def check(self, values: dict[str, Any]) -> None:
        """Raise ConfigError where these parameters ask for what cannot be had."""
        if self._scorer is not None and self._calibration is None and values["monitor"] == "hold":
            raise ConfigError(f"monitor: hold is not possible: {self._missing}")

    def reset(self) -> None:
        """Begin a new attempt with the next chunk; from any thread."""
        self._begin.set()

    def update(self, result: Result) -> None:
        """Score a chunk, publish, and hand over at an alarm."""
        values = self._values()
        if values["monitor"] == "none" or self._scorer is None or result.commanded is None:
            self.last = None
            return
        if self._begin.is_set() or result.instruction != self._instruction:
            self._begin.clear()
            self._instruction = result.instruction
            self._unseen = self._count_unknown(result.instruction)
            self._scorer.reset()
            self._watch = None
        look = Look.of(
            result.chunk, np.vstack([result.commanded, result.targets.q]), result.targets.gripper, self._positions,
            stamp=result.stamp, unknown=self._unseen, delay=result.timings_ms["frame_to_trajectory"] / 1e3,
            age=result.timings_ms["frame_wait"] / 1e3,
        )  # fmt: skip
        scores = self._scorer.update(look)
        self.last = judgement = self._judge(scores, values)
        told: dict[str, Any] = {"stamp": result.stamp, "scores": {n: round(v, 5) for n, v in scores.items()}}
        if judgement is not None:
            told |= {
                "level": round(judgement.level, 4), "alarm": judgement.alarm, "reason": judgement.reason,
                "threshold": round(judgement.threshold, 4),
                "surprises": {n: round(v, 4) for n, v in judgement.surprises.items()},
            }  # fmt: skip
        self._scores.publish(String(data=json.dumps(told)))
        if judgement is None or not judgement.alarm:
            return
        self.alarms += 1
        self._told(f"monitor: {judgement.reason}")
        if values["monitor"] == "hold":
            self.hand_over(f"monitor: {judgement.reason}")

    def hand_over(self, reason: str) -> None:
        """Ask the arbiter to hold."""
        self._hand_over.publish(String(data=reason))

    def _judge(self, scores: dict[str, float], values: dict[str, Any]) -> Judgement | None:
        if self._calibration is None:
            return None
        patience = values["monitor_patience"] or self._calibration.patience
        threshold = values["monitor_threshold"] or self._calibration.threshold(patience)
        watch = self._watch
        if watch is None or (watch.patience, watch.threshold) != (patience, threshold):
            watch = self._watch = Watch(self._calibration, patience, threshold)
        return watch.update(scores)

    def _count_unknown(self, sentence: str) -> int:
        try:
            return len(self._unknown(sentence))
        except UdvlaError:
            return 0

    def report(self) -> dict[str, object]:
        """Return what the diagnostics say of it."""
        values: dict[str, object] = {"monitor/alarms": self.alarms}
        if self._missing:
            values["monitor/missing"] = self._missing
        if self.last is not None:
            values |= {"monitor/level": self.last.level, "monitor/threshold": self.last.threshold}
            values["monitor/reason"] = self.last.reason
        return values
