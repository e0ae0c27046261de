"""What a recording says about itself besides its messages: texts, kept in ``metadata.yaml`` and in the MCAP file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from udvla_ros.policy.words import means_hold
from udvla_ros.rollouts.bags.states import FAILURE, SUCCESS, UNKNOWN

# Relative names of the topics that tell it.
INSTRUCTION, CHUNK_INFO, MODE, SIM_EPISODE, HAND_OVER = (
    "instruction", "policy_node/chunk_info", "arbiter/mode", "sim_node/episode", "policy/hand_over",
)  # fmt: skip
TOLD = (INSTRUCTION, CHUNK_INFO, MODE, SIM_EPISODE, HAND_OVER)
_SIM_OUTCOMES = {"succeeded": SUCCESS, "failed": FAILURE}


@dataclass
class Labels:
    """Of one recording. Times are ROS time in s; ``fixed`` is what the recorder itself knows (robot file, version)."""

    fixed: Mapping[str, str]
    started: float
    kind: str = "episode"
    instruction: str = ""
    bundle: str = ""
    bundle_hash: str = ""
    decoder: dict[str, Any] = field(default_factory=dict)
    outcome: str = ""
    labelled_by: str = ""
    error: str = ""
    handed_over: str = ""
    _sim: str = ""

    def hear(self, topic: str, text: str) -> None:
        """Take in what one of the :data:`TOLD` topics said."""
        if topic == INSTRUCTION and not means_hold(text):
            self.instruction = text
        elif topic == CHUNK_INFO:  # what the policy acts on, also where a parameter or a launch file said it
            said = _mapping(text)
            self.instruction = str(said.get("instruction") or self.instruction)
            if not self.bundle_hash:
                self.bundle, self.bundle_hash = str(said.get("bundle", "")), str(said.get("bundle_hash", ""))
        elif topic == HAND_OVER:
            self.handed_over = text
        elif topic == SIM_EPISODE and not self._sim:
            self._sim = _SIM_OUTCOMES.get(str(_mapping(text).get("state")), "")

    def judge(self, outcome: str) -> None:
        """Settle the outcome: the operator's word, else the simulation's, else unknown."""
        if outcome:
            self.outcome, self.labelled_by = outcome, "operator"
        elif self._sim:
            self.outcome, self.labelled_by = self._sim, "simulation"
        else:
            self.outcome = UNKNOWN

    def texts(self) -> dict[str, str]:
        """Return them as texts; what is not known is left out."""
        found = {
            **self.fixed,
            "kind": self.kind,
            "started": f"{self.started:.9f}",
            "instruction": self.instruction,
            "bundle": self.bundle,
            "bundle_hash": self.bundle_hash,
            "decoder": json.dumps(self.decoder) if self.decoder else "",
            "outcome": self.outcome,
            "labelled_by": self.labelled_by,
            "error": self.error,
            "handed_over": self.handed_over,
        }
        return {key: value for key, value in found.items() if value}

    def closing(
        self, ended: float, dropped: Mapping[str, int], lost: Mapping[str, int]
    ) -> dict[str, str]:
        """Return them at the end.

        Args:
            ended: s.
            dropped: messages by topic that reached the recorder and not the disk.
            lost: messages by topic that never reached the recorder, by the publishers' own count.
        """
        return {
            **self.texts(), "ended": f"{ended:.9f}", "dropped": json.dumps(dict(dropped)),
            "lost": json.dumps(dict(lost)),
        }  # fmt: skip


def _mapping(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
