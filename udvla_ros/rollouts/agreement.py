"""Do the labels of a data set agree with what was carried out, and do they get anywhere?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from udvla_ros.rollouts.episodes import Episode

STAYS = 0.02  # m: a chunk that moves the hand less, and the gripper not at all, says 'stay'


def agreement(episodes: Iterable[Episode], metres: float = 1.0) -> dict[str, Any]:
    """Return what the labels say against where the hand came by the future that stands beside them.

    ``metres`` is the way of a 1 in an action.

    ``apart_mm_p50`` and ``apart_mm_p90``: distance, in mm, of the commanded TCP at the future frame from where the
    label leads; ``travel_mm``: mean length of a label's way; ``stay``: per task, the share of labels that stay.
    """
    apart, travel, stay = [], [], defaultdict(list)
    for episode in episodes:
        place = episode.tcp_command[:, :3, 3]
        for step in range(episode.labelled):
            label = episode.intention[step] * np.array([metres] * 3 + [1.0] * 4)
            came = place[episode.future(step, len(label))] - place[step]
            apart.append(float(np.linalg.norm(label[:, :3].sum(0) - came)))
            travel.append(float(np.linalg.norm(label[:, :3], axis=1).sum()))
            kept = bool(np.all((label[:, 6] > 0) == (episode.gripper_command[step] > 0.5)))
            stay[episode.task].append(travel[-1] < STAYS and kept)
    return {
        "labels": len(apart),
        "apart_mm_p50": round(1e3 * float(np.quantile(apart, 0.5)), 2),
        "apart_mm_p90": round(1e3 * float(np.quantile(apart, 0.9)), 2),
        "travel_mm": round(1e3 * float(np.mean(travel)), 1),
        "stay": {task: round(float(np.mean(values)), 3) for task, values in stay.items()},
    }
