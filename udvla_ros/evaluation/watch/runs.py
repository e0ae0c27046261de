"""Watched episodes: the closed loop with something going wrong, the monitor looking on, and perhaps a helper.

What is kept of an episode is what a bag keeps of one on an arm: the scores of each chunk with their times, and the
outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from udvla_ros.evaluation.cases import Case
from udvla_ros.evaluation.closed_loop import ClosedLoop, LoopOptions, Outcome, Run
from udvla_ros.evaluation.suite import ROBOT, Session, SuiteOptions
from udvla_ros.evaluation.watch.disturbances import Disturbance
from udvla_ros.monitor.episode import ScoredEpisode
from udvla_ros.monitor.scores import Look, Scorer, scorer_for
from udvla_ros.monitor.watch import Watch
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.sim.control import CONTROL_DT
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.world import TabletopWorld
from udvla_ros.workers import worker_pool

SHARE = 32  # episodes of a worker's job: what is lost where a run is broken off
HELP = 30  # control steps for which the helper has the arm


@dataclass(frozen=True)
class WatchedCase:
    """An episode and what goes wrong in it."""

    case: Case
    kind: str

    @property
    def key(self) -> tuple[str, str, int]:
        """That of the episode which comes of it."""
        return self.kind, str(self.case.task), self.case.seed


@dataclass(frozen=True)
class Watching:
    """What :func:`watch` needs in a worker: the suite's options, and who helps at an alarm (with it, the arm holds)."""

    suite: SuiteOptions
    watch: Watch | None = None
    helps: bool = False


@dataclass
class Watched(Run):
    """One watched episode; see :class:`Run` for its arguments."""

    disturbance: Disturbance = field(init=False)

    def __init__(
        self, kind: str, scorer: Scorer, kinematics: Kinematics, unknown: Callable[[str], int], watch: Watch | None,
        act: Any, case: Case, world: TabletopWorld, judge: Any, options: LoopOptions, trace: bool,
    ) -> None:  # fmt: skip
        self.disturbance = Disturbance(kind, case)
        self._scorer, self._kinematics, self._unknown, self._watch, self._act = scorer, kinematics, unknown, watch, act
        self.times: list[float] = []
        self.scores: list[dict[str, float]] = []
        self.alarms: list[float] = []
        self._helping = 0
        super().__init__(case, world, judge, options, trace)

    def set_out(self) -> None:
        self.disturbance.begin(self.world)

    @property
    def instruction(self) -> str:
        return self.disturbance.instruction

    def look(self) -> dict[str, np.ndarray]:
        self._seen = self.disturbance.seen(super().look(), self.steps)
        return self._seen

    def accept(self, chunk: Any, space: Any) -> None:
        super().accept(chunk, space)
        if self._next is None or self._helping:
            return
        targets = self._next[1]
        look = Look.of(
            chunk, np.vstack([self._commanded, targets.q]), targets.gripper, self._kinematics.positions,
            unknown=self._unknown(self.instruction), delay=self._options.latency * self._options.dt,
        )  # fmt: skip
        scores = self._scorer.update(look)
        self.times.append(look.stamp)
        self.scores.append(scores)
        if self._watch is not None and self._watch.update(scores).alarm:
            self.alarms.append(look.stamp)
            self._watch.reset()
            if self._act is not None:
                self.disturbance.undo(self.world)
                self._helping, self._plan, self._next, self.last = HELP, None, None, None
                self._scorer.reset()

    def _one(self) -> None:
        self.disturbance.before(self.world, self.steps)
        if self._helping:
            self._helping -= 1
            self._plan = self._next = None
            action = Expert(self.world, self.case.task).act()
            targets = self._act.targets(action[None], self.world.q_command)
            self._plan = (self.steps, targets)
        super()._one()
        if self.over:
            self.disturbance.end(self.world)

    def episode(self, outcome: Outcome) -> ScoredEpisode:
        """Return what is kept."""
        return ScoredEpisode(
            self.disturbance.kind, str(self.case.task), self.case.seed, outcome.success, outcome.reason,
            outcome.steps * self._options.dt, self.times, self.scores, self.alarms,
        )  # fmt: skip


def watch(
    watching: Watching, cases: Sequence[WatchedCase], done: Callable[[ScoredEpisode], None]
) -> list[ScoredEpisode]:
    """Run cases one batch after the other and return what is kept of each, in their order."""
    kinematics = RobotDescription.load(ROBOT).kinematics
    kinds = {id(watched.case): watched.kind for watched in cases}
    runs: dict[int, Watched] = {}
    with Session(watching.suite) as session:
        policy = session.policy

        def begin(case: Case, world: TabletopWorld, judge: Any, options: LoopOptions, trace: bool) -> Watched:
            watch = watching.watch
            run = Watched(
                kinds[id(case)], scorer_for(policy), kinematics, lambda words: len(policy.unknown_words(words)),
                None if watch is None else watch.anew(), session.space if watching.helps else None,
                case, world, judge, options, trace,
            )  # fmt: skip
            runs[id(case)] = run
            return run

        loop = ClosedLoop(
            policy, session.space, session.worlds, session.observe, session.decode,
            replace(watching.suite.loop, dt=CONTROL_DT), begin,
        )  # fmt: skip
        found: dict[int, ScoredEpisode] = {}

        def over(outcome: Outcome) -> None:
            found[id(outcome.case)] = runs.pop(id(outcome.case)).episode(outcome)
            done(found[id(outcome.case)])

        loop.run([watched.case for watched in cases], lambda case: TaskMonitor(case.task), done=over)
    return [found[id(watched.case)] for watched in cases]


def watch_parallel(
    watching: Watching, cases: Sequence[WatchedCase], workers: int, done: Callable[[ScoredEpisode], None]
) -> list[ScoredEpisode]:
    """Return :func:`watch` of cases that are shared out among worker processes, in no order."""
    size = min(max(watching.suite.batch, -(-len(cases) // (workers * 8))), SHARE)
    shares = [cases[first : first + size] for first in range(0, len(cases), size)]
    episodes: list[ScoredEpisode] = []
    with worker_pool(workers) as pool:
        for job in as_completed([pool.submit(_work, watching, share) for share in shares]):
            for episode in job.result():
                episodes.append(episode)
                done(episode)
    return episodes


def _work(watching: Watching, cases: Sequence[WatchedCase]) -> list[ScoredEpisode]:
    return watch(watching, cases, lambda episode: None)
