"""The safety filter: whatever is asked, what leaves is a plan within every limit that ends at rest.

A request is slowed along its path, for all joints by one common time-scaling, where it asks for more
velocity, acceleration, jerk or TCP speed than allowed. Where its path leaves the position bounds or the
workspace, all joints halt together on the path, before the bound. Every plan is verified as it will be sent,
and one that fails never leaves: the next, more careful way of joining it is tried, and in the end the arm
brakes.

This is not a safety-rated function. It keeps commands sane; people are kept safe by the robot's controller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from udvla_ros.motion.admission import Admission, Request, admit
from udvla_ros.motion.braking import stops
from udvla_ros.motion.envelope import CYCLE, Envelope
from udvla_ros.motion.path import BoundedPath, Path, StillPath
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import Joining
from udvla_ros.motion.timescale import SPACING, Slowness, scaled
from udvla_ros.motion.trajectory import Trajectory

PERIOD = 0.02  # s between knots, and so between points of the message
ROUNDS = 5  # times a path is slowed further before it is given up
AIM = np.array([[0.95], [0.9], [0.75]])  # parts of the velocity, acceleration and jerk limits that slowing aims at
NOTED = 0.05  # s of delay at the end from which on a request counts as slowed
HALT = 0.3  # s of nominal time over which a path is brought to rest before a bound
ABRUPT = 1.1  # slowness needed at the very start above which a moving arm needs a gentler path: it starts at 1
SLOWEST = 60.0  # a path that would have to be played slower than this is given up
AHEAD = {"position", "workspace", "collision"}  # violations that a halt on the way avoids
ROOM = 1e-4  # rad and m kept from a bound when halting


@dataclass(frozen=True, eq=False)
class Outcome:
    """A plan, and what had to be done to the request, by class.

    ``slowed``: played slower than asked; ``position``, ``workspace``, ``collision``: halted before it; ``restarted``:
    brought to rest first; ``braked``: brought to rest and not followed.
    """

    plan: Plan
    interventions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Departure:
    """Where a plan sets out from: what it must obey, when, whether the arm moves, where the gripper is."""

    envelope: Envelope
    now: float
    moving: bool
    gripper: float


class SafetyFilter:
    """Checks requests and makes plans of them for one robot.

    Args:
        robot: its limits, workspace, kinematics and gripper.
        admission: bounds on what a source may send.
        speed: fraction of the velocity limits in use; may be changed while the arm is at rest.
    """

    def __init__(self, robot: RobotDescription, admission: Admission | None = None, speed: float = 1.0) -> None:
        self.robot, self.admission = robot, admission or Admission()
        self.speed = speed

    @property
    def speed(self) -> float:
        """Fraction of the velocity limits in use, above 0 and at most 1."""
        return self._speed

    @speed.setter
    def speed(self, fraction: float) -> None:
        self.limits = self.robot.limits.at_speed(fraction)
        self._speed = fraction

    def check(self, request: Trajectory, command: State, now: float, stood: bool = False) -> Request:
        """Return the request in the robot's joint order, relative to ``now``.

        Args:
            command: commanded state at ``now``.
            stood: whether the arm has stood still since the request's stamp.

        Raises:
            Refused: see :func:`udvla_ros.motion.admission.admit`.
        """
        return admit(self.robot, request, now, command, self.admission, stood)

    def plan(self, joining: Joining, in_force: Plan, now: float) -> Outcome:
        """Return the closest way of joining a request that keeps the limits; the brake where there is none.

        Args:
            joining: the ways from ``in_force`` at ``now``.
            in_force: a plan of this filter.
        """
        start = self._departure(in_force, now)
        for path in joining.close():
            outcome = self._fit(path, start)
            if outcome is not None:
                return outcome
        stop = self.brake(in_force, now)
        for path in joining.braking(stop) if start.moving else ():
            outcome = self._fit(path, start)
            if outcome is not None:
                return outcome
        return self._restart(joining, stop, start)

    def brake(self, in_force: Plan, now: float) -> Plan:
        """Return the quickest stop along ``in_force``; ``in_force`` itself where nothing ends sooner."""
        if in_force.at_rest(now):
            if now >= in_force.end:
                return in_force
            return Plan.rest(in_force.state(now).q, in_force.gripper_at(now), now)
        start = self._departure(in_force, now, full_speed=True)
        for path in stops(in_force, now, start.envelope.limits):
            plan, _ = self._played(path, Slowness(path.end, True), start)
            effort = start.envelope.effort(plan)
            if effort.max() <= 1.0 and not start.envelope.violations(plan, effort):
                return plan
        return in_force

    def envelope(self, in_force: Plan, now: float, full_speed: bool = False) -> Envelope:
        """Return what every plan from the state of ``in_force`` at ``now`` on must obey."""
        limits = self.robot.limits if full_speed else self.limits
        robot = self.robot
        return Envelope.around(in_force.state(now), limits, robot.workspace, robot.kinematics, robot.capsules)

    def _departure(self, plan: Plan, now: float, full_speed: bool = False) -> Departure:
        envelope = self.envelope(plan, now, full_speed)
        return Departure(envelope, now, not plan.at_rest(now), plan.gripper_at(now))

    def _played(self, path: Path, slowness: Slowness, start: Departure) -> tuple[Plan, np.ndarray]:
        rate = self.robot.gripper.max_velocity if self.robot.gripper else 1.0
        return scaled(path, slowness, start.now, PERIOD, start.gripper, rate)

    def _restart(self, joining: Joining, stop: Plan, start: Departure) -> Outcome:
        """Return the plan that first comes to rest and then follows the request, late; or only the first."""
        begin = stop.start + stop.rest_time if start.moving else start.now
        again = replace(self._departure(stop, begin), moving=False)
        path = joining.afterwards(stop.state(begin), (again.gripper, float(stop.gripper[-1])))
        outcome = self._fit(path, again)
        if outcome is None:
            return Outcome(stop, ("braked",))
        if not start.moving:
            return outcome
        return Outcome(stop.then(outcome.plan), ("restarted", *outcome.interventions))

    def _fit(self, path: Path, start: Departure) -> Outcome | None:
        """Return the path within the limits, or None if slowing and halting it does not do."""
        plan, found, slowed = self._slow(path, start)
        if not AHEAD.isdisjoint(found):
            return self._halt(path, start)
        return None if plan is None or found else Outcome(plan, slowed)

    def _halt(self, path: Path, start: Departure) -> Outcome | None:
        """Return the part of the path before it leaves bounds, workspace or clearances, brought to rest there."""
        s = np.linspace(0.0, path.end, max(2, int(np.ceil(path.end / CYCLE)) + 1))
        q = path.evaluate(s)[0]
        excess = start.envelope.outside(q)
        worst = np.max(list(excess.values()), axis=0)
        outside = np.nonzero(worst > -ROOM)[0]
        first = outside[worst[outside] > 0][:1]
        if not first.size:
            return None
        names = tuple(name for name, values in excess.items() if (values > 0).any())
        clear = np.setdiff1d(np.arange(first[0]), outside, assume_unique=True)
        last = float(s[clear[-1]]) if clear.size else 0.0
        if last == 0.0 and start.moving:
            return None
        halted: Path = StillPath(q[0], path)
        if last > 0.0:
            duration = min(HALT, 2.0 * last)
            halted = BoundedPath(path, last - duration / 2, duration)
        plan, found, slowed = self._slow(halted, start)
        return None if plan is None or found else Outcome(plan, (*names, *slowed))

    def _slow(self, path: Path, start: Departure) -> tuple[Plan | None, dict[str, float], tuple[str, ...]]:
        """Return the path played as slowly as it takes, what that still violates, and the intervention.

        Each round plays the path, sees where it asks for too much, and makes it slower there.
        """
        envelope, slowness = start.envelope, Slowness(path.end, start.moving)
        for attempt in range(ROUNDS):
            plan, s = self._played(path, slowness, start)
            effort = envelope.effort(plan)
            keeps = effort.max() <= 1.0
            if keeps:
                found = envelope.violations(plan, effort)
                if set(found) != {"tcp_speed"}:
                    late = slowness.duration(path.end) - path.end
                    return plan, found, ("slowed",) if late > NOTED else ()
            parts = effort[:, : len(s) - 1]  # beyond, only the gripper moves
            if keeps or (attempt == 0 and envelope.hurries(plan)):
                np.maximum(parts[0], envelope.tcp_effort(plan, envelope.tcp(plan))[: len(s) - 1], out=parts[0])
            factor, before = _factor(parts), slowness.values.copy()
            if start.moving and factor[s[:-1] < SPACING].max() > ABRUPT:
                break
            middle = (s[:-1] + s[1:]) / 2
            slowness.raise_to(middle, np.where(factor > 1.0, factor * slowness.at(middle), 1.0))
            if slowness.values.max() > SLOWEST or (slowness.values == before).all():
                break
        return None, {}, ()


def _factor(effort: np.ndarray) -> np.ndarray:
    """Return by which factor to slow [n], given velocity, acceleration and jerk as parts of the limits [3, n]."""
    factors = np.where(effort > 1.0, effort / AIM, 1.0)
    np.sqrt(factors[1], out=factors[1])
    np.cbrt(factors[2], out=factors[2])
    return factors.max(axis=0)
