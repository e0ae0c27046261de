"""From points with a stamp to a smooth path that leaves the plan in force without a step.

Points that have elapsed are dropped by time, never by guess; they still shape the spline, so that the motion
between two steps of a chunk is the same whenever it arrives. The plan in force is then ramped out over a
short window, from what was last *commanded*: anchoring to the measured pose drags a lagging arm backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from udvla_ros.motion.admission import Request
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.path import BlendPath, Path, PlanPath, SplinePath
from udvla_ros.motion.plan import Plan, State

WIDER = (1.0, 2.0, 4.0)  # windows of the blend that are tried, in units of the option
CRUISE = 0.8  # fraction of the velocity limit a straight segment may need on average; the spline peaks above it


@dataclass(frozen=True)
class StitchOptions:
    """How chunks follow each other.

    Attributes:
        blend: window over which the plan in force is ramped out, s.
        frozen: time for which the plan in force goes on unchanged before the ramp starts, s: the steps that
            will have played before the next chunk arrives (receding horizon is 0).
        ensemble: weight exponent of temporal ensembling (Zhao et al. 2023, ACT): each point is averaged with
            what older chunks of the same source say of its time, weighted ``exp(-ensemble * age rank)`` with
            the oldest first; None is off.
        tail: s the last point's motion may run on while it slows to rest; 0 ends at rest on the last point.
    """

    blend: float = 0.1
    frozen: float = 0.0
    ensemble: float | None = None
    tail: float = 0.0


def node_velocities(times: np.ndarray, q: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return velocities [m, d] at the nodes of the cubic spline that is smooth to the acceleration.

    Args:
        times: node times [m], s.
        q: node positions [m, d].
        first, last: velocities at both ends [d].
    """
    h = np.diff(times)
    slope = np.diff(q, axis=0) / h[:, None]
    v = np.empty_like(q)
    v[0], v[-1] = first, last
    if len(times) == 2:
        return v
    # Tridiagonal system of de Boor (A Practical Guide to Splines, chapter IV), solved by Thomas' algorithm.
    right = 3.0 * (h[1:, None] * slope[:-1] + h[:-1, None] * slope[1:])
    right[0] -= h[1] * first
    right[-1] -= h[-2] * last
    diagonal, above = 2.0 * (h[:-1] + h[1:]), h[:-1]
    ratio = np.empty(len(diagonal))
    for k in range(len(diagonal)):
        pivot = diagonal[k] - (h[k + 1] * ratio[k - 1] if k else 0.0)
        ratio[k] = above[k] / pivot
        right[k] = (right[k] - (h[k + 1] * right[k - 1] if k else 0.0)) / pivot
    v[-2] = right[-1]
    for k in range(len(diagonal) - 2, -1, -1):
        v[k + 1] = right[k] - ratio[k] * v[k + 2]
    return v


