"""The inference thread: look, infer, hand over a chunk; the next one is computed while the last one plays.

No ROS in here. Times are seconds on the clock of the image stamps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from udvla_ros.errors import ObservationError, UdvlaError
from udvla_ros.motion.action_space import ActionSpace, JointTargets, reachable
from udvla_ros.policy.observe import CommandHistory, ObservationBuffer, ObservationRefused

T = TypeVar("T")
PATIENCE = 0.25  # s without a new image after which the thread looks why


class InfersChunks(Protocol):
    """What the loop needs of a policy."""

    config: Any

    def infer(self, observation: Any, options: Any, seed: int, previous: Any) -> Any:
        """Return a chunk: ``actions`` [K, 7], ``dt``, ``predicted`` images, ``timings_ms``.

        ``previous`` is the chunk in force, or None.
        """


@dataclass(frozen=True)
class Settings:
    """What may change between two inferences, read once per inference.

    ``execute_steps`` of a chunk are played before the observation of the next one is taken. ``cut`` plays a chunk up to
    its first unreachable step, if that is still to come, instead of refusing it whole.
    ``refused`` says why the instruction is none to act on.
    """

    instruction: str
    options: Any
    execute_steps: int
    base_seed: int = 0
    cut: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Result:
    """A chunk ready for the arbiter: joint targets due ``(k + 1) dt`` after ``stamp``.

    The next observation is due ``execute`` seconds after this one; ``played`` steps were due before this one was
    ready, so that the plan in force has them. ``image_stamps`` (s, by camera), ``options``
    and ``commanded`` (the joints the deltas start from) are what a recording needs to compute the chunk again.
    """

    chunk: Any
    targets: JointTargets
    stamp: float
    execute: float
    seed: int
    instruction: str
    timings_ms: dict[str, float]
    image_stamps: Mapping[str, float] = field(default_factory=dict)
    options: Any = None
    commanded: np.ndarray | None = None
    played: int = 0


class InferenceLoop:
    """Runs the policy in its own thread whenever it is wanted and the cameras give it something new.

    Args:
        policy: see :class:`InfersChunks`.
        space: turns the chunk's actions into joint targets.
        observations, history: filled by others; :meth:`notify` after each image.
        settings: called once before each inference.
        make_observation: builds the policy's observation from images, instruction and stamp.
        on_result: takes each chunk, in this thread.
        on_refusal: takes the kind and the line of each refusal, in this thread.
        on_bug: takes any other exception; the loop goes on.
        clock: seconds now.
        warm_up: called with options that :meth:`options_changed` announced, between two inferences, so that no chunk
            is the first of its kind.
    """

    def __init__(
        self,
        policy: InfersChunks,
        space: ActionSpace,
        observations: ObservationBuffer,
        history: CommandHistory,
        settings: Callable[[], Settings],
        make_observation: Callable[[dict[str, np.ndarray], str, float], Any],
        on_result: Callable[[Result], None],
        on_refusal: Callable[[str, str], None],
        on_bug: Callable[[Exception], None],
        clock: Callable[[], float],
        warm_up: Callable[[Any], object] = lambda options: None,
    ) -> None:
        self._policy, self._space = policy, space
        self._observations, self._history = observations, history
        self._settings, self._make_observation = settings, make_observation
        self._on_result, self._on_refusal, self._on_bug = on_result, on_refusal, on_bug
        self._clock, self._warm_up = clock, warm_up
        self._changed = threading.Condition()
        self._wanted = False
        self._ended = False
        self._generation = 0
        self._valid_from = 0.0
        self._due = 0.0
        self._tried = 0.0
        self._previous: Any = None
        self._options_changed = False
        self.count = 0
        self.superseded = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def want(self, wanted: bool) -> None:
        """Switch the loop on or off; a chunk that is being computed is dropped, old images are not used."""
        with self._changed:
            if wanted == self._wanted:
                return
            self._wanted = wanted
            self._restart()

    def restart(self) -> None:
        """Drop the chunk being computed and begin anew with the next image (a new instruction, say)."""
        with self._changed:
            self._restart()

    def _restart(self) -> None:
        self._generation += 1
        self._valid_from = self._clock()
        self._due = self._tried = 0.0
        self._previous = None  # the last chunk was for another instruction, or before a pause
        self._changed.notify_all()

    def options_changed(self) -> None:
        """The settings have other options now: warm up with them when there is time, and use them from then on."""
        with self._changed:
            self._options_changed = True
            self._changed.notify_all()

    def notify(self) -> None:
        """A new image has come."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, after the inference it is in."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(30.0)

    def _ready(self) -> bool:
        if self._ended or self._options_changed:
            return True
        if not self._wanted:
            return False
        newest = self._observations.newest()
        return newest is not None and newest > self._tried and newest >= max(self._due, self._valid_from)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            with self._changed:
                in_time = self._changed.wait_for(self._ready, PATIENCE)
                if self._ended:
                    return
                generation, wanted = self._generation, self._wanted
                turned, self._options_changed = self._options_changed, False
                overdue = self._clock() - max(self._due, self._valid_from) > 2 * PATIENCE
            if turned:
                self._guarded(lambda: self._warm_up(self._settings().options))
                continue
            if not wanted or not (in_time or overdue):
                continue
            if not in_time and time.monotonic() - looked < PATIENCE:
                continue
            looked = time.monotonic()
            result = self._guarded(self._once)
            if result is None:
                continue
            with self._changed:
                if generation != self._generation:
                    self.superseded += 1
                    continue
                self._due = result.stamp + result.execute
                self._previous = result.chunk
            self._guarded(partial(self._on_result, result))  # to publish may fail too, at the end of a process say

    def _guarded(self, act: Callable[[], T]) -> T | None:
        """Return what ``act`` returns; None where it fails, which is told and does not end the thread."""
        try:
            return act()
        except ObservationRefused as error:
            self._on_refusal(error.kind, str(error))
        except UdvlaError as error:
            self._previous = None  # a chunk that could not be used is not in force
            self._on_refusal(type(error).__name__, str(error))
        except Exception as error:  # a bug must not end the thread: the arm rests, the log has it
            self._previous = None
            self._on_bug(error)
        return None

    def _once(self) -> Result:
        begin = self._clock()
        self._tried = self._observations.newest() or self._tried
        settings = self._settings()
        if settings.refused:
            raise ObservationRefused("instruction", settings.refused)
        frames = self._observations.take(begin)
        if frames.stamp < self._valid_from:
            raise ObservationRefused("stale", "no image has come since the policy was engaged; are the cameras on?")
        commanded = self._history.at(frames.stamp)  # without it there is nothing to add deltas to
        seed = int(np.random.SeedSequence((settings.base_seed, self.count)).generate_state(1)[0])
        observation = self._make_observation(dict(frames.images), settings.instruction, frames.stamp)
        with self._changed:
            previous = self._previous
        chunk = self._policy.infer(observation, settings.options, seed, previous)
        inferred = self._clock()
        actions = np.asarray(chunk.actions)
        if not np.isfinite(actions).all():
            raise ObservationError("the policy gave actions that are not finite; the chunk is dropped")
        # The commands just after the frame have come by now; after a very long inference they are forgotten.
        with contextlib.suppress(ObservationRefused):
            commanded = self._history.at(frames.stamp)
        played = int((self._clock() - frames.stamp) / chunk.dt)
        targets = reachable(self._space, actions, commanded, played + 1 if settings.cut else len(actions))
        self.count += 1
        end = self._clock()
        timings = {name: float(value) for name, value in chunk.timings_ms.items()}
        timings.setdefault("total", (inferred - begin) * 1e3)
        timings["frame_wait"] = (begin - frames.stamp) * 1e3
        timings["kinematics"] = (end - inferred) * 1e3
        timings["frame_to_trajectory"] = (end - frames.stamp) * 1e3
        execute = settings.execute_steps * chunk.dt - 1e-3
        return Result(
            chunk, targets, frames.stamp, execute, seed, settings.instruction, timings,
            frames.stamps, settings.options, commanded, int((end - frames.stamp) / chunk.dt),
        )  # fmt: skip
