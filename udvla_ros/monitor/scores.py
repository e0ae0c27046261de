"""What each chunk says about whether the task goes well, from what is there anyway: numbers, the higher the worse.

No ROS and no torch. One :class:`Scorer` follows one attempt at one sentence; a pause or another sentence begins anew.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MATCH = 0.15  # s between the time a future was foreseen for and the pictures it is held against
WINDOW = 2.0  # s of commanded motion in which reversals are counted
SMALLEST = 0.001  # m: a shorter way between two looks has no direction
HARD = 0.25  # share of the image slots, those that surprise most, of which a picture's surprise is the mean
KEPT = 8  # futures that wait for their time at most


@dataclass(frozen=True)
class Look:
    """One inference as the scorer needs it.

    Attributes:
        stamp: s, of the observation.
        dt: s between two steps of the chunk; step k is due ``(k + 1) dt`` after the stamp.
        way: TCP positions ``[K + 1, 3]`` in m: where the observation found the commanded arm, then the chunk's steps.
        closed: closed fraction of the gripper at each step ``[K]``.
        seen: VQ codes ``[V]`` of the observation; ``future``: those the chunk leads to, -1 where none was decoded.
        foreseen: most probable codes ``[V, k]``, their log-probabilities, and those ``[V]`` of each other code.
        unknown: words of the sentence that the bundle never saw.
        delay: s from the observation to the chunk; ``age``: s from the observation to when work on it began.
    """

    stamp: float
    dt: float
    way: np.ndarray
    closed: np.ndarray
    seen: np.ndarray | None = None
    future: np.ndarray | None = None
    foreseen: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    unknown: int = 0
    delay: float = 0.0
    age: float = 0.0

    @staticmethod
    def of(chunk: Any, q: np.ndarray, closed: np.ndarray, positions: Callable[[np.ndarray], np.ndarray], **more: Any):
        """Return the look at a chunk of the policy.

        Args:
            chunk: :class:`~udvla_ros.policy.policy.ActionChunk`.
            q: commanded joints at the observation, then the targets of the chunk ``[K + 1, d]``, rad.
            closed: see above.
            positions: of the TCP for joints, see :meth:`udvla_ros.motion.kinematics.Kinematics.positions`.
            more: further attributes.
        """
        likely = getattr(chunk, "foreseen", None)
        codes = getattr(chunk, "codes", None)
        return Look(
            more.pop("stamp", chunk.stamp), chunk.dt, positions(np.asarray(q, float)), np.asarray(closed, float),
            getattr(chunk, "seen", None), None if codes is None else codes[0],
            None if likely is None else (likely.codes, likely.log_probs, likely.rest), **more,
        )  # fmt: skip

    @property
    def due(self) -> float:
        """The time the chunk's future is a picture of, s."""
        return self.stamp + len(self.closed) * self.dt


