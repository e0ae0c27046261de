"""A motion that may reach the controller: finite, smooth to the acceleration, ending at rest."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from udvla_ros.motion import quintic

SHORTEST = 1e-5  # s between knots; the next one within it stands for both
NEAR = 2e-3  # s within which a switch is moved to a knot: a cell much shorter than the rest would be ill-conditioned


class State(NamedTuple):
    """Commanded joint state at one instant: position, velocity and acceleration, [d] each."""

    q: np.ndarray
    qd: np.ndarray
    qdd: np.ndarray


class Plan:
    """Knots with quintic cells between them; before the first knot and after the last the arm rests.

    Attributes:
        start: time of the first knot, s.
        times: [n] times of the knots after ``start``; increasing, the first is 0.
        q, qd, qdd: [n, d] commanded positions, velocities, accelerations; zero derivatives at the last.
        gripper: [n] commanded gripper joint at the knots, linear between them.
    """

    def __init__(
        self,
        start: float,
        times: np.ndarray,
        q: np.ndarray,
        qd: np.ndarray,
        qdd: np.ndarray,
        gripper: np.ndarray,
    ) -> None:
        self.start, self.times, self.q, self.qd, self.qdd, self.gripper = start, times, q, qd, qdd, gripper
        self._latest: tuple[float, State] | None = None

    @classmethod
    def rest(cls, q: np.ndarray, gripper: float, start: float) -> Plan:
        """Return the plan of an arm that stays where it is."""
        q = np.array([q, q], float)
        return cls(start, np.array([0.0, 0.02]), q, np.zeros_like(q), np.zeros_like(q), np.full(2, float(gripper)))

    @property
    def end(self) -> float:
        """Time from which arm and gripper rest, s."""
        return self.start + float(self.times[-1])

    @cached_property
    def durations(self) -> np.ndarray:
        """Durations [n - 1] of the cells, s."""
        return self.times[1:] - self.times[:-1]

    @cached_property
    def _coefficients(self) -> np.ndarray:
        return quintic.coefficients(self.durations, self.q, self.qd, self.qdd)

    @cached_property
    def hulls(self) -> np.ndarray:
        """Control points [18, n - 1, d] that enclose each cell; see :func:`udvla_ros.motion.quintic.hulls`."""
        return quintic.hulls(self.durations, self.q, self.qd, self.qdd)

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Times [2n - 1] after ``start`` and positions [2n - 1, d] of the knots and the middles between."""
        times, q = np.empty(2 * len(self.q) - 1), np.empty((2 * len(self.q) - 1, self.q.shape[1]))
        times[::2], q[::2] = self.times, self.q
        times[1::2] = self.times[:-1] + self.durations / 2
        q[1::2] = quintic.middles(self.hulls)
        return times, q

    def sample(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return q, qd, qdd [m, d] at ``t`` [m] seconds after ``start``."""
        u = np.minimum(np.maximum(t, 0.0), self.times[-1])
        cell = np.minimum(np.searchsorted(self.times, u, "right") - 1, len(self.times) - 2)
        return quintic.evaluate(self._coefficients, cell, u - self.times[cell])

    def state(self, t: float) -> State:
        """Return the commanded state at clock time ``t``."""
        if self._latest is None or self._latest[0] != t:  # the same instant is asked for several times in a row
            if t >= self.end:  # there, rest is exact
                state = State(self.q[-1], self.qd[-1], self.qdd[-1])
            else:
                u = max(t - self.start, 0.0)
                cell = min(int(self.times.searchsorted(u, "right")) - 1, len(self.times) - 2)
                state = State(*quintic.at(self._coefficients[cell], u - float(self.times[cell])))
            self._latest = (t, state)
        return self._latest[1]

    def gripper_at(self, t: float) -> float:
        """Return the commanded gripper joint at clock time ``t``."""
        return float(np.interp(t - self.start, self.times, self.gripper))

    def at_rest(self, t: float) -> bool:
        """Return whether the commanded arm stands still from ``t`` on."""
        rest = self.rest_time
        return t - self.start >= rest - 1e-9

    @cached_property
    def arm_knots(self) -> int:
        """Number of knots, at least 2, after which only the gripper moves."""
        moving = (self.qd != 0) | (self.qdd != 0) | (self.q != self.q[-1])
        if not moving.any():
            return 2
        last = len(self.q) - 1 - int(moving[::-1].argmax()) // self.q.shape[1]
        return max(2, min(last + 2, len(self.q)))

    @cached_property
    def rest_time(self) -> float:
        """Seconds after ``start`` from which the arm (not the gripper) rests."""
        if self.arm_knots == 2 and not (self.qd[0].any() or self.qdd[0].any() or (self.q[0] != self.q[-1]).any()):
            return 0.0
        return float(self.times[self.arm_knots - 1])

    def then(self, after: Plan) -> Plan:
        """Return this plan up to where its arm rests, followed by ``after``, which starts then and there."""
        upto = self.arm_knots
        knots = (
            np.concatenate([a[:upto], b[1:]])
            for a, b in ((self.q, after.q), (self.qd, after.qd), (self.qdd, after.qdd), (self.gripper, after.gripper))
        )
        times = np.concatenate([self.times[:upto], after.times[1:] + self.times[upto - 1]])
        return Plan(self.start, times, *knots)

    def following(self, before: Plan, since: float) -> Plan:
        """Return ``before`` from ``since`` until this plan starts, then this plan, which starts on ``before``.

        Part of a quintic is the quintic through its ends, so the motion until then is exactly that of ``before``.
        """
        until = self.start - before.start
        first = max(0, int(np.searchsorted(before.times, since - before.start, "right")) - 1)
        last = int(np.searchsorted(before.times, until - SHORTEST))
        if last <= first:
            return self
        knots = (
            np.concatenate([a[first:last], b])
            for a, b in (
                (before.q, self.q), (before.qd, self.qd), (before.qdd, self.qdd), (before.gripper, self.gripper)
            )
        )  # fmt: skip
        begin = before.times[first]
        times = np.concatenate([before.times[first:last] - begin, self.times + (until - begin)])
        return Plan(before.start + float(begin), times, *knots)

    def switch_near(self, t: float) -> float:
        """Return clock time ``t``, or that of the knot next to it."""
        knot = self.start + float(self.times[np.abs(self.times - (t - self.start)).argmin()])
        return knot if abs(knot - t) < NEAR else t

    def shifted(self, seconds: float) -> Plan:
        """Return the same motion, ``seconds`` later."""
        return Plan(self.start + seconds, self.times, self.q, self.qd, self.qdd, self.gripper)

    def points(self, now: float | None = None, least: float = 0.005) -> tuple[np.ndarray, ...]:
        """Return what a trajectory message carries: times [n] after ``now``, q, qd, qdd [n, d], gripper [n].

        The knots themselves from ``now`` on, so that a controller interpolating points with velocities and
        accelerations plays this very plan. The first time is at least ``least``; the last point is at rest.
        """
        times = self.times - (0.0 if now is None else now - self.start)
        keep = times >= least
        if not keep.any():
            return np.array([max(0.02, least)]), self.q[-1:], self.qd[-1:], self.qdd[-1:], self.gripper[-1:]
        return times[keep], self.q[keep], self.qd[keep], self.qdd[keep], self.gripper[keep]
