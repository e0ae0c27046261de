"""One time-scaling for all joints: how much slower than asked a path is played, place by place.

The slowness ``dt/ds`` is a quadratic B-spline over the path, at least 1 everywhere, so real time is a smooth
increasing function of path time, known in closed form, and the scaled motion has continuous acceleration.
"""

from __future__ import annotations

import numpy as np

from udvla_ros.motion.path import Path
from udvla_ros.motion.plan import Plan

SPACING = 0.04  # s of path time between control values
STEEPEST = 12.0  # greatest change of slowness per second of path time
THREE = np.arange(3)[:, None]  # control values that shape a cell: j, j + 1 and j + 2
NEWTON = 2  # steps from a straight line, off by 0.06 cells at most as the slope is bounded, to 2e-7 cells


class Slowness:
    """Control values of the slowness along a path of nominal duration ``end``.

    Args:
        end: nominal duration, s.
        moving: whether the arm moves at the start; the slowness then starts flat at 1, so that velocity and
            acceleration go on without a step.
    """

    def __init__(self, end: float, moving: bool) -> None:
        self.cells = max(1, int(np.ceil(end / SPACING - 1e-9)))
        self.values = np.ones(self.cells + 2)  # cell j is shaped by values j, j + 1 and j + 2
        self._moving = moving
        self._clock: np.ndarray | None = None

    def raise_to(self, s: np.ndarray, least: np.ndarray) -> None:
        """Make the slowness at least ``least`` [n] near each ``s`` [n], rising and falling gently."""
        cell = np.minimum((s / SPACING).astype(int), self.cells - 1)
        values = self.values
        for shift in range(3):
            np.maximum.at(values, cell + shift, least)
        ramp = np.arange(len(values)) * (STEEPEST * SPACING)
        forward = np.maximum.accumulate(values + ramp) - ramp
        backward = (np.maximum.accumulate((values - ramp)[::-1]))[::-1] + ramp
        np.maximum(forward, backward, out=values)
        if self._moving:  # flat at first, and then no steeper than elsewhere
            np.minimum(values, np.maximum(1.0, 1.0 + ramp - ramp[1]), out=values)
        self._clock = None

    def at(self, s: np.ndarray) -> np.ndarray:
        """Return the slowness [n] at path times [n]."""
        cell = np.minimum((s / SPACING).astype(int), self.cells - 1)
        x = s / SPACING - cell
        c0, c1, c2 = self.values[cell + THREE]
        return (c0 + c1) / 2 + x * ((c1 - c0) + x * (c0 - 2 * c1 + c2) / 2)

    @property
    def unchanged(self) -> bool:
        """Whether the path is played as it is."""
        return bool(self.values.max() == 1.0)

    @property
    def clock(self) -> np.ndarray:
        """Real times [cells + 1] at which the cells begin and end, s."""
        if self._clock is None:
            c = self.values
            self._clock = np.zeros(self.cells + 1)
            np.cumsum((c[:-2] + 4 * c[1:-1] + c[2:]) * (SPACING / 6), out=self._clock[1:])
        return self._clock

    def duration(self, end: float) -> float:
        """Return the real time at which path time ``end`` is reached, s."""
        if self.unchanged:
            return end
        cell = min(self.cells - 1, int(end / SPACING))
        x = end / SPACING - cell
        c0, c1, c2 = self.values[cell : cell + 3].tolist()
        slow = (c0 + c1) / 2 + x * ((c1 - c0) / 2 + x * (c0 - 2 * c1 + c2) / 6)
        return float(self.clock[cell]) + SPACING * x * slow

    def progress(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return path time, rate and its derivative [n] at real times [n]."""
        if self.unchanged:
            return t, np.ones_like(t), np.zeros_like(t)
        clock = self.clock
        t = np.minimum(t, clock[-1])
        cell = np.minimum(np.searchsorted(clock, t, "right") - 1, self.cells - 1)
        c0, c1, c2 = self.values[cell + THREE]
        begin = clock[cell]
        left = (t - begin) / SPACING
        x = (t - begin) / (clock[cell + 1] - begin)
        a, b, c = (c0 + c1) / 2, c1 - c0, c0 - 2 * c1 + c2
        for _ in range(NEWTON):  # on a smooth increasing cubic
            x = x - (x * (a + x * (b / 2 + x * (c / 6))) - left) / (a + x * (b + x * (c / 2)))
        slow = a + x * (b + x * (c / 2))
        return (cell + x) * SPACING, 1.0 / slow, (b + x * c) / (-SPACING * slow**3)


def knot_times(now: float, duration: float, period: float, after: float = 0.0) -> np.ndarray:
    """Return knot times after ``now``: the first 0, one at ``duration``, where the arm rests, others on a grid.

    Plans that share the clock's grid share their knots, so what is kept of the plan in force is kept exactly.
    The knot of the grid that is nearest to the rest gives way to it: no cell is shorter than a quarter period.

    Args:
        duration: of the arm's motion, s.
        period: of the grid, s.
        after: s for which knots go on for the gripper.
    """
    first = period - now % period
    if first < period / 4:
        first += period
    count = max(1, int(np.ceil((duration + after - first) / period - 1e-9)) + 1) + (after > 0)
    times = np.concatenate([[0.0], first + period * np.arange(count)])
    rest = int(np.searchsorted(times, duration - 1e-9))
    if rest > 1 and duration - times[rest - 1] < period / 4:
        rest -= 1
        times = times if after > 0 else times[:-1]
    if rest > 0:
        times[rest] = max(duration, times[rest - 1] + period / 4)
    return times


def scaled(
    path: Path, slowness: Slowness, now: float, period: float, gripper: float, gripper_velocity: float
) -> tuple[Plan, np.ndarray]:
    """Return the plan that plays the path at ``slowness``, and the path times of its knots.

    The gripper follows at its own rate; the knots it needs beyond those of the path have no path time.
    """
    duration = slowness.duration(path.end)
    times = knot_times(now, duration, period, path.last - path.end)
    s, rate, slope = slowness.progress(times)
    over = (s >= path.end - 1e-9) | (times >= duration)
    over[0] = False  # the first knot is the state the arm is in
    s = np.minimum(s, path.end)
    q, qd, qdd = path.evaluate(s)
    if not slowness.unchanged:
        rate, slope = rate[:, None], slope[:, None]
        qd, qdd = qd * rate, qdd * (rate * rate) + qd * slope
    q[over], qd[over], qdd[over] = q[-1], 0.0, 0.0
    wanted = path.gripper(np.where(over, path.end + np.maximum(times - duration, 0.0), s))
    return with_gripper(now, times, q, qd, qdd, wanted, gripper, gripper_velocity, period), s


def with_gripper(
    now: float, times: np.ndarray, q: np.ndarray, qd: np.ndarray, qdd: np.ndarray,
    wanted: np.ndarray, start: float, velocity: float, period: float,
) -> Plan:  # fmt: skip
    """Return the plan whose gripper moves from ``start`` towards ``wanted`` [n], at most at ``velocity``."""
    if start == wanted[-1] and (wanted == start).all():  # it stays where it is
        return Plan(now, times, q, qd, qdd, np.full(len(times), start))
    track, here, last = [start], start, float(wanted[-1])
    for reach, goal in zip((np.diff(times) * velocity).tolist(), wanted[1:].tolist(), strict=True):
        here += min(max(goal - here, -reach), reach)
        track.append(here)
    while abs(last - here) > 1e-9:  # the arm rests while the gripper finishes
        reach = period * velocity
        here += min(max(last - here, -reach), reach)
        track.append(here)
    extra = len(track) - len(times)
    if extra:
        times = np.concatenate([times, times[-1] + period * np.arange(1, extra + 1)])
        q = np.concatenate([q, np.repeat(q[-1:], extra, axis=0)])
        qd = np.concatenate([qd, np.zeros((extra, qd.shape[1]))])
        qdd = np.concatenate([qdd, np.zeros((extra, qd.shape[1]))])
    return Plan(now, times, q, qd, qdd, np.array(track))