class Scorer:
    """Scores of one attempt, chunk after chunk.

    Args:
        views: slots of each camera among the image slots, in their order: name -> count.
        codebook: vectors of the VQ codes ``[N, D]``.
    """

    def __init__(self, views: Mapping[str, int], codebook: np.ndarray) -> None:
        ends = np.cumsum(list(views.values()))
        self._views = {name: slice(end - views[name], end) for name, end in zip(views, ends.astype(int), strict=True)}
        unit = math.sqrt(2.0 * float(np.asarray(codebook).var(axis=0).sum())) or 1.0  # two codes drawn by chance
        self._codebook = np.asarray(codebook, np.float32) / unit
        self.reset()

    def reset(self) -> None:
        """Begin a new attempt."""
        self._waiting: deque[Look] = deque(maxlen=KEPT)
        self._began: float | None = None
        self._places: deque[tuple[float, np.ndarray]] = deque()

    def update(self, look: Look) -> dict[str, float]:
        """Return the scores at one look by name; what cannot be told yet is left out.

        ``likelihood/<camera>`` nats per code, less what was expected: the observed codes under the prediction made a
        horizon ago; ``picture/<camera>``: distance of predicted and observed codes, 1 for two drawn by chance;
        ``disagreement`` m and ``disagreement/gripper``: this chunk against the last one where both have steps;
        ``reversals``: share of turns about in the commanded TCP's way of the last 2 s; ``stillness``: 1 where the
        TCP's way of that time leads nowhere, 0 where it goes straight; ``unknown_words``, ``delay``, ``age``.
        """
        if self._began is None or look.stamp < self._began:
            self.reset()
            self._began = look.stamp
        scores = {"unknown_words": float(look.unknown), "delay": look.delay, "age": look.age}
        scores |= self._pictures(look) | self._disagreement(look) | self._motion(look)
        scores["elapsed"] = look.stamp - self._began
        scores["spread"] = float(np.diff(look.way, axis=0).std(axis=0).sum())
        self._waiting.append(look)
        return scores

    def _pictures(self, look: Look) -> dict[str, float]:
        if look.seen is None or not self._views:
            return {}
        last = min(self._waiting, key=lambda past: abs(past.due - look.stamp), default=None)
        if last is None or abs(last.due - look.stamp) > MATCH:
            return {}
        scores: dict[str, float] = {}
        for name, slots in self._views.items():
            seen = look.seen[slots]
            if last.foreseen is not None:
                codes, log_probs, rest = (part[slots] for part in last.foreseen)
                scores[f"likelihood/{name}"] = hardest(excess(seen, codes, log_probs, rest))
            if last.future is not None and (last.future[slots] >= 0).all():
                away = self._codebook[seen] - self._codebook[last.future[slots]]
                scores[f"picture/{name}"] = hardest(np.linalg.norm(away, axis=1))
        return scores

    def _disagreement(self, look: Look) -> dict[str, float]:
        if not self._waiting:
            return {}
        last = self._waiting[-1]
        elapsed = round((look.stamp - last.stamp) / look.dt)
        common = len(last.closed) - elapsed
        if not elapsed > 0 or common < 1:
            return {}
        apart = np.linalg.norm(last.way[1 + elapsed :] - look.way[1 : 1 + common], axis=1)
        fingers = np.abs(last.closed[elapsed:] - look.closed[:common])
        return {"disagreement": float(apart.mean()), "disagreement/gripper": float(fingers.mean())}

    def _motion(self, look: Look) -> dict[str, float]:
        places = self._places
        if self._waiting:  # what was played since the last look: its chunk's first steps
            last = self._waiting[-1]
            for k in range(min(round((look.stamp - last.stamp) / last.dt), len(last.closed)) - 1):
                places.append((last.stamp + (k + 1) * last.dt, last.way[k + 1]))
        places.append((look.stamp, look.way[0]))
        while look.stamp - places[0][0] > WINDOW:
            places.popleft()
        if look.stamp - places[0][0] < WINDOW / 2:
            return {}
        steps = np.diff(np.array([at for _, at in places]), axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        moving = steps[lengths > SMALLEST]
        turned = (moving[1:] * moving[:-1]).sum(axis=1) < 0
        path, net = float(lengths.sum()), float(np.linalg.norm(steps.sum(axis=0)))
        return {
            "reversals": float(turned.sum()) / max(len(steps) - 1, 1),
            "stillness": 1.0 - net / max(path, WINDOW * 0.02),  # slower than 2 cm/s counts as still
        }


def excess(seen: np.ndarray, codes: np.ndarray, log_probs: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return by how many nats each observed code ``[V]`` is less likely than the prediction expects of its own."""
    hit = codes == seen[:, None]
    told = np.where(hit.any(axis=1), np.where(hit, log_probs, 0.0).sum(axis=1), rest)
    shares = np.exp(log_probs.astype(np.float64))
    entropy = -(shares * log_probs).sum(axis=1) - (1.0 - shares.sum(axis=1)).clip(0.0) * rest
    return -told - entropy


def hardest(values: np.ndarray, share: float = HARD) -> float:
    """Return the mean of the largest values, of that share of all, at least one."""
    count = max(1, round(share * len(values)))
    return float(np.partition(values, len(values) - count)[-count:].mean())


def scorer_for(policy: Any) -> Scorer:
    """Return a scorer for a policy; one that shows no codebook is scored without its pictures."""
    codebook = getattr(policy, "codebook", None)
    views = {} if codebook is None else {view.name: view.codes for view in policy.config.views}
    return Scorer(views, np.ones((1, 1)) if codebook is None else codebook)
