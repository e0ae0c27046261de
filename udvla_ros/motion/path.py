"""Paths: smooth motions over nominal time, before anything has been slowed down to the limits.

A path starts at ``s = 0`` (now), ends at rest at ``end`` and stays there. :meth:`evaluate` gives position and
the first two derivatives by ``s``, all continuous. ``s`` is the time the source asked for; the filter turns
it into real time by one common time-scaling.
"""

from __future__ import annotations

from copy import copy
from typing import Protocol

import numpy as np

from udvla_ros.motion import quintic
from udvla_ros.motion.plan import Plan

Derivatives = tuple[np.ndarray, np.ndarray, np.ndarray]


class Path(Protocol):
    """What the safety filter needs of a requested motion.

    Attributes:
        end: from here on the arm rests.
        last: from here on the gripper's target does not change; ``end`` or later.
    """

    end: float
    last: float

    def evaluate(self, s: np.ndarray) -> Derivatives:
        """Return position, first and second derivative [n, d] at ``s`` [n]."""

    def gripper(self, s: np.ndarray) -> np.ndarray:
        """Return the wanted gripper joint [n] at ``s`` [n]; it may jump."""


class PlanPath:
    """A plan from ``now`` on, as a path."""

    def __init__(self, plan: Plan, now: float) -> None:
        self._plan, self._offset = plan, now - plan.start
        self.end = max(plan.rest_time - self._offset, 0.0)
        self.last = max(float(plan.times[-1]) - self._offset, self.end)

    def evaluate(self, s: np.ndarray) -> Derivatives:
        return self._plan.sample(s + self._offset)

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return np.interp(s + self._offset, self._plan.times, self._plan.gripper)


class SplinePath:
    """Quintic cells through nodes; the nodes may begin before now.

    Args:
        s: node times [m], increasing, s.
        q, v, a: node positions, velocities and accelerations [m, d]; the last two are zero at the last node.
        gripper: (times [k], wanted gripper joint [k]), linear between.
    """

    def __init__(self, s: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray, gripper: tuple) -> None:
        self._s, self._gripper = s, gripper
        self._c = quintic.coefficients(s[1:] - s[:-1], q, v, a)
        self.end = self.last = max(float(s[-1]), 0.0)

    def delayed(self, seconds: float) -> SplinePath:
        """Return the same path, ``seconds`` later."""
        path = copy(self)
        path._s, path._gripper = self._s + seconds, (self._gripper[0] + seconds, self._gripper[1])
        path.end = path.last = max(float(path._s[-1]), 0.0)
        return path

    def evaluate(self, s: np.ndarray) -> Derivatives:
        s = np.minimum(np.maximum(s, self._s[0]), self._s[-1])
        cell = np.minimum(np.searchsorted(self._s, s, "right") - 1, len(self._s) - 2)
        return quintic.evaluate(self._c, cell, s - self._s[cell])

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return np.interp(s, *self._gripper)


class BlendPath:
    """From one path to another by a smooth ramp: only ``old`` until ``begin``, only ``new`` after the window.

    The ramp is the quintic smootherstep, flat to the second order at both ends, so the blend starts exactly
    at the state of ``old`` and stays within any box that holds both paths.
    """

    def __init__(self, old: Path, new: Path, begin: float, window: float) -> None:
        self._old, self._new, self._begin, self._window = old, new, begin, window
        self.end = max(new.end, begin + window)
        self.last = max(new.last, self.end)

    def evaluate(self, s: np.ndarray) -> Derivatives:
        n, n1, n2 = self._new.evaluate(s)
        mixed = int(np.searchsorted(s, self._begin + self._window)) if len(s) > 1 else 1
        o, o1, o2 = self._old.evaluate(s[:mixed])
        x = np.minimum(np.maximum((s[:mixed, None] - self._begin) / self._window, 0.0), 1.0)
        xy = x * (1.0 - x)
        w = 1.0 - x * x * x * (10.0 + x * (6.0 * x - 15.0))
        w1 = xy * xy * (-30.0 / self._window)
        w2 = xy * (2.0 * x - 1.0) * (60.0 / self._window**2)
        d, d1, d2 = o - n[:mixed], o1 - n1[:mixed], o2 - n2[:mixed]
        n[:mixed] += w * d
        n1[:mixed] += w1 * d + w * d1
        n2[:mixed] += w2 * d + 2 * w1 * d1 + w * d2
        return n, n1, n2

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return self._new.gripper(s)


