"""What tuning looks at: moments of simulated or recorded episodes, each with the look that went before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.policy.policy import Observation, Policy

SIMULATED = "sim"
EPISODES = 9  # of a simulation, whose moments are taken


@dataclass(frozen=True)
class Moment:
    """An observation and the one that the chunk before it was made of, which several samples are compared with."""

    earlier: Observation
    now: Observation


def collect(policy: Policy, source: str, count: int, execute: int, seed: int = 0) -> list[Moment]:
    """Return ``count`` moments spread evenly over what the source has.

    Args:
        policy: says which cameras, and drives the simulated arm.
        source: ``sim``, a folder of generated episodes (``shard-*.npz``), or of recorded bags.
        count: how many.
        execute: control steps between two looks.
        seed: first scene of the simulation.

    Raises:
        UdvlaError: there is nothing there, or it lacks a camera.
    """
    if source == SIMULATED:
        found = list(_simulated(policy, execute, seed))
    elif not Path(source).is_dir():
        raise ConfigError(f"--observations '{source}': give 'sim' or a folder of episodes or bags")
    elif any(Path(source).glob("shard-*.npz")):
        found = list(_generated(policy, Path(source), execute, 4 * count))
    else:
        found = list(_recorded(policy, Path(source), execute, count))
    if not found:
        raise ConfigError(f"--observations '{source}' has no two looks {execute} control steps apart")
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, count).round().astype(int))]


def _pairs(looks: Sequence[Observation]) -> Iterator[Moment]:
    for earlier, now in itertools.pairwise(looks):
        if now.stamp > earlier.stamp:
            yield Moment(earlier, now)


class _Watched:
    """The policy with its options, noting every look of every episode."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.looks: list[Observation] = []

    def infer_batch(
        self, observations: Sequence[Observation], options: Any, seed: int, previous: Sequence[Any] | None
    ) -> Sequence[Any]:
        self.looks += observations
        return self._policy.infer_batch(observations, options, seed, previous)


def _simulated(policy: Policy, execute: int, seed: int) -> Iterator[Moment]:
    from udvla_ros.evaluation.cases import demo_cases, demonstrated
    from udvla_ros.evaluation.closed_loop import ClosedLoop, LoopOptions, worlds
    from udvla_ros.evaluation.suite import ROBOT
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.policy.contract import check

    options = LoopOptions(execute, dt=1.0 / policy.config.control_hz, seed=seed)
    space = check(policy.config, RobotDescription.load(ROBOT))
    with worlds(1) as made:
        for case in demo_cases(EPISODES, seed, *demonstrated(policy.config.tasks, policy.bundle.sentences)):
            watched = _Watched(policy)
            ClosedLoop(watched, space, made, Observation, policy.options(), options).run([case])
            yield from _pairs(watched.looks)


def _generated(policy: Policy, folder: Path, execute: int, most: int) -> Iterator[Moment]:
    from udvla_ros.rollouts.episodes import read_episodes

    dt, found = 1.0 / policy.config.control_hz, 0
    for episode in read_episodes(folder):
        missing = [name for name in policy.config.cameras if name not in episode.images]
        if missing:
            raise ConfigError(f"'{folder}' has no camera {', '.join(missing)}, which the bundle looks through")
        looks = [
            Observation({n: episode.images[n][t] for n in policy.config.cameras}, episode.instruction, t * dt)
            for t in range(0, len(episode), execute)
        ]
        for moment in _pairs(looks):
            yield moment
            found += 1
        if found >= most:  # a data set has thousands; the first ones are as good as any
            return


def _recorded(policy: Policy, folder: Path, execute: int, count: int) -> Iterator[Moment]:
    from udvla_ros.rollouts.bags.episode import RecordedEpisode, nearest, robot_of
    from udvla_ros.rollouts.bags.reader import Bag, episodes_in

    folders = episodes_in(folder)
    step = execute / policy.config.control_hz
    each = max(2, -(-count // max(1, len(folders))))
    for path in folders:
        with Bag(path) as bag:
            episode = RecordedEpisode(bag, robot_of(bag))
            lacking = [name for name in policy.config.cameras if not len(episode.camera_stamps.get(name, ()))]
            if lacking:
                raise ConfigError(f"'{path}' has no images of camera {', '.join(lacking)}: the bundle needs them")
            if not episode.instruction.strip():
                raise ConfigError(f"'{path}' does not say what was asked for: label it with an instruction")
            stamps = {name: np.sort(episode.camera_stamps[name]) for name in policy.config.cameras}
            first = max(s[0] for s in stamps.values())
            last = min(s[-1] for s in stamps.values())
            times = np.arange(first, last, step)
            if len(times) < 2:
                continue
            begins = np.unique(np.linspace(0, len(times) - 2, each).round().astype(int))
            asked = np.unique(np.concatenate([times[begins], times[begins + 1]]))
            chosen = {name: s[nearest(s, asked)] for name, s in stamps.items()}
            images = episode.pictures(chosen)
            looks = {
                float(t): Observation(
                    {name: images[name][chosen[name][k]] for name in chosen}, episode.instruction, float(t)
                )
                for k, t in enumerate(asked)
            }
            for k in begins:
                yield Moment(looks[float(times[k])], looks[float(times[k + 1])])
