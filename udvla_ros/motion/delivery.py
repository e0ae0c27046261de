"""Plans on their way to the controller: what to send and how, and whether a stop has arrived.

A plan goes out twice, a tick apart: until the lead is over both say the same, and one of them may be lost. A stop is
then watched: the arm must be measured at rest. Where it is not, or where the controller cannot be on the plan in force
(it plays slower than time, by another clock, or somebody else commanded it), the arm is halted from where it is
measured, by one point that the controller makes its own way to; and again, until it stands.
"""

from __future__ import annotations

import numpy as np

from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.measured import Measured
from udvla_ros.motion.plan import NEAR, Plan, Points

BEHIND, FURTHEST = 0.05, 0.5  # s before the driver's time from which knots are sent: it finds the plan it is on
ROOM = 0.08  # s to the first point, for a controller that has to find its own way to the plan
TICK = 0.01  # s between two looks at what is to go out
GENTLE = 0.25  # of the limits, for the controller's way to where commands start
CONFIRM = 0.3  # s after the end of a stop within which the arm must be measured at rest
RUNNING = 0.1  # s for which an arm must have been measured still to count as standing
# Of a quintic between rests over 1 rad in 1 s: its peaks.
PEAK_VELOCITY, PEAK_ACCELERATION, PEAK_JERK = 15 / 8, 10 / np.sqrt(3), 60.0
# Of those that bring a speed of 1 rad/s, and an acceleration of 1 rad/s2, to rest in 1 s; what is left of the latter
# where the former is greatest.
BRAKING, BRAKING_JERK, EASING, EASING_JERK = 1.5, 6.0, 0.4, 9.0
CAREFUL = 0.8  # of the limits, for a halt of an arm whose motion is known by what was measured alone
SERVO = 0.1  # s by which the arm may be behind what its controller plays
LONGER, LONGEST = 1.1, 2.0  # steps in which a halt is made longer, and s up to which


def seconds_for(distance: np.ndarray, limits: Limits, share: float) -> float:
    """Return the time, s, of a quintic between rests over ``distance`` [d] rad that keeps to a share of the limits."""
    by_speed = PEAK_VELOCITY * distance / (share * limits.velocity)
    by_acceleration = np.sqrt(PEAK_ACCELERATION * distance / (share * limits.acceleration))
    return float(max(by_speed.max(), by_acceleration.max()))


def halted(measured: Measured, before: Plan, limits: Limits, now: float) -> Plan:
    """Return the plan from the commanded state to rest a little ahead of where the arm is measured.

    All that is known of a controller that is not on the plan in force is that the arm follows it. The hand is, and
    goes on as in the plan ``before``.
    """
    command, seconds = before.state(now), ROOM
    speed = np.maximum(np.abs(measured.qd), np.abs(command.qd))
    soon = before.sample(now - before.start + np.linspace(0.0, BEHIND, 4))[2]  # the message takes a moment
    force = np.abs(soon).max(axis=0)
    while True:
        goal = np.clip(measured.q + measured.qd * (seconds / 2), limits.hard_lower, limits.hard_upper)
        off = np.minimum(np.abs(goal - command.q - command.qd * (seconds / 2)), SERVO * speed) / seconds
        acceleration = (BRAKING * speed + PEAK_ACCELERATION * off) / seconds + EASING * force
        jerk = (BRAKING_JERK * speed + PEAK_JERK * off) / seconds**2 + EASING_JERK * force / seconds
        if max((acceleration / limits.acceleration).max(), (jerk / limits.jerk).max()) <= CAREFUL or seconds > LONGEST:
            break
        seconds *= LONGER
    still = np.zeros_like(goal)
    way = [np.stack(ends) for ends in zip(command, (goal, still, still), strict=True)]
    arm = Plan(now, np.array([0.0, seconds]), way[0], way[1], way[2], np.zeros(2))
    later = before.times - (now - before.start)
    later = later[(later > NEAR) & (np.abs(later - seconds) > NEAR)]
    times = np.unique(np.concatenate([[0.0, seconds], later]))
    q, qd, qdd = arm.sample(times)
    q[times >= seconds], qd[times >= seconds], qdd[times >= seconds] = goal, 0.0, 0.0
    return Plan(now, times, q, qd, qdd, np.interp(times, before.times - (now - before.start), before.gripper))


