"""Say afterwards how an episode went and what was asked for: beside the recording, which stays as it is."""

from __future__ import annotations

from pathlib import Path

from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.repair import write_metadata
from udvla_ros.rollouts.bags.topic import BagError

BY = "operator, afterwards"


def relabel(folder: Path, outcome: str = "", instruction: str = "") -> dict[str, str]:
    """Write new labels into an episode's ``metadata.yaml`` and return those that changed, as they were.

    Raises:
        BagError: there is nothing to change, or the bag must be repaired first.
    """
    new = {key: value.strip() for key, value in (("outcome", outcome), ("instruction", instruction)) if value.strip()}
    if not new:
        raise BagError("nothing to label: give --outcome or --instruction")
    if "\n" in new.get("instruction", ""):
        raise BagError("the sentence has more than one line")
    with Bag(folder) as bag:
        before = {key: bag.labels.get(key, "") for key in new}
        labels = {**bag.labels, **new, "labelled_by": BY}
    write_metadata(folder, labels)
    return {key: value for key, value in before.items() if value != new[key]}