def difference(old: Path, new: Path, s: float) -> Derivatives:
    """Return by how much ``old`` is ahead of ``new`` at one path time, [1, d] each."""
    here = np.array([s])
    (q, q1, q2), (n, n1, n2) = old.evaluate(here), new.evaluate(here)
    return q - n, q1 - n1, q2 - n2


class BridgePath:
    """From one path to another: ``old`` until ``begin``; what the two differ by there then vanishes over a window.

    The difference in position, velocity and acceleration is carried on by one quintic that ends at zero. What
    ``old`` does later, slowing to its rest, has no part in it: this is smoother than a blend. But nothing of ``old``
    is left to begin with, so the window must lie far enough ahead for a slowing to set in before it.

    ``apart`` is the difference itself, as :func:`difference` has it.
    """

    def __init__(self, old: Path, new: Path, begin: float, window: float, apart: Derivatives) -> None:
        self._old, self._new, self._begin, self._window = old, new, begin, window
        self.end = max(new.end, begin + window)
        self.last = max(new.last, self.end)
        self._apart = quintic.coefficients(np.array([window]), *(np.concatenate([x, 0 * x]) for x in apart))

    def evaluate(self, s: np.ndarray) -> Derivatives:
        path = self._new.evaluate(s)
        first, last = np.searchsorted(s, (self._begin, self._begin + self._window)).tolist()
        if first > 0:
            for values, old in zip(path, self._old.evaluate(s[:first]), strict=True):
                values[:first] = old
        if last > first:
            apart = quintic.evaluate(self._apart, np.zeros(last - first, int), s[first:last] - self._begin)
            for values, more in zip(path, apart, strict=True):
                values[first:last] += more
        return path

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return self._new.gripper(s)


def halting(x: np.ndarray, duration: np.ndarray | float) -> Derivatives:
    """Return way (in s of the path), rate and its slope at parts ``x`` (0 to 1) of a halt over ``duration``."""
    return duration * x * (1.0 + x * x * (x / 2 - 1.0)), 1.0 + x * x * (2.0 * x - 3.0), 6.0 * x * (x - 1.0) / duration


class HaltedPath:
    """A path that is left at full rate until ``begin`` and then brought to rest over ``duration``.

    The rate falls as 1 - 3x^2 + 2x^3, so the path is followed exactly and left at ``begin + duration / 2``:
    every joint halts at the same instant, on the way it was going. The gripper halts with it.
    """

    def __init__(self, path: Path, begin: float, duration: float) -> None:
        self._path, self._begin, self._duration = path, begin, duration
        self.end = self.last = begin + duration

    def _progress(self, s: np.ndarray) -> Derivatives:
        x = np.minimum(np.maximum((s - self._begin) / self._duration, 0.0), 1.0)
        along, rate, slope = halting(x, self._duration)
        return np.minimum(s, self._begin) + along, rate, slope

    def evaluate(self, s: np.ndarray) -> Derivatives:
        along, rate, slope = self._progress(s)
        q, q1, q2 = self._path.evaluate(along)
        rate, slope = rate[:, None], slope[:, None]
        return q, q1 * rate, q2 * rate * rate + q1 * slope

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return self._path.gripper(self._progress(s)[0])


class BoundedPath(HaltedPath):
    """A path halted because of what lies ahead of the arm; the gripper goes on as asked."""

    def __init__(self, path: Path, begin: float, duration: float) -> None:
        super().__init__(path, begin, duration)
        self.last = max(path.last, self.end)

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return self._path.gripper(s)


class StillPath:
    """An arm that stays at ``q`` while the gripper goes on as asked by a path."""

    def __init__(self, q: np.ndarray, path: Path) -> None:
        self._q, self._path = q, path
        self.end, self.last = 0.0, path.last

    def evaluate(self, s: np.ndarray) -> Derivatives:
        q = np.repeat(self._q[None], len(s), axis=0)
        return q, np.zeros_like(q), np.zeros_like(q)

    def gripper(self, s: np.ndarray) -> np.ndarray:
        return self._path.gripper(s)
