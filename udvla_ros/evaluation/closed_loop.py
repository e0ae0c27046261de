"""The closed loop without ROS, as fast as it goes, along the same path: image, chunk, joint targets, arm.

Several worlds take turns: each round every world that still runs is looked at, one batch of chunks is inferred
and each world executes ``execute`` control steps (a receding horizon). The deltas of a chunk start from the
joints commanded when its observation was taken; its step k is due k + 1 control steps later, and where it comes
late, what is left of the chunk before is played meanwhile, as in the graph.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.evaluation.cases import Case
from udvla_ros.motion.action_space import ActionSpace, JointTargets, reachable
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.world import TabletopWorld

OUT_OF_TIME = "out of time"


class InfersBatches(Protocol):
    """What the loop needs of a policy."""

    def infer_batch(
        self, observations: Sequence[Any], options: Any, seed: int, previous: Sequence[Any] | None
    ) -> Sequence[Any]:
        """Return one chunk per observation: ``actions`` [K, 7] and ``predicted`` images.

        ``previous`` is the chunk in force of each episode, or None.
        """


@dataclass(frozen=True)
class LoopOptions:
    """How chunks follow each other.

    Attributes:
        execute: control steps from one observation to the next.
        latency: control steps by which a chunk comes late.
        dt: seconds per control step.
        seed: from which each inference's seed is drawn.
        cut: play a chunk up to its first unreachable step, instead of refusing it whole.
    """

    execute: int = 4
    latency: int = 0
    dt: float = 0.1
    seed: int = 0
    cut: bool = False

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise ConfigError(f"--execute {self.execute} gets nowhere; give at least 1")
        if not 0 <= self.latency <= self.execute:
            raise ConfigError(
                f"--latency-steps {self.latency} must lie between 0 and --execute {self.execute}: "
                "a chunk is inferred only after the one before has come"
            )


@dataclass
class Moment:
    """One inference as people want to see it: what was seen at ``step``, foreseen for ``due``, and wanted."""

    step: int
    due: int
    predicted: dict[str, np.ndarray]
    actions: np.ndarray


@dataclass
class Trace:
    """Pictures of one episode: ``frames[i]`` was seen before control step i."""

    frames: list[dict[str, np.ndarray]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    tcp: list[np.ndarray] = field(default_factory=list)


@dataclass
class Outcome:
    """How one episode went. ``refusals`` counts chunks that could not be used, by cause."""

    case: Case
    success: bool
    reason: str
    steps: int
    refusals: dict[str, int] = field(default_factory=dict)
    approached: str | None = None
    trace: Trace | None = None


class Judge(Protocol):
    """Decides when an episode is over."""

    succeeded: bool
    failed: bool
    reason: str

    def update(self, world: TabletopWorld) -> None:
        """Look at the world after a control step."""


class Run:
    """One episode in one world."""

    def __init__(self, case: Case, world: TabletopWorld, judge: Judge, options: LoopOptions, trace: bool) -> None:
        self.case, self.world, self.judge, self._options = case, world, judge, options
        self.set_out()
        self.steps = 0
        self.over = False
        self.refusals: Counter[str] = Counter()
        self.trace = Trace() if trace else None
        self._plan: tuple[int, JointTargets] | None = None  # begins at this control step
        self._next: tuple[int, JointTargets] | None = None
        self._seen: dict[str, np.ndarray] = {}
        self.last: Any = None  # the last chunk that could be used

    def set_out(self) -> None:
        """Put the world as the episode begins."""
        self.world.reset(sample_scene(self.case.seed, self.case.task, self.case.condition))

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        return self.case.instruction

    def look(self) -> dict[str, np.ndarray]:
        """Return the images of now."""
        self._seen = self.world.render()
        self._commanded = self.world.q_command
        return self._seen

    def accept(self, chunk: Any, space: ActionSpace) -> None:
        """Take the chunk of the last look, as far as the arm can follow it if chunks are cut, or not at all."""
        actions = np.asarray(chunk.actions)
        if self.trace is not None:
            self.trace.moments.append(Moment(self.steps, self.steps + len(actions), dict(chunk.predicted), actions))
        try:
            least = self._options.latency + 1 if self._options.cut else len(actions)
            self._next = (self.steps, reachable(space, actions, self._commanded, least))
            self.last = chunk
        except UdvlaError as error:
            self.refuse(error)

    def refuse(self, error: UdvlaError) -> None:
        """Count a chunk that does not come; the plan in force goes on to its end."""
        self.refusals[type(error).__name__] += 1
        self.last = None

    def play(self) -> None:
        """Execute control steps until the next observation is due or the episode is over."""
        for step in range(self._options.execute):
            if step == self._options.latency and self._next is not None:
                self._plan, self._next = self._next, None
            self._one()
            if self.over:
                return
        if self._next is not None:  # as late as the next observation
            self._plan, self._next = self._next, None

    def _one(self) -> None:
        world = self.world
        if self.trace is not None:
            self.trace.frames.append(self._seen or world.render())
            self.trace.tcp.append(world.tcp_pose()[:3, 3])
            self._seen = {}
        q, gripper = world.q_command, world.gripper_command
        if self._plan is not None:
            begin, targets = self._plan
            index = min(self.steps - begin, len(targets.q) - 1)  # beyond its end the arm rests there
            q, gripper = targets.q[index], float(targets.gripper[index])
        world.follow(q, gripper, self._options.dt)
        self.steps += 1
        self.judge.update(world)
        if not (self.judge.succeeded or self.judge.failed or self.steps >= self.case.limit):
            return
        self.over = True
        if self.trace is not None:
            self.trace.frames.append(world.render())
            self.trace.tcp.append(world.tcp_pose()[:3, 3])

    def outcome(self) -> Outcome:
        """Return how it went."""
        reason = self.judge.reason or OUT_OF_TIME
        if reason == OUT_OF_TIME and self.refusals:
            reason = f"{OUT_OF_TIME}, with chunks refused ({', '.join(sorted(self.refusals))})"
        return Outcome(
            self.case,
            self.judge.succeeded,
            reason,
            self.steps,
            dict(self.refusals),
            getattr(self.judge, "approached", None),
            self.trace,
        )


class ClosedLoop:
    """Runs cases in a few worlds at once.

    Args:
        policy: see :class:`InfersBatches`.
        space: turns actions into joint targets.
        worlds: rendered worlds; each runs one episode at a time.
        observe: makes the policy's observation of (images, instruction, stamp).
        decode: decoding options, handed to the policy as they are.
        options: how chunks follow each other.
        begin: makes the run of a case.
    """

    def __init__(
        self,
        policy: InfersBatches,
        space: ActionSpace,
        worlds: Sequence[TabletopWorld],
        observe: Callable[[dict[str, np.ndarray], str, float], Any],
        decode: Any = None,
        options: LoopOptions | None = None,
        begin: Callable[[Case, TabletopWorld, Judge, LoopOptions, bool], Run] = Run,
    ) -> None:
        self._policy, self._space, self._worlds, self._begin = policy, space, worlds, begin
        self._observe, self._decode = observe, decode
        self.options = options or LoopOptions()

    def run(
        self,
        cases: Sequence[Case],
        judge: Callable[[Case], Judge] = lambda case: TaskMonitor(case.task),
        *,
        traces: int = 0,
        done: Callable[[Outcome], None] = lambda outcome: None,
    ) -> list[Outcome]:
        """Return one outcome per case, in their order; the first ``traces`` cases keep their pictures.

        ``done`` is called after each episode, in the order in which they end.
        """
        waiting = deque(enumerate(cases))
        free = list(self._worlds)
        running: dict[int, Run] = {}
        outcomes: dict[int, Outcome] = {}
        seeds = np.random.default_rng(self.options.seed)
        while waiting or running:
            while waiting and free:
                index, case = waiting.popleft()
                running[index] = self._begin(case, free.pop(), judge(case), self.options, index < traces)
            self._think(list(running.values()), int(seeds.integers(2**31)))
            for index, run in list(running.items()):
                run.play()
                if run.over:
                    outcomes[index] = run.outcome()
                    free.append(running.pop(index).world)
                    done(outcomes[index])
        return [outcomes[index] for index in range(len(cases))]

    def _think(self, runs: list[Run], seed: int) -> None:
        """Look at each world and give each its chunk; one bad chunk does not spoil the others."""
        seen = [self._observe(run.look(), run.instruction, run.steps * self.options.dt) for run in runs]
        try:
            chunks = self._infer(seen, runs, seed)
        except UdvlaError:
            for run, observation in zip(runs, seen, strict=True):
                try:
                    run.accept(self._infer([observation], [run], seed)[0], self._space)
                except UdvlaError as error:
                    run.refuse(error)
            return
        for run, chunk in zip(runs, chunks, strict=True):
            run.accept(chunk, self._space)

    def _infer(self, seen: Sequence[Any], runs: Sequence[Run], seed: int) -> Sequence[Any]:
        return self._policy.infer_batch(seen, self._decode, seed, previous=[run.last for run in runs])


@contextmanager
def worlds(count: int) -> Iterator[list[TabletopWorld]]:
    """Make rendered worlds for the length of a block."""
    made: list[TabletopWorld] = []
    try:
        for _ in range(count):
            made.append(TabletopWorld(render=True))
        yield made
    finally:
        for world in made:
            world.close()
