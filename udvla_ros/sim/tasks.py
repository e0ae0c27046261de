"""What the robot is asked to do: a kind of task, a colour and, for a push, a direction."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from udvla_ros.sim.phrasings import HELD_OUT, NOUNS, PHRASINGS, WAYS, kind_and_direction
from udvla_ros.sim.scene import COLOURS

KINDS = tuple(PHRASINGS)
# Unit steps in the base frame: x away from the robot, y to its left.
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (0.0, 1.0),
    "right": (0.0, -1.0),
    "forward": (1.0, 0.0),
    "back": (-1.0, 0.0),
}


@dataclass(frozen=True)
class Task:
    """One task: ``kind`` is one of :data:`KINDS`, ``colour`` one of the cubes'.

    ``direction`` is one of :data:`DIRECTIONS` for a push and empty for everything else.
    """

    kind: str
    colour: str
    direction: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.colour not in COLOURS:
            raise ValueError(f"no task '{self.kind} {self.colour}'; there are {list(KINDS)} and {list(COLOURS)}")
        if (self.kind == "push") != bool(self.direction) or self.direction not in ("", *DIRECTIONS):
            raise ValueError(
                f"'{self.kind}' with direction '{self.direction}': a push, and only a push, needs one of "
                f"{list(DIRECTIONS)}"
            )

    def __str__(self) -> str:
        """Return the name used on command lines: ``touch/red``, ``push/blue/left``."""
        return "/".join(part for part in (self.kind, self.colour, self.direction) if part)

    def instruction(
        self,
        rng: np.random.Generator | None = None,
        held_out: bool = False,
        among: Collection[str] | None = None,
    ) -> str:
        """Return a phrasing: the first one, or a random one if ``rng`` is given.

        ``held_out`` draws from the phrasings that demonstrations never use. ``among``: sentences that a policy was
        trained on; phrasings it never met are left out, unless it met none.
        """
        phrases = (HELD_OUT if held_out else PHRASINGS)[self.kind]
        if among is not None and not held_out:
            plain = {"cube": f"{self.colour} {NOUNS[0]}", "way": WAYS[self.direction][0] if self.direction else ""}
            phrases = tuple(phrase for phrase in phrases if phrase.format(**plain) in among) or phrases
        phrase = phrases[int(rng.integers(len(phrases)))] if rng is not None else phrases[0]
        noun = NOUNS[int(rng.integers(len(NOUNS)))] if rng is not None else NOUNS[0]
        way = ""
        if self.direction:
            ways = WAYS[self.direction]
            way = ways[int(rng.integers(len(ways)))] if rng is not None else ways[0]
        return phrase.format(cube=f"{self.colour} {noun}", way=way)

    @staticmethod
    def parse(text: str) -> Task | None:
        """Return the task a sentence asks for, or None unless it names exactly one kind and one colour."""
        asked = kind_and_direction(text)
        words = " ".join(re.findall(r"[a-z]+", text.lower()))
        colours = [c for c in COLOURS if re.search(rf"\b{c}\b", words)]
        return Task(asked[0], colours[0], asked[1]) if asked and len(colours) == 1 else None


def parse(text: str) -> Task | None:
    """Return :meth:`Task.parse` of ``text``."""
    return Task.parse(text)


def tasks_of(kind: str) -> list[Task]:
    """Return every task of one kind: each colour, and for a push each direction, colours changing fastest."""
    directions = tuple(DIRECTIONS) if kind == "push" else ("",)
    return [Task(kind, colour, direction) for direction in directions for colour in COLOURS]


def all_tasks() -> list[Task]:
    """Return every task of every kind."""
    return [task for kind in KINDS for task in tasks_of(kind)]
