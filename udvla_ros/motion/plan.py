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


class Points(NamedTuple):
    """A plan as a message carries it: times [n] s after ``stamp``, arm [n, d], gripper joint [n].

    ``stamp`` is in s on the arbiter's clock; 0 lets the controller begin when it comes. Without a gripper joint (it is
    empty) nothing goes to the hand.
    """

    times: np.ndarray
    q: np.ndarray
    qd: np.ndarray
    qdd: np.ndarray
    gripper: np.ndarray
    stamp: float = 0.0


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

    def next_turn(self, t: float) -> float:
        """Return the gripper joint at the end of the motion that it is in at ``t``: where it next turns or rests."""
        here = self.gripper_at(t)
        later = self.gripper[self.times > t - self.start]
        steps = np.diff(np.concatenate([[here], later]))
        moving = np.nonzero(steps)[0]
        if not moving.size or moving[0] > 0:
            return here
        against = np.nonzero(np.sign(steps) != np.sign(steps[0]))[0]
        return float(later[against[0] - 1] if against.size else later[-1])

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
        upto = 1 if self.rest_time == 0.0 else self.arm_knots
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

    def knot_from(self, t: float) -> float:
        """Return the clock time of the first knot at or after ``t``, or of the last."""
        after = int(np.searchsorted(self.times, t - self.start - SHORTEST))
        return self.start + float(self.times[min(after, len(self.times) - 1)])

    def switch_from(self, t: float) -> float:
        """Return the first clock time from ``t`` on that is a knot or at least ``NEAR`` after one."""
        after = int(np.searchsorted(self.times, t - self.start - SHORTEST))
        if after < len(self.times) and self.times[after] < t - self.start + NEAR:
            return self.start + float(self.times[after])
        return max(t, self.start + float(self.times[after - 1]) + NEAR) if after > 0 else t

    def shifted(self, seconds: float) -> Plan:
        """Return the same motion, ``seconds`` later."""
        return Plan(self.start + seconds, self.times, self.q, self.qd, self.qdd, self.gripper)

    def points_from(self, since: float) -> Points:
        """Return the knots from the last one at or before ``since`` on, stamped with the time of that one.

        A controller that interpolates points with velocities and accelerations plays this very plan, and one that
        plays it already notices nothing. A trajectory that begins after now it would first bridge to, from a state
        that joint_trajectory_controller takes to be one of its periods younger than it is.
        """
        first = max(0, int(np.searchsorted(self.times, since - self.start + 1e-9, "right")) - 1)
        first = min(first, len(self.times) - 2)
        begin = self.times[first]
        return self._some(self.times - begin, slice(first, None), self.start + float(begin))

    def points_after(self, now: float, least: float) -> Points:
        """Return the knots from ``least`` s after ``now`` on; the controller makes the way to the first by itself."""
        times = self.times - (now - self.start)
        keep = times >= least - 1e-9
        if not keep.any():
            return self._some(np.full(len(times), max(0.02, least)), slice(-1, None), now)
        return self._some(times, keep, now)

    def _some(self, times: np.ndarray, rows: slice | np.ndarray, stamp: float) -> Points:
        return Points(times[rows], self.q[rows], self.qd[rows], self.qdd[rows], self.gripper[rows], stamp)