class Delivery:
    """See the module. ``settled``: from when on the controller is sure to hold what is commanded, s."""

    def __init__(self, options: ArbiterOptions, limits: Limits, measured: Measured) -> None:
        self._options, self._limits, self._measured = options, limits, measured
        self.settled = -np.inf
        self._plan: Plan | None = None
        self._copies = 0  # of it that are still to go out
        self._points: Points | None = None  # the first of them
        self._on_its_way = False  # whether the controller was sent to where commands start
        self._by_itself = False  # whether it is a halt, to which the controller makes its own way
        self._watched: float | None = None  # end of the stop that has yet to be confirmed
        self._may_hold: list[np.ndarray] | None = []  # what it may hold before commands begin

    def since(self, now: float) -> float:
        """Return the time from which on the controller needs to know the plan: it may be behind by its own clock."""
        return now - min(BEHIND - min(self._measured.clock.offset or 0.0, 0.0), FURTHEST)

    # -- what is to go out -------------------------------------------------------------------------------
    def put(self, plan: Plan, halt: bool = False) -> None:
        """Take the plan that has come into force; ``halt``: the controller is not on the plan before it."""
        self._plan, self._points, self._copies, self._by_itself = plan, None, 1 if halt else 2, halt
        if not halt:
            self._may_hold = None

    def drop(self) -> None:
        """Send nothing of what is waiting, and watch no stop."""
        self._plan, self._copies, self._watched = None, 0, None

    def anew(self, held: np.ndarray | None) -> None:
        """Commands start anew from the measured arm; ``held`` [d] is what the controller held if it lived on."""
        self.drop()
        self._on_its_way = False
        self._may_hold = [] if held is None else [held]

    def leaves(self, now: float) -> float:
        """Return the time after which a new plan may leave the one in force, the lead apart."""
        return max(now, self.settled + TICK) if self._on_its_way else max(now, self.settled)

    def begin(self, q: np.ndarray, now: float) -> None:
        """Note that commands begin from ``q`` [d], and when the controller will have come to it.

        A controller that was started anew holds the arm where it was measured; one that lived on, what it was told
        before. Its own way over the difference keeps to a part of the limits.
        """
        if self._may_hold is not None:
            apart = np.abs(np.array([self._measured.q, *self._may_hold]) - q).max(axis=0)
            self.settled = now + seconds_for(apart, self._limits, GENTLE)

    @property
    def halted(self) -> bool:
        """Whether the last that was sent, or is to go out, is a halt."""
        return self._by_itself

    @property
    def halting(self) -> bool:
        """Whether the arm was halted and has not been measured at rest yet."""
        return self._by_itself and self._watched is not None

    @property
    def begun(self) -> bool:
        """Whether anything was sent since commands started anew."""
        return self._may_hold is None

    def take(self, now: float, late: bool) -> Points | None:
        """Return the message that is due, or None."""
        if not self._copies or self._plan is None:
            return None
        if self._options.stamp_commands and not self._by_itself and self._measured.clock.trouble(at_once=True):
            return None  # by its clock it would be played at another time than it is meant for
        if self._points is None and self._on_its_way and now < self.settled and not self._by_itself:
            return None  # to begin its own way anew would cost the controller a step: what follows can wait
        self._copies -= 1
        if self._points is None:
            self._points = self._made(self._plan, now, late)
        return self._points

    def _made(self, plan: Plan, now: float, late: bool) -> Points:
        if self._by_itself:
            # A single point at its end, from when it comes: it needs no common clock and no common state.
            end = np.array([max(plan.start + plan.rest_time - now, ROOM)])
            return Points(end, plan.q[-1:], plan.qd[-1:], plan.qdd[-1:], plan.gripper[:0])
        if late or not self._options.stamp_commands:
            self._copies = 0
            points = plan.points_after(now, max(ROOM, self.settled - now))
            return points if self._options.stamp_commands else points._replace(stamp=0.0)
        self._on_its_way = self.settled > now
        if self._on_its_way:
            self._copies = 0  # the controller makes the way to where commands start by itself, once
            return plan.points_from(plan.knot_from(self.settled))
        return plan.points_from(max(self.since(now), self.settled))

    # -- whether a stop arrived --------------------------------------------------------------------------
    def watch(self, end: float) -> None:
        """See to it that the arm comes to rest; ``end`` is when the stop is over, s."""
        self._watched = end

    def followed(self) -> None:
        """Watch no longer: somebody moves the arm again."""
        self._watched = None

    def missed(self, now: float) -> bool:
        """Return whether the stop that is watched did not bring the arm to rest."""
        measured = self._measured
        if self._watched is None or now < self._watched:
            return False
        if measured.time > self._watched and measured.still_for(now) > RUNNING:
            self._watched = None
            return False
        return now >= self._watched + CONFIRM and measured.time >= self._watched
