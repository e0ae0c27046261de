"""From points with a stamp to a smooth path that leaves the plan in force without a step.

Points that have elapsed are dropped by time, never by a guess of the latency; they still shape the spline, so
that the motion between two steps of a chunk is the same whenever it arrives. Where the arm has been commanded
less than a chunk supposes (it stood, or was slowed) the chunk is entered at the step the arm has come to, and
not at a later one that it would have to jump to. The plan in force is then ramped out over a short window,
from what was last *commanded*: anchoring to the measured pose drags a lagging arm backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.admission import Request
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.path import BlendPath, Path, PlanPath, SplinePath
from udvla_ros.motion.plan import Plan, State

SHORTEST = 0.02  # s, of a blend: anything shorter is a step
WIDER = (1.0, 2.0)  # windows of the blend that are tried, in units of the option
GRID = 0.01  # s between the places at which a late chunk may be entered
LATE = 0.8  # cost of entering a late chunk one radian before the place that time says, in radians of distance
ENTRIES = ("progress", "time")
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
        entry: ``time`` enters a late chunk where its stamp says; ``progress`` at most as late, where the arm has
            come to.
        tail: s the last point's motion may run on while it slows to rest; 0 ends at rest on the last point.
    """

    blend: float = 0.2
    frozen: float = 0.0
    ensemble: float | None = None
    tail: float = 0.0
    entry: str = "progress"

    def __post_init__(self) -> None:
        if min(self.blend, self.frozen, self.tail) < 0:
            raise ConfigError("stitch blend, frozen and tail are times; give 0 s or more")
        if self.entry not in ENTRIES:
            raise ConfigError(f"stitch entry {self.entry!r} is not one of {', '.join(ENTRIES)}")


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
    # De Boor, A Practical Guide to Splines, chapter IV: accelerations agree at each inner node.
    inner = len(times) - 2
    system = np.zeros((inner, inner + 2))
    rows = np.arange(inner)
    system[rows, rows], system[rows, rows + 1], system[rows, rows + 2] = h[1:], 2.0 * (h[:-1] + h[1:]), h[:-1]
    right = 3.0 * (h[1:, None] * slope[:-1] + h[:-1, None] * slope[1:])
    right -= system[:, :1] * first + system[:, -1:] * last
    v[1:-1] = np.linalg.solve(system[:, 1:-1], right)
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

    @property
    def _gripper(self) -> tuple[float, float]:
        return self.in_force.gripper_at(self.now), float(self.in_force.gripper[-1])

    @cached_property
    def _new(self) -> tuple[float, SplinePath]:
        """When the request sets out, relative to now, and its own path."""
        begin, state = self._origin()
        path = spline(self.request, (begin, state), self.limits, self._gripper, self.options.tail)
        if begin < 0 and self.options.entry == "progress":
            path = path.delayed(-self._entry(path, begin))
        return begin, path

    def _entry(self, path: SplinePath, begin: float) -> float:
        """Return the place of the path, at most the one that time says (0), that suits the command best.

        A place costs its distance from the command, and most of the way the path makes until 0: an arm that
        goes along with the path is met where it is; one that went elsewhere is led to where time says.
        """
        s = np.linspace(0.0, begin, max(2, int(np.ceil(-begin / GRID)) + 1))
        q = path.evaluate(s)[0]
        cost = np.sqrt(((q - self.in_force.state(self.now).q) ** 2).sum(axis=1))
        cost[1:] += LATE * np.cumsum(np.sqrt(((q[1:] - q[:-1]) ** 2).sum(axis=1)))
        return float(s[cost.argmin()])

    def close(self) -> Iterator[Path]:
        """Yield paths that leave the plan in force and keep the request's times."""
        begin, new = self._new
        if self.request.due == 0 and self.options.frozen == 0:
            # All of it lies ahead: it can start at the very state of the plan in force, with nothing to blend.
            # This is what a stream of short commands needs, where a blend would only add its delay.
            yield new if begin == 0.0 else self.afterwards(self.in_force.state(self.now), self._gripper)
        old = PlanPath(self.in_force, self.now)
        for factor in WIDER:
            yield BlendPath(old, new, self.options.frozen, max(self.options.blend, SHORTEST) * factor)

    def braking(self, stop: Plan) -> Iterator[Path]:
        """Yield paths that leave ``stop``, the brake from now, on the way to its rest."""
        old = PlanPath(stop, self.now)
        if old.end > 0:
            yield BlendPath(old, self._new[1], 0.0, old.end)

    def afterwards(self, state: State, gripper: tuple[float, float]) -> Path:
        """Return the path that starts at ``state`` and goes through the points still due."""
        first, given = self.request.due, self.request
        later = Request(
            begin=0.0, times=given.times[first:], q=given.q[first:],
            velocities=None if given.velocities is None else given.velocities[first:],
            gripper=None if given.gripper is None else given.gripper[first:],
        )  # fmt: skip
        return spline(later, (0.0, state), self.limits, gripper, self.options.tail)

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
