"""Does the colour word choose the cube? The same scene with each colour word in turn.

A policy that only knows where cubes tend to lie may succeed now and then; here it is asked whether the
*word* steers it: the first cube it comes near must be the named one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from udvla_ros.evaluation.closed_loop import Outcome
from udvla_ros.evaluation.intervals import rate_with_interval
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import TabletopWorld

NEAR = 0.05  # m, horizontally; cubes lie at least 0.1 m apart, so at most one is near
LOW = 0.10  # m of the TCP above the table: on its way down, not passing over


class ApproachJudge:
    """Ends an episode at the first cube that is touched or come near to.

    Attributes:
        approached: its colour, once there is one.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.approached: str | None = None
        self.succeeded = False
        self.failed = False
        self.reason = ""

    def update(self, world: TabletopWorld) -> None:
        """Look at the world after a control step."""
        self.approached = self._touched(world) or self._near(world)
        if self.approached is not None:
            self.succeeded = self.approached == self.task.colour
            self.failed = not self.succeeded
            self.reason = f"approached the {self.approached} cube"

    @staticmethod
    def _touched(world: TabletopWorld) -> str | None:
        return world.touched[0] if world.touched else None

    @staticmethod
    def _near(world: TabletopWorld) -> str | None:
        tcp = world.tcp_pose()[:3, 3]
        if tcp[2] > LOW:
            return None
        ways = np.linalg.norm(world.cube_poses()[:, :2] - tcp[:2], axis=1)
        nearest = int(ways.argmin())
        return world.colours[nearest] if ways[nearest] < NEAR else None


def summarise_swap(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the report's ``swap`` section.

    ``words`` counts sentences whose named cube was the first approached; ``scenes`` counts scenes in which every
    colour word led to its own cube, that is, swapping the word changed the approached cube as asked.
    """
    right = sum(outcome.success for outcome in outcomes)
    scenes = [list(group) for _, group in groupby(outcomes, key=lambda outcome: outcome.case.seed)]
    followed = sum(all(outcome.success for outcome in scene) for scene in scenes)
    # Changed at all: some two words of a scene led to different cubes.
    changed = sum(len({outcome.approached for outcome in scene} - {None}) > 1 for scene in scenes)
    confusion: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        row = confusion.setdefault(outcome.case.task.colour, {})
        row[outcome.approached or "none"] = row.get(outcome.approached or "none", 0) + 1
    return {
        "words": {"count": len(outcomes), "right": right, **rate_with_interval(right, len(outcomes))},
        "scenes": {"count": len(scenes), "followed": followed, **rate_with_interval(followed, len(scenes))},
        "scenes_changed": {"count": len(scenes), "changed": changed, **rate_with_interval(changed, len(scenes))},
        "approached_by_word": confusion,
    }
