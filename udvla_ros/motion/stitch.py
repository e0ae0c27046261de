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
from udvla_ros.motion.path import BlendPath, BridgePath, Derivatives, Path, PlanPath, SplinePath, difference
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.spline import spline

SHORTEST = 0.02  # s, of a blend: anything shorter is a step
FIXED = 0.08  # s that the plan in force must go on for the rest to be bridged at once instead of blended
SHARE = 0.5  # of the acceleration and jerk limits that each part of a bridge may take; it is made longer otherwise
WIDER = (1.0, 2.0, 4.0)  # windows of the blend that are tried, in units of the option
GRID = 0.01  # s between the places at which a late chunk may be entered
LATE = 0.8  # cost of entering a late chunk one radian before the place that time says, in radians of distance
ENTRIES = ("progress", "time")


@dataclass(frozen=True)
class StitchOptions:
    """How chunks follow each other.

    Attributes:
        blend: window over which the plan in force is ramped out, s; up to four times that where the limits ask for it.
        frozen: time for which the plan in force goes on unchanged before the ramp starts, s: the steps that
            will have played before the next chunk arrives.
        lead: time for which every new plan, a stop too, goes on along the one in force, s: a message that takes less
            to the controller undoes nothing that has been played. It counts as part of ``frozen``.
        ensemble: weight exponent of temporal ensembling (Zhao et al. 2023, ACT): each point is averaged with
            what older chunks of the same source say of its time, weighted ``exp(-ensemble * age rank)`` with
            the oldest first; None is off.
        entry: ``time`` enters a late chunk where its stamp says; ``progress`` at most as late, where the arm has
            come to.
        horizon: s after its stamp up to which a chunk is followed (receding horizon): later points, the least sure
            ones, are left out, and the arm rests there if no other chunk comes; None follows all of it. The next
            point due is always followed.
        tail: s the last point's motion may run on while it slows to rest; 0 ends at rest on the last point.
    """

    blend: float = 0.25
    frozen: float = 0.0
    lead: float = 0.0
    ensemble: float | None = None
    horizon: float | None = None
    tail: float = 0.0
    entry: str = "progress"

    def __post_init__(self) -> None:
        if min(self.blend, self.frozen, self.lead, self.tail) < 0:
            raise ConfigError("stitch blend, frozen, lead and tail are times; give 0 s or more")
        if self.horizon is not None and not self.horizon > 0:
            raise ConfigError(f"stitch horizon is {self.horizon:g} s; give more than 0, or leave it out")
        if self.entry not in ENTRIES:
            raise ConfigError(f"stitch entry {self.entry!r} is not one of {', '.join(ENTRIES)}")


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
        cap: s after now beyond which nothing is planned.
    """

    request: Request
    in_force: Plan
    now: float
    past: Callable[[float], tuple[State, float] | None]
    limits: Limits
    options: StitchOptions
    cap: float = np.inf

    @cached_property
    def _asked(self) -> Request:
        """The request as far as it is followed."""
        return self.request if self.options.horizon is None else receding(self.request, self.options.horizon)

    @property
    def _gripper(self) -> tuple[float, float]:
        return self.in_force.gripper_at(self.now), float(self.in_force.gripper[-1])

    @cached_property
    def _new(self) -> tuple[float, SplinePath]:
        """When the request sets out, relative to now, and its own path."""
        begin, state = self._origin()
        path = spline(self._asked, (begin, state), self.limits, self._gripper, self.options.tail, self.cap)
        if begin < 0 and self.options.entry == "progress":
            path = path.delayed(-self._entry(path, begin))
        return begin, path

    def _entry(self, path: SplinePath, begin: float) -> float:
        """Return the place of the path, at most the one that time says (0), that suits the command best.

        A place costs its distance from the command, and most of the way the path makes until 0: an arm that
        goes along with the path is met where it is; one that went elsewhere is led to where time says.
        """
        cells = max(1, int(np.ceil(-begin / GRID)))
        s = np.arange(cells + 1) * (begin / cells)
        q = path.evaluate(s)[0]
        away, step = q - self.in_force.state(self.now).q, q[1:] - q[:-1]
        cost = np.sqrt(np.einsum("ij,ij->i", away, away))
        cost[1:] += LATE * np.cumsum(np.sqrt(np.einsum("ij,ij->i", step, step)))
        return float(s[cost.argmin()])

    def close(self) -> Iterator[Path]:
        """Yield paths that leave the plan in force and keep the request's times."""
        begin, new = self._new
        if self._asked.due == 0 and self.options.frozen == 0:
            # All of it lies ahead: it can start at the very state of the plan in force, with nothing to blend.
            # This is what a stream of short commands needs, where a blend would only add its delay.
            yield new if begin == 0.0 else self.afterwards(self.in_force.state(self.now), self._gripper)
        old = PlanPath(self.in_force, self.now)
        frozen, window = self.options.frozen, max(self.options.blend, SHORTEST)
        if frozen >= FIXED:
            apart = difference(old, new, frozen)
            yield BridgePath(old, new, frozen, min(max(window, gentle(apart, self.limits)), WIDER[-1] * window), apart)
        for factor in WIDER if frozen < FIXED else WIDER[1:]:
            yield BlendPath(old, new, frozen, window * factor)

    def braking(self, stop: Plan) -> Iterator[Path]:
        """Yield paths that leave ``stop``, the brake from now, on the way to its rest."""
        old = PlanPath(stop, self.now)
        if old.end > 0:
            yield BlendPath(old, self._new[1], 0.0, old.end)

    def afterwards(self, state: State, gripper: tuple[float, float]) -> Path:
        """Return the path that starts at ``state`` and goes through the points still due."""
        first, given = self._asked.due, self._asked
        later = Request(
            begin=0.0, times=given.times[first:], q=given.q[first:],
            velocities=None if given.velocities is None else given.velocities[first:],
            gripper=None if given.gripper is None else given.gripper[first:],
        )  # fmt: skip
        return spline(later, (0.0, state), self.limits, gripper, self.options.tail, self.cap)

    def _origin(self) -> tuple[float, State]:
        """Return where the request sets out: the command at its stamp, or what is known instead."""
        begin = self._asked.begin
        before = self.past(self.now + begin) if begin < -1e-3 else None
        if before is not None:
            return begin, before[0]
        if self._asked.due > 0:  # the stamp is forgotten: the elapsed points themselves say where it was
            still = np.zeros_like(self._asked.q[0])
            return float(self._asked.times[0]), State(self._asked.q[0], still, still)
        return 0.0, self.in_force.state(self.now)


def gentle(apart: Derivatives, limits: Limits) -> float:
    """Return the time, s, in which a difference of state may vanish: each part of it gets ``SHARE`` of the limits.

    The factors are the greatest second and third derivatives of the quintics that bring (1, 0, 0), (0, 1, 0) and
    (0, 0, 1) to zero in a second.
    """
    d, d1, d2 = np.abs(apart)[:, 0] / SHARE
    force, jerk = limits.acceleration, limits.jerk
    times = np.sqrt(5.78 * d / force), 3.95 * d1 / force, np.cbrt(60 * d / jerk), np.sqrt(36 * d1 / jerk), 9 * d2 / jerk
    return float(np.max(times))


def receding(request: Request, horizon: float) -> Request:
    """Return the request up to ``horizon`` s after its stamp, at least up to the first point still due."""
    count = int(np.searchsorted(request.times, request.begin + horizon + 1e-6, "right"))
    count = max(count, request.due + 1)
    return replace(
        request, times=request.times[:count], q=request.q[:count],
        velocities=None if request.velocities is None else request.velocities[:count],
        gripper=None if request.gripper is None else request.gripper[:count],
    )  # fmt: skip


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
