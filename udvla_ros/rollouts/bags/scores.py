"""What the monitor said during recorded episodes, for its calibration."""

from __future__ import annotations

import json
from pathlib import Path

from udvla_ros.monitor.episode import ScoredEpisode
from udvla_ros.rollouts.bags.reader import Bag, episodes_in
from udvla_ros.rollouts.bags.states import FAILURE, SUCCESS
from udvla_ros.rollouts.bags.topic import BagError

SCORES = "policy_node/scores"


def episodes_of(folder: Path, bundle: str) -> list[ScoredEpisode]:
    """Return the labelled episodes at or below a folder that a bundle ran; others are left out.

    Raises:
        BagError: none of them has scores of this bundle.
    """
    found = []
    for place in episodes_in(folder):
        with Bag(place) as bag:
            outcome = bag.labels.get("outcome")
            if outcome not in (SUCCESS, FAILURE) or bag.labels.get("bundle_hash") != bundle:
                continue
            said = [json.loads(message.data) for _, _, message in bag.read(SCORES)]
            if not said:
                continue
            first = said[0]["stamp"]
            found.append(
                ScoredEpisode(
                    "plain", bag.labels.get("instruction", ""), -1, outcome == SUCCESS, "", bag.end * 1e-9 - first,
                    [one["stamp"] - first for one in said], [one["scores"] for one in said],
                )
            )  # fmt: skip
    if not found:
        raise BagError(
            f"no labelled episode below '{folder}' has scores of this bundle; record with monitor: warn and label them"
        )
    return found
