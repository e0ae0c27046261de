"""Which episodes are run: scenes no training ever saw, with a sentence drawn by each one's seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.sim.scene import COLOURS
from udvla_ros.sim.tasks import TASKS, Task

EVALUATION_SEEDS = 1_000_000  # demonstrations are generated from lower seeds only
CONTROL_STEPS = {"touch": 60, "pick": 100}  # control steps until an episode is lost, 10 a second


@dataclass(frozen=True)
class Case:
    """One episode to run: the scene's seed, what counts as success, the sentence and the limit in steps."""

    seed: int
    task: Task
    instruction: str
    limit: int


def make_case(seed: int, task: Task) -> Case:
    """Return the case of one scene; the phrasing is drawn from the seed, the same for every colour."""
    return Case(seed, task, task.instruction(np.random.default_rng((seed, 1))), CONTROL_STEPS[task.kind])


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


def task_cases(kind: str, episodes: int, seed: int) -> list[Case]:
    """Return cases of one kind of task, the colours in turn. Raises as :func:`scene_seeds`."""
    colours = list(COLOURS)
    seeds = scene_seeds(episodes, seed)
    return [make_case(s, Task(kind, colours[i % len(colours)])) for i, s in enumerate(seeds)]


def swap_cases(scenes: int, seed: int) -> list[Case]:
    """Return for each scene one touch per colour: the sentences differ in the colour word alone."""
    return [make_case(s, Task("touch", colour)) for s in scene_seeds(scenes, seed) for colour in COLOURS]


def demo_cases(episodes: int, seed: int) -> list[Case]:
    """Return cases over all instructions: every kind with every colour, in turn."""
    kinds, colours = list(TASKS), list(COLOURS)
    return [
        make_case(s, Task(kinds[i % len(kinds)], colours[i % len(colours)]))
        for i, s in enumerate(scene_seeds(episodes, seed))
    ]
