"""Which episodes are run: scenes no training ever saw, with a sentence drawn by each one's seed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.resources import find
from udvla_ros.sim.sampler import CONDITIONS
from udvla_ros.sim.scene import COLOURS
from udvla_ros.sim.tasks import KINDS, Task, tasks_of

EVALUATION_SEEDS = 1_000_000  # demonstrations are generated from lower seeds only
# Control steps until an episode is lost, 10 a second.
CONTROL_STEPS = {"touch": 60, "pick": 100, "push": 100, "place": 160}


@dataclass(frozen=True)
class Case:
    """One episode to run: the scene's seed, what counts as success, the sentence and the limit in steps.

    ``condition`` names how the scene differs from those of the demonstrations, see :data:`CONDITIONS`.
    """

    seed: int
    task: Task
    instruction: str
    limit: int
    condition: str = "plain"


@dataclass(frozen=True)
class Trial:
    """How cases differ from the demonstrations: phrasings that were held out, and the scenes' condition.

    ``sentences`` are those a bundle was trained on; without them every phrasing is drawn from.
    """

    held_out: bool = False
    condition: str = "plain"
    sentences: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ConfigError(f"no condition '{self.condition}'; there are: {', '.join(CONDITIONS)}")


PLAIN = Trial()


def demonstrated(kinds: Sequence[str], sentences: Collection[str]) -> tuple[tuple[str, ...], Trial]:
    """Return kinds of task and trial as :func:`demo_cases` takes them, of what a bundle says it was shown.

    A bundle that names no kinds knows touch and pick; one that tells no sentences is asked in every phrasing.
    """
    known = tuple(kind for kind in KINDS if kind in (kinds or ("touch", "pick")))
    return known, Trial(sentences=frozenset(sentences) if sentences else None)


def trained_on(bundle: str | Path) -> tuple[tuple[str, ...], Trial]:
    """Return :func:`demonstrated` of a bundle's files, read without torch.

    Raises:
        ConfigError: there is no such bundle.
    """
    folder = find(bundle)
    told = folder / "text" / "sentences.txt"
    sentences = told.read_text().splitlines() if told.is_file() else ()
    return demonstrated(json.loads((folder / "config.json").read_text()).get("tasks", ()), sentences)


def trained_kinds(bundle: str | Path) -> tuple[str, ...]:
    """Return the kinds of task a bundle was trained for. Raises as :func:`trained_on`."""
    return trained_on(bundle)[0]


def trained_sentences(bundle: str | Path) -> frozenset[str] | None:
    """Return the sentences a bundle was trained on, None where it does not tell. Raises as :func:`trained_on`."""
    return trained_on(bundle)[1].sentences


def make_case(seed: int, task: Task, trial: Trial = PLAIN) -> Case:
    """Return the case of one scene; the phrasing is drawn from the seed, the same for every colour."""
    sentence = task.instruction(np.random.default_rng((seed, 1)), trial.held_out, trial.sentences)
    return Case(seed, task, sentence, CONTROL_STEPS[task.kind], trial.condition)


def scene_seeds(episodes: int, seed: int) -> range:
    """Return the scenes' seeds.

    Raises:
        ConfigError: no episodes, or a negative seed.
    """
    if episodes < 1:
        raise ConfigError(f"--episodes {episodes} measures nothing; ask for at least 1")
    if seed < 0:
        raise ConfigError(f"--seed {seed} is negative; give 0 or more")
    return range(EVALUATION_SEEDS + seed, EVALUATION_SEEDS + seed + episodes)


def task_cases(kind: str, episodes: int, seed: int, trial: Trial = PLAIN) -> list[Case]:
    """Return cases of one kind of task, colours and directions in turn. Raises as :func:`scene_seeds`."""
    tasks = tasks_of(kind)
    return [make_case(s, tasks[i % len(tasks)], trial) for i, s in enumerate(scene_seeds(episodes, seed))]


def swap_cases(scenes: int, seed: int, trial: Trial = PLAIN) -> list[Case]:
    """Return for each scene one touch per colour: the sentences differ in the colour word alone."""
    return [make_case(s, Task("touch", colour), trial) for s in scene_seeds(scenes, seed) for colour in COLOURS]


def demo_cases(episodes: int, seed: int, kinds: Sequence[str] = ("touch", "pick"), trial: Trial = PLAIN) -> list[Case]:
    """Return cases over all instructions: every kind with every colour, in turn."""
    tasks = {kind: tasks_of(kind) for kind in kinds}
    chosen = [(kinds[i % len(kinds)], i) for i in range(episodes)]
    return [
        make_case(s, tasks[kind][i % len(tasks[kind])], trial)
        for s, (kind, i) in zip(scene_seeds(episodes, seed), chosen, strict=True)
    ]
