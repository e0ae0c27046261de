"""What the robot is asked to do, in words, and whether it was done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from udvla_ros.sim.scene import COLOURS

if TYPE_CHECKING:
    from udvla_ros.sim.world import TabletopWorld

# kind -> phrasings; {} takes "red cube" or "red block"
TASKS: dict[str, tuple[str, ...]] = {
    "touch": (
        "touch the {}",
        "tap the {}",
        "poke the {}",
        "press the {}",
        "put a finger on the {}",
        "reach the {}",
    ),
    "pick": ("pick up the {}", "pick the {}", "lift the {}", "grab the {}", "take the {}", "raise the {}"),
}
NOUNS = ("cube", "block")
_VERBS = {
    "touch": r"touch|tap|poke|press|push down on|finger on|reach|contact",
    "pick": r"pick|lift|grab|take|raise|grasp|hold",
}
MOVED = 0.02  # m another cube may move while one is touched
LIFTED = 0.06  # m above its rest height counts as picked up
OTHER_LIFTED = 0.03  # m


@dataclass(frozen=True)
class Task:
    """One task: ``kind`` is a key of :data:`TASKS`, ``colour`` one of the cubes'."""

    kind: str
    colour: str

    def __post_init__(self) -> None:
        if self.kind not in TASKS or self.colour not in COLOURS:
            raise ValueError(
                f"no task '{self.kind} {self.colour}'; there are {list(TASKS)} and {list(COLOURS)}"
            )

    def instruction(self, rng: np.random.Generator | None = None) -> str:
        """Return a phrasing: the first one, or a random one if ``rng`` is given."""
        phrases = TASKS[self.kind]
        phrase = phrases[int(rng.integers(len(phrases)))] if rng is not None else phrases[0]
        noun = NOUNS[int(rng.integers(len(NOUNS)))] if rng is not None else NOUNS[0]
        return phrase.format(f"{self.colour} {noun}")

    @staticmethod
    def parse(text: str) -> Task | None:
        """Return the task a sentence asks for, or None unless it names exactly one kind and one colour."""
        words = " ".join(re.findall(r"[a-z]+", text.lower()))
        kinds = [k for k, verbs in _VERBS.items() if re.search(rf"\b(?:{verbs})(?:ing|s)?\b", words)]
        colours = [c for c in COLOURS if re.search(rf"\b{c}\b", words)]
        return Task(kinds[0], colours[0]) if len(kinds) == len(colours) == 1 else None


def parse(text: str) -> Task | None:
    """Return :meth:`Task.parse` of ``text``."""
    return Task.parse(text)


def all_tasks() -> list[Task]:
    """Return every kind with every colour."""
    return [Task(kind, colour) for kind in TASKS for colour in COLOURS]


class TaskMonitor:
    """Watches one episode; call :meth:`update` once after each control step.

    Attributes:
        succeeded, failed: latched, never both.
        reason: why it failed, or what was achieved; empty while neither.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.succeeded = False
        self.failed = False
        self.reason = ""

    def update(self, world: TabletopWorld) -> None:
        """Judge the world's state and what was touched since its last reset."""
        if self.succeeded or self.failed:
            return
        (self._touch if self.task.kind == "touch" else self._pick)(world)

    def _fail(self, reason: str) -> None:
        self.failed, self.reason = True, reason

    def _touch(self, world: TabletopWorld) -> None:
        wanted = self.task.colour
        if world.touched and world.touched[0] != wanted:
            return self._fail(f"touched the {world.touched[0]} cube first")
        for other in world.colours:
            moved = np.linalg.norm(world.cube_position(other) - world.rest[other])
            if other != wanted and moved > MOVED:
                return self._fail(f"moved the {other} cube")
        if world.touched:
            self.succeeded, self.reason = True, f"touched the {wanted} cube"

    def _pick(self, world: TabletopWorld) -> None:
        wanted = self.task.colour
        for other in world.colours:
            rise = world.cube_position(other)[2] - world.rest[other][2]
            if other != wanted and rise > OTHER_LIFTED:
                return self._fail(f"lifted the {other} cube")
        rise = world.cube_position(wanted)[2] - world.rest[wanted][2]
        if rise >= LIFTED and world.held(wanted):
            self.succeeded, self.reason = True, f"lifted the {wanted} cube"


def success(world: TabletopWorld, task: Task) -> bool:
    """Return whether the world, as it is since its last reset, fulfils the task."""
    monitor = TaskMonitor(task)
    monitor.update(world)
    return monitor.succeeded
