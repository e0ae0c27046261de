"""The tabletop suite: what ``udvla eval`` measures, as one report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.cases import PLAIN, Case, Trial, make_case, scene_seeds, swap_cases, task_cases
from udvla_ros.evaluation.closed_loop import ClosedLoop, LoopOptions, Outcome, worlds
from udvla_ros.evaluation.intervals import rate_with_interval, stage_percentiles
from udvla_ros.evaluation.swap import ApproachJudge
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.tasks import KINDS, Task
from udvla_ros.workers import worker_pool

ROBOT = "config/robots/ur5e_sim.yaml"
CHOICES = (*KINDS, "all", "swap")


@dataclass(frozen=True)
class SuiteOptions:
    """What is measured and how.

    Attributes:
        bundle, device, threads: as :meth:`udvla_ros.policy.Policy.load` takes them.
        decode: changes to the bundle's own decoding options.
        loop: how chunks follow each other.
        batch: worlds in one process.
        workers: processes.
        latency_samples: single inferences that are timed.
        dump: episodes per task that keep their pictures.
        runtime: fields of :class:`udvla_ros.model.runtime.RuntimeOptions` other than the threads.
    """

    bundle: str
    device: str = "cpu"
    threads: int | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    loop: LoopOptions = field(default_factory=LoopOptions)
    batch: int = 8
    workers: int = 1
    latency_samples: int = 20
    dump: int = 0
    runtime: Mapping[str, Any] = field(default_factory=dict)


def kinds_of(task: str, known: Sequence[str] = KINDS) -> tuple[str, ...]:
    """Return what ``--task`` stands for: kinds of tasks, ``swap``, ``all`` (those ``known``), several with commas.

    Raises:
        ConfigError: there is no such task.
    """
    kinds: list[str] = []
    for word in (part.strip() for part in task.split(",")):
        if word not in CHOICES:
            raise ConfigError(f"no task '{word}'; --task takes, separated by commas: {', '.join(CHOICES)}")
        kinds += [kind for kind in (known if word == "all" else (word,)) if kind not in kinds]
    return tuple(kinds)


def make_cases(kind: str, episodes: int, seed: int, trial: Trial = PLAIN) -> list[Case]:
    """Return the cases of a kind of task, or of ``swap`` (three per scene)."""
    return swap_cases(episodes, seed, trial) if kind == "swap" else task_cases(kind, episodes, seed, trial)


def judge_of(kind: str) -> Callable[[Case], Any]:
    """Return what ends and judges the episodes of a kind of task or of ``swap``."""
    return (lambda case: ApproachJudge(case.task)) if kind == "swap" else (lambda case: TaskMonitor(case.task))


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the report's section on one kind of task; ``mean_steps`` is over successes."""
    successes = [outcome for outcome in outcomes if outcome.success]
    failures = Counter(outcome.reason for outcome in outcomes if not outcome.success)
    refusals: Counter[str] = Counter()
    for outcome in outcomes:
        refusals.update(outcome.refusals)
    by_colour: dict[str, list[int]] = {}
    for outcome in outcomes:
        tally = by_colour.setdefault(outcome.case.task.colour, [0, 0])
        tally[0] += outcome.success
        tally[1] += 1
    return {
        "episodes": len(outcomes),
        "successes": len(successes),
        **rate_with_interval(len(successes), len(outcomes)),
        "mean_steps": round(float(np.mean([o.steps for o in successes])), 1) if successes else None,
        "failures": dict(failures.most_common()),
        "refused_chunks": dict(refusals),
        "successes_by_colour": {colour: f"{good}/{count}" for colour, (good, count) in by_colour.items()},
    }


class Session:
    """A loaded policy, worlds and the loop over them; use as a context manager."""

    def __init__(self, options: SuiteOptions, policy: Any = None) -> None:
        from udvla_ros.model.runtime import RuntimeOptions  # torch, only where it is needed
        from udvla_ros.policy import Observation, Policy
        from udvla_ros.policy.contract import check

        self.options = options
        runtime = RuntimeOptions(**options.runtime)
        self.policy = policy or Policy.load(options.bundle, options.device, options.threads, runtime)
        self.decode = self.policy.check(self.policy.options(**options.decode))
        robot = RobotDescription.load(ROBOT)
        self.space = check(self.policy.config, robot)
        self.observe = lambda images, words, stamp: Observation(images, words, stamp)

    def __enter__(self) -> Session:
        self._context = worlds(self.options.batch)
        self.worlds = self._context.__enter__()
        loop = replace(self.options.loop, dt=1.0 / self.policy.config.control_hz)
        self.loop = ClosedLoop(self.policy, self.space, self.worlds, self.observe, self.decode, loop)
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def latency(self) -> dict[str, dict[str, float]]:
        """Return percentiles in ms per stage of single inferences on real views, after a warm-up."""
        count = self.options.latency_samples
        if count < 1:
            return {}
        from udvla_ros.evaluation.timer import Way, in_turn

        world, seen = self.worlds[0], []
        for seed in scene_seeds(count, 0):
            world.reset(sample_scene(seed))
            seen.append(self.observe(dict(world.render()), make_case(seed, Task("touch", "red")).instruction, 0.0))
        self.policy.warm_up(self.decode)
        (chunks,) = in_turn({"": Way(self.policy, self.decode)}, seen, count).values()
        return stage_percentiles([chunk.timings_ms for chunk in chunks])

    def run(self, kind: str, cases: Sequence[Case], done: Callable[[Outcome], None]) -> list[Outcome]:
        """Return the outcomes of cases of one kind."""
        return self.loop.run(cases, judge_of(kind), traces=self.options.dump, done=done)


def run_parallel(
    options: SuiteOptions, kind: str, cases: Sequence[Case], done: Callable[[Outcome], None]
) -> list[Outcome]:
    """Return the outcomes of cases that are shared out among worker processes, in the cases' order."""
    shares = [list(range(first, len(cases), options.workers)) for first in range(options.workers)]
    shares = [share for share in shares if share]
    outcomes: dict[int, Outcome] = {}
    threads = options.threads or max(1, (os.cpu_count() or 1) // len(shares))
    options = replace(options, threads=threads)
    with worker_pool(len(shares)) as pool:
        jobs = {pool.submit(_work, options, kind, [cases[i] for i in share]): share for share in shares}
        for job in as_completed(jobs):
            for index, outcome in zip(jobs[job], job.result(), strict=True):
                outcomes[index] = outcome
                done(outcome)
    return [outcomes[index] for index in range(len(cases))]


def _work(options: SuiteOptions, kind: str, cases: list[Case]) -> list[Outcome]:
    with Session(options) as session:
        return session.run(kind, cases, lambda outcome: None)


def counting(bar: Any) -> Callable[[Outcome], None]:
    """Return what moves a tqdm bar on by an outcome, and says how many succeeded."""
    good = 0

    def done(outcome: Outcome) -> None:
        nonlocal good
        good += outcome.success
        bar.set_postfix_str(f"{good} succeeded")
        bar.update()

    return done


def episode(kind: str, outcome: Outcome) -> dict[str, Any]:
    """Return one episode as reports list it; :mod:`udvla_ros.evaluation.paired` finds its like by the first four."""
    case = outcome.case
    return {
        "task": kind,
        "seed": case.seed,
        "instruction": case.instruction,
        "condition": case.condition,
        "success": bool(outcome.success),
        "reason": outcome.reason,
        "steps": outcome.steps,
        "refused_chunks": outcome.refusals,
    }


def identity(policy: Any) -> dict[str, str]:
    """Return name and hash of a policy's bundle."""
    return {"name": policy.config.name, "hash": policy.hash}