def node_accelerations(times: np.ndarray, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return accelerations [m, d] at the nodes of cubic cells, the mean of both sides where there are two."""
    h = np.diff(times)[:, None]
    slope = np.diff(q, axis=0) / h
    after = (6 * slope - 4 * v[:-1] - 2 * v[1:]) / h
    before = (-6 * slope + 2 * v[:-1] + 4 * v[1:]) / h
    return np.concatenate([after[:1], (before[:-1] + after[1:]) / 2, before[-1:]])


def stretched(times: np.ndarray, q: np.ndarray, limits: Limits) -> np.ndarray:
    """Return node times [m] moved later where a straight segment would need more than the velocity limits."""
    h = np.diff(times)
    least = (np.abs(np.diff(q, axis=0)) / (CRUISE * limits.velocity)).max(axis=1)
    return times[0] + np.concatenate([[0.0], np.cumsum(np.maximum(h, least))])


def spline(
    request: Request,
    origin: tuple[float, State],
    limits: Limits,
    gripper: tuple[float, float],
    tail: float = 0.0,
) -> SplinePath:
    """Return the path from ``origin`` (time relative to now, state commanded then) through the points.

    Points due before the origin are left out. The path ends at rest, on the last point or ``tail`` after it.
    ``gripper`` is where its joint is, and where it goes if the request does not say.
    """
    begin, state = origin
    use = request.times > begin + 1e-3
    q = np.concatenate([state.q[None], request.q[use]])
    times = stretched(np.concatenate([[begin], request.times[use]]), q, limits)
    last = np.zeros_like(state.q)
    if tail > 0:
        last = (q[-1] - q[-2]) / (times[-1] - times[-2]) / 2  # already slowing, so that little is overshot
    v = node_velocities(times, q, state.qd, last)
    if request.velocities is not None:
        v[1:] = request.velocities[use]
        v[-1] *= 1.0 if tail > 0 else 0.0
    a = node_accelerations(times, q, v)
    a[0], a[-1] = state.qdd, 0.0
    if tail > 0:
        times = np.append(times, times[-1] + tail)
        q = np.concatenate([q, q[-1:] + v[-1] * (tail / 2)])
        v, a = np.concatenate([v, 0 * v[:1]]), np.concatenate([a, 0 * a[:1]])
    wanted = np.full(len(times), gripper[1])
    if request.gripper is not None:
        wanted[0], wanted[1 : 1 + use.sum()] = gripper[0], request.gripper[use]
        wanted[1 + use.sum() :] = request.gripper[-1]
    return SplinePath(times, q, v, a, (times, wanted))


@dataclass(frozen=True, eq=False)
class Joining:
    """The ways from the plan in force to one request, the closest first.

    Attributes:
        request: where to go.
        in_force: the plan to leave, now.
        now: s.
        past: commanded state and gripper at an earlier time, None where forgotten.
        limits: of the joints.
        options: blend and tail.
    """

    request: Request
    in_force: Plan
    now: float
    past: Callable[[float], tuple[State, float] | None]
    limits: Limits
    options: StitchOptions

    @cached_property
    def _new(self) -> tuple[float, Path]:
        """When the request sets out, relative to now, and its own path."""
        begin, state = self._origin()
        gripper = (self.in_force.gripper_at(self.now), float(self.in_force.gripper[-1]))
        return begin, spline(self.request, (begin, state), self.limits, gripper, self.options.tail)

    def close(self) -> Iterator[Path]:
        """Yield paths that leave the plan in force and keep the request's times."""
        begin, new = self._new
        if begin == 0.0 and self.options.frozen == 0:
            yield new  # it starts at the very state of the plan in force: nothing to blend
        old = PlanPath(self.in_force, self.now)
        for factor in WIDER:
            yield BlendPath(old, new, self.options.frozen, self.options.blend * factor)

    def braking(self, stop: Plan) -> Iterator[Path]:
        """Yield paths that leave ``stop``, the brake from now, on the way to its rest."""
        old = PlanPath(stop, self.now)
        if old.end > 0:
            yield BlendPath(old, self._new[1], 0.0, old.end)

    def afterwards(self, rest: State, gripper: tuple[float, float]) -> Path:
        """Return the path that starts at ``rest``, later, and goes through the points that are due now."""
        first, given = self.request.due, self.request
        later = Request(
            begin=0.0, times=given.times[first:], q=given.q[first:],
            velocities=None if given.velocities is None else given.velocities[first:],
            gripper=None if given.gripper is None else given.gripper[first:],
        )  # fmt: skip
        return spline(later, (0.0, rest), self.limits, gripper, self.options.tail)

    def _origin(self) -> tuple[float, State]:
        """Return where the request sets out: the command at its stamp, or what is known instead."""
        begin = self.request.begin
        before = self.past(self.now + begin) if begin < -1e-3 else None
        if before is not None:
            return begin, before[0]
        if self.request.due > 0:  # the stamp is forgotten: the elapsed points themselves say where it was
            still = np.zeros_like(self.request.q[0])
            return float(self.request.times[0]), State(self.request.q[0], still, still)
        return 0.0, self.in_force.state(self.now)


def ensembled(
    request: Request, older: list[tuple[float, np.ndarray, np.ndarray]], now: float, exponent: float
) -> Request:
    """Return the request with each point averaged with what older chunks say of its time.

    Args:
        older: (time of arrival, due times [n] on the clock, positions [n, d]) of each, the oldest first.
        exponent: weights are ``exp(-exponent * rank)``, rank 0 the oldest: larger trusts the oldest more.
    """
    total, weight = np.zeros_like(request.q), np.zeros((len(request.times), 1))
    series = [(due - now, q) for _, due, q in older] + [(request.times, request.q)]
    for rank, (times, q) in enumerate(series):
        says = (request.times >= times[0] - 1e-9) & (request.times <= times[-1] + 1e-9)
        part = np.stack([np.interp(request.times, times, column) for column in q.T], axis=1)
        share = np.exp(-exponent * rank) * says[:, None]
        total, weight = total + share * part, weight + share
    return replace(request, q=total / weight, velocities=None)
