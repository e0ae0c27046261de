"""One LIBERO episode: look, think, play what was thought, until the goal is reached or time is up.

Nothing is drawn but what the policy looks at: that is most of the time of a published loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from udvla_ros.errors import ConfigError, TokenError
from udvla_ros.sim.libero.suites import another, tasks
from udvla_ros.sim.libero.suites import goal as goal_of
from udvla_ros.sim.libero.world import IDLE, LiberoWorld

CONTROLS = ("none", "no-image", "swapped-words")
CHUNK = 10  # steps that the arm rests where a chunk is refused, unless told
UNSEEN = 2  # steps from one picture of a film to the next, of a policy that does not look
GREY = 128  # of every pixel, where there is to be no image


class Acts(Protocol):
    """What the loop needs of a policy."""

    looks: bool

    def begin(self, world: LiberoWorld, seed: int) -> None:
        """Get ready for an episode."""

    def chunk(self, images: Mapping[str, np.ndarray], sentence: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return actions [K, 7] in the benchmark's units, and the pictures that are foreseen, if any.

        Raises:
            TokenError: what was decoded is no chunk.
        """


class ExpertActs:
    """The scripted expert in a policy's place: it sees the state of the world, no pictures; one action at a time."""

    looks = False

    def begin(self, world: LiberoWorld, seed: int) -> None:
        """Plan anew."""
        from udvla_ros.sim.libero.expert import Expert

        self._expert = Expert(world)

    def chunk(self, images: Mapping[str, np.ndarray], sentence: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return the next action."""
        return np.clip(self._expert.act(), -1, 1)[None], {}


class BundleActs:
    """A trained bundle."""

    looks = True

    def __init__(self, policy: Any, options: Any) -> None:
        self._policy, self._options = policy, options

    def begin(self, world: LiberoWorld, seed: int) -> None:
        """Draw the episode's own noise."""
        self._seeds = np.random.default_rng(seed)

    def chunk(self, images: Mapping[str, np.ndarray], sentence: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return a chunk in the units of the data, and its foreseen pictures (painted when asked for)."""
        from udvla_ros.policy.observation import Observation

        seen = Observation(dict(images), sentence, prepared=True)
        made = self._policy.infer(seen, self._options, int(self._seeds.integers(2**31)))
        return made.native, _Painted(made)


class _Painted(Mapping):
    """The foreseen pictures of a chunk, painted at the first question: only films ask."""

    def __init__(self, chunk: Any) -> None:
        self._chunk = chunk

    def __getitem__(self, name: str) -> np.ndarray:
        return self._chunk.predicted[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._chunk.predicted)

    def __len__(self) -> int:
        return len(self._chunk.predicted)


@dataclass(frozen=True)
class Job:
    """One episode to run.

    Attributes:
        task: number in the suite; ``state``: number of the published init state.
        control: of :data:`CONTROLS`.
        film: keep its pictures.
    """

    suite: str
    task: int
    state: int
    control: str = "none"
    film: bool = False

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What tells it from others."""
        return self.suite, self.task, self.state, self.control


@dataclass
class Result:
    """How an episode went. ``said`` is the sentence; ``as_said`` whether its goal was reached, where it was swapped."""

    suite: str
    task: int
    state: int
    control: str
    said: str
    success: bool
    steps: int
    refused: int
    seconds: float
    as_said: bool | None = None

    @property
    def key(self) -> tuple[str, int, int, str]:
        """As :attr:`Job.key`."""
        return self.suite, self.task, self.state, self.control


def run(
    world: LiberoWorld, job: Job, policy: Acts, execute: int, seed: int,
    film: list[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] | None = None,
) -> Result:  # fmt: skip
    """Run one episode.

    Args:
        world: of the job's task.
        execute: actions of a chunk that are played before the next look; 0: all.
        seed: of what the policy draws, and of what is fixed to the table.
        film: takes what was shown and what was foreseen at each look.

    Raises:
        ConfigError: words are to be swapped, and no other task of the suite can be done in this scene.
    """
    task = world.task
    started = time.perf_counter()
    world.reset(task.init_states()[job.state], seed)
    said, goal = other_task(world) if job.control == "swapped-words" else (task.sentence, None)
    policy.begin(world, seed * 100_000 + job.state)
    result = Result(job.suite, job.task, job.state, job.control, said, False, 0, 0, 0.0, False if goal else None)
    chunk: np.ndarray = IDLE[None]
    while result.steps < task.limit and not result.success:
        filmed = film is not None and (policy.looks or result.steps % UNSEEN == 0)
        shown = world.look() if policy.looks or filmed else {}
        if job.control == "no-image":
            shown = {name: np.full_like(image, GREY) for name, image in shown.items()}
        foreseen: Mapping[str, np.ndarray] = {}
        try:
            chunk, foreseen = policy.chunk(shown, said)
        except TokenError:
            result.refused += 1
            rest = np.concatenate([np.zeros(6), chunk[-1, 6:]])  # and keep hold, as long as a chunk would have been
            chunk = np.tile(rest, (execute or CHUNK, 1))
        if film is not None and filmed:
            film.append((shown, dict(foreseen)))
        for action in chunk[: execute or None]:
            result.success = world.step(_signed(action))
            result.steps += 1
            if goal and world.fulfilled(goal):
                result.as_said = True
            if result.success or result.steps >= task.limit:
                break
    if film is not None:
        film.append((world.look(), {}))
    result.seconds = round(time.perf_counter() - started, 2)
    return result


def other_task(world: LiberoWorld) -> tuple[str, list[list[str]]]:
    """Return sentence and goal of another task of the suite that can be done in this scene. Raises as :func:`run`."""
    found = another(world.task, tasks(world.task.suite), world.names())
    if found is None:
        raise ConfigError(f"no other task of {world.task.suite} can be done in the scene of task {world.task.index}")
    return found.sentence, goal_of(found.scene)


def _signed(action: np.ndarray) -> np.ndarray:
    """Return an action with the gripper at -1 or 1, as published evaluations have it."""
    made = np.clip(np.asarray(action, float), -1, 1)
    made[6] = 1.0 if made[6] >= 0 else -1.0
    return made
