"""The one writer to the controller: takes offers, keeps a safe plan in force, knows who may speak.

Free of clocks and of ROS: every call carries ``now`` in seconds on one steady clock, the clock of the stamps.
At every moment a plan is in force that ends at rest, so silence, a crash or a refusal all end in a stop.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.admission import Admission
from udvla_ros.motion.errors import Refused
from udvla_ros.motion.exchange import ArbiterOptions, Event, Heard, Lock, Verdict
from udvla_ros.motion.guards import GUARDS
from udvla_ros.motion.measured import Floats, Measured
from udvla_ros.motion.modes import SOURCES, TRANSITIONS, Mode, Source
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.safety import SafetyFilter
from udvla_ros.motion.stitch import Joining, StitchOptions, ensembled
from udvla_ros.motion.trajectory import Trajectory

KEPT = 1.0  # s for which past plans are kept beyond the greatest age of a stamp
RESOLUTION = 1e-6  # s to which stamps since the epoch can be compared as doubles
STANDING = 1e-6  # rad between two commands that count as the same
SOONEST = 0.005  # s from a message to its first point
GENTLE = 0.25  # of the limits, for the controller's bridge to where commands start
HOLDS_NOTHING = 0.05  # closed fraction up to which a gripper is open


class Arbiter:
    """See the module. Its methods are called from one thread.

    Args:
        robot: the arm.
        options: thresholds; by default those of the robot file.
        stitch: how chunks follow each other.
        safety: the filter, if not the default one of ``robot``.
        sources: table of those who may speak.
    """

    def __init__(
        self,
        robot: RobotDescription,
        options: ArbiterOptions | None = None,
        stitch: StitchOptions | None = None,
        safety: SafetyFilter | None = None,
        sources: dict[str, Source] | None = None,
    ) -> None:
        self.robot, self.options = robot, options or ArbiterOptions.of(robot)
        self.stitch = stitch or StitchOptions()
        self.safety = safety or SafetyFilter(robot, Admission(max_age=self.options.max_age))
        self.sources = {
            name: replace(source, timeout=getattr(self.options, f"{name}_timeout", None) or source.timeout)
            for name, source in (sources or SOURCES).items()
        }
        self.mode, self.mode_reason = Mode.HOLD, "start-up: waiting for joint states"
        self.plan: Plan | None = None
        self.counts: Counter[str] = Counter()
        self.locks: dict[str, Lock] = {}
        self.rivals: dict[str, tuple[float, str]] = {}  # source -> until when it has two writers, and who
        self.settled = -np.inf  # from when on the controller is sure to hold what is commanded
        self._fresh = False  # nothing was sent since commands started from the measured arm
        self.withheld: Plan | None = None  # what the last take() of a dry run kept back
        self.heard = {name: Heard() for name in self.sources}
        self.measured = Measured(robot)
        self._past: deque[tuple[float, Plan]] = deque()
        self._memory = self.safety.admission.max_age + KEPT
        self._events: list[Event] = []
        self._unsent: Plan | None = None
        self._now: float | None = None

    # -- what comes in ---------------------------------------------------------------------------------
    def observe(self, names: Sequence[str], q: Floats, qd: Floats | None, now: float) -> None:
        """Take joint states, by name, some at a time or all. The first at rest give the first command."""
        now = self._advance(now)
        self.measured.update(names, q, qd, now)
        if self.plan is None and not self.measured.why_not_still(now, self.options):
            self._initialise(now)
            self.mode_reason = "start-up"
            self._note("ready", "commands start from the measured arm", now)
        elif self.plan is not None and self.mode is not Mode.STOPPED and not self.options.dry_run:
            error = np.abs(self.measured.q - self.plan.state(now).q)
            if error.max() > (self.options.following_error or np.inf):
                joint = int(error.argmax())
                self.stop(f"{self.robot.joints[joint]} is {error[joint]:.2f} rad from its command", now)

    def offer(self, source: str, trajectory: Trajectory, now: float) -> Verdict:
        """Take a command of ``source`` and, if it passes, put a plan for it in force.

        A refused command changes nothing: the plan in force goes on to its rest.
        """
        now = self._advance(now)
        try:
            verdict = self._consider(source, trajectory, now)
        except Refused as refusal:
            verdict = Verdict(False, str(refusal), refusal.kind, self.plan)
        if source in self.heard:
            self.heard[source].offered = now
        if verdict.accepted:
            self.counts["accepted"] += 1
            for name in verdict.interventions:
                self.counts[f"intervention/{name}"] += 1
            if verdict.interventions:
                self._note("intervention", f"{source}: {', '.join(verdict.interventions)}", now)
        else:
            self.counts[f"refused/{verdict.kind}"] += 1
            self._note("refused", f"{source}: {verdict.kind}: {verdict.reason}", now)
        return verdict

    def engage(self, source: str, now: float) -> Verdict:
        """Give the arm to ``policy`` or ``teleop``, on purpose."""
        now = self._advance(now)
        if source not in self.sources:
            return Verdict(False, f"{source} is not one of {', '.join(self.sources)}", "unknown_source", self.plan)
        return self._change(f"engage_{source}", f"{source} engaged", now, source)

    def hold(self, now: float, reason: str = "hold") -> Verdict:
        """Bring the arm to rest where it is going and take no commands until someone is engaged."""
        return self._change("hold", reason, self._advance(now))

    def stop(self, reason: str, now: float) -> Verdict:
        """Bring the arm to rest and stay stopped until reset; the first reason is kept."""
        return self._change("stop", reason, self._advance(now))

    def lock(self, name: str, held: bool, now: float) -> None:
        """Stop while a lock such as a hardware emergency stop is held; releasing it does not resume.

        With ``lock_timeout`` a lock once heard must go on being heard: its silence counts as pressed.
        """
        now = self._advance(now)
        self.locks[name] = Lock(held, now)
        if held:
            self.stop(f"{name} is pressed", now)

    def contest(self, source: str, reason: str, now: float) -> None:
        """Take the arm from a source with two writers: whom to follow cannot be known. It must be engaged anew."""
        now = self._advance(now)
        self.rivals[source] = (now + self.sources[source].timeout, reason)
        if self.mode is self.sources[source].mode:
            self._change("contested", reason, now)

    def hand_over(self, reason: str, now: float) -> None:
        """Take the arm from the policy, which asks for it; it must be engaged anew. Others keep the arm."""
        now = self._advance(now)
        if self.mode is Mode.POLICY:
            self._change("hand_over", reason, now)

    def stalled(self, seconds: float, now: float) -> None:
        """Stop because nobody called for ``seconds``; the controller played on, so the plan in force still holds."""
        self._now = now
        self._change("stop", f"the arbiter stalled for {seconds:.1f} s; is this machine overloaded?", now, brake=False)

    def clock_stepped(self, seconds: float, now: float) -> None:
        """Stop because the clock was set by ``seconds`` while real time went on; ``now`` is after the step."""
        self._now = now
        self._shift(seconds, now)

    def reset(self, now: float) -> Verdict:
        """Leave STOPPED for HOLD, once the arm stands still; commands start anew from the measured arm."""
        return self._change("reset", "reset", self._advance(now))

    def set_speed(self, fraction: float, now: float) -> Verdict:
        """Use ``fraction`` of the velocity limits from the next command on; only while the arm rests."""
        now = self._advance(now)
        if self.plan is not None and not self.plan.at_rest(now):
            return Verdict(False, "the arm moves; hold it before changing its speed", "moving", self.plan)
        try:
            self.safety.speed = fraction
        except ConfigError as error:
            return Verdict(False, str(error), "speed", self.plan)
        return Verdict(True, f"speed {fraction:.0%}", plan=self.plan)

    # -- what goes out ---------------------------------------------------------------------------------
    def tick(self, now: float) -> list[Event]:
        """Notice silence and the clock; return what happened since the last tick. Call at a steady rate."""
        now = self._advance(now)
        for name, source in self.sources.items():
            heard = self.heard[name]
            last = max(heard.accepted, heard.engaged)
            if self.mode is source.mode and now - last > source.timeout:
                self._change("silence", f"nothing to follow from {name} for {source.timeout:g} s", now)
        active = self.mode in (Mode.POLICY, Mode.TELEOP)
        if active and now - self.measured.time > self.options.joint_state_timeout:
            self._change("blind", f"no joint states for {self.options.joint_state_timeout:g} s", now)
        if self.options.lock_timeout > 0 and self.mode is not Mode.STOPPED:
            for name, lock in self.locks.items():
                if now - lock.heard > self.options.lock_timeout:
                    self._change("stop", f"{name} has been silent for {self.options.lock_timeout:g} s", now)
        while len(self._past) > 1 and self._past[1][0] < now - self._memory:
            self._past.popleft()
        events, self._events = self._events, []
        return events

    def take(self) -> Plan | None:
        """Return the plan to send to the controller if it changed since the last call, else None."""
        plan, self._unsent = self._unsent, None
        self.withheld = plan if self.options.dry_run else None
        return None if self.options.dry_run else plan

    def points(self, plan: Plan, now: float, least: float = SOONEST) -> tuple[np.ndarray, ...]:
        """Return what a message that sends ``plan`` carries, see :meth:`Plan.points`.

        Nothing comes before ``least`` s: the controller makes the way to the first point by itself.
        """
        return plan.points(now, max(least, self.settled - now))

    def state(self, now: float) -> State | None:
        """Return the commanded arm state at ``now``; None before the first joint states."""
        return None if self.plan is None else self.plan.state(now)

    def past(self, t: float) -> tuple[State, float] | None:
        """Return what was commanded at ``t``: arm state and gripper joint; None where forgotten."""
        for since, plan in reversed(self._past):
            if since <= t + RESOLUTION:
                return plan.state(t), plan.gripper_at(t)
        return None

    # -- inside ----------------------------------------------------------------------------------------
    def _consider(self, name: str, trajectory: Trajectory, now: float) -> Verdict:
        if name not in self.sources:
            raise Refused("unknown_source", f"{name} is not one of {', '.join(self.sources)}")
        if self.plan is None:
            raise Refused("not_ready", self.mode_reason)
        if self._contested(name, now):
            raise Refused("two_writers", self.rivals[name][1])
        source, heard = self.sources[name], self.heard[name]
        if source.takes_over and self._outranks(source):
            self._change("touch", f"{name} took over" if self.mode is Mode.POLICY else f"{name} spoke", now, name)
        if self.mode is not source.mode:
            raise Refused("not_engaged", f"mode is {self.mode.value} ({self.mode_reason}); engage {name} first")
        if self._fresh:
            self._fresh, self.settled = False, now + self._settling(now)
        at = max(self._leave(now), self.settled)
        request = self.safety.check(trajectory, self.plan.state(at), at, self._stood(trajectory.stamp, at))
        if trajectory.stamp < heard.stamp - RESOLUTION:
            raise Refused("out_of_order", f"older than the last one accepted by {heard.stamp - trajectory.stamp:.3f} s")
        if not source.takes_over and trajectory.stamp < heard.engaged - RESOLUTION:
            raise Refused("before_engagement", f"made from what was seen before {name} was engaged; send a newer one")
        in_force = self.plan
        if self.stitch.ensemble is not None:
            older = [chunk for chunk in heard.recent if now - chunk[0] < self._memory]
            heard.recent = [*older, (now, request.times + at, request.q)]
            request = ensembled(request, older, at, self.stitch.ensemble)
        options = replace(self.stitch, frozen=max(self.stitch.frozen - self.stitch.lead, 0.0))
        if source.tail is not None:
            options = replace(options, tail=source.tail, frozen=0.0)
        joining = Joining(request, in_force, at, self.past, self.safety.limits, options)
        outcome = self.safety.plan(joining, in_force, at)
        heard.accepted, heard.stamp = now, trajectory.stamp
        self._put(outcome.plan, now)
        return Verdict(True, plan=self.plan, interventions=outcome.interventions)

    def _settling(self, now: float) -> float:
        """Return the seconds that the controller is given to come to where commands start.

        A controller that was started anew holds the arm where it was measured, not where it was commanded. How far
        that is at most is seen from the arm; the controller's bridge over it keeps to a part of the limits.
        """
        limits = self.robot.limits
        error = np.abs(self.measured.q - self.plan.state(now).q) if self.plan is not None else np.zeros(1)
        by_speed, by_acceleration = error / (GENTLE * limits.velocity), error / (GENTLE * limits.acceleration)
        # A quintic between rests over one second peaks at 15/8 and 10/sqrt(3) of its distance.
        return float(max((15 / 8 * by_speed).max(), np.sqrt(10 / np.sqrt(3) * by_acceleration).max()))

    def _stood(self, stamp: float, now: float) -> bool:
        """Return whether the arm has been commanded to stand since ``stamp``."""
        if self.plan is None or not self.plan.at_rest(now) or not np.isfinite(stamp):
            return False
        before = self.past(stamp)
        return before is not None and np.abs(before[0].q - self.plan.state(now).q).max() < STANDING

    def _contested(self, name: str, now: float) -> bool:
        """Return whether a source had two writers a moment ago."""
        return name in self.rivals and now < self.rivals[name][0]

    def _outranks(self, source: Source) -> bool:
        active = next((s for s in self.sources.values() if s.mode is self.mode), None)
        return self.mode is Mode.HOLD or (active is not None and source.priority > active.priority)

    def _change(self, event: str, reason: str, now: float, source: str | None = None, brake: bool = True) -> Verdict:
        """Go through the transition table; the only place that changes the mode."""
        target = TRANSITIONS.get((self.mode, event))
        if target is None:
            return Verdict(False, f"{event} does nothing in {self.mode.value} ({self.mode_reason})", "mode", self.plan)
        guard = GUARDS.get(event)
        if source is not None and self._contested(source, now):
            return Verdict(False, self.rivals[source][1], "two_writers", self.plan)
        why_not = guard(self, now) if guard else ""
        if guard and why_not:
            return Verdict(False, why_not, guard.__name__, self.plan)
        if event == "reset":
            self._initialise(now)
        if source is not None and target is not self.mode:
            self.heard[source].engaged = now
            self.heard[source].recent.clear()
        # Who lets go stops first, except at silence, where the plan's own end is the stop.
        if brake and event != "silence" and not (event.startswith("engage") and target is self.mode):
            self._brake(now)
        if target is self.mode:
            if source is not None:
                self.heard[source].accepted = now
            return Verdict(True, f"already {target.value} ({self.mode_reason})", plan=self.plan)
        self.mode, self.mode_reason = target, reason
        self._note("mode", f"{target.value}: {reason}", now)
        return Verdict(True, reason, plan=self.plan)

    def _brake(self, now: float) -> None:
        if self.plan is not None and now < self.plan.end:
            self._put(self.safety.brake(self.plan, self._leave(now)), now)

    def _leave(self, now: float) -> float:
        """Return when a new plan leaves the one in force."""
        if self.plan is None or self.stitch.lead <= 0.0:
            return now
        return max(now, self.plan.switch_near(now + self.stitch.lead))

    def _put(self, plan: Plan, now: float) -> None:
        """Put a plan in force that leaves the present one a moment from now: until then both are the same motion."""
        if self.plan is not None and plan is not self.plan:
            self.plan = self._unsent = plan.following(self.plan, now)
            self._past.append((now, self.plan))

    def _initialise(self, now: float) -> None:
        q, gripper, hand = self.measured.q, self.measured.gripper, self.robot.gripper
        if self.plan is not None:
            commanded = self.plan.state(now).q
            if np.abs(q - commanded).max() < self.options.lag:
                q = commanded  # the controller still holds this; the servo's lag is no reason for a step
            if hand is not None and hand.fraction(gripper) > HOLDS_NOTHING:
                gripper = self.plan.gripper_at(now)  # it may hold something: the tighter command goes on
        self.plan = Plan.rest(q, gripper, now)
        self._unsent = None  # the controller already holds the arm where it is measured
        self._fresh = True
        self._past.clear()
        self._past.append((now, self.plan))

    def _advance(self, now: float) -> float:
        """Return the time to work with; a clock that jumped stops the arm on the plan it already has."""
        if not np.isfinite(now):
            raise ValueError(f"now is {now}; give seconds on one steady clock")
        last, self._now = self._now, now
        # At zero is a simulated clock that has not been told the time.
        if last is None or last <= 0.0 or last <= now <= last + self.options.clock_jump:
            return now
        if last - self.options.clock_back <= now < last:
            self._now = last
            return last
        self._shift(now - last, now)
        return now

    def _shift(self, seconds: float, now: float) -> None:
        """Stop on the plan in force, moved along with the clock, and forget all that carries its old time."""
        # What the controller makes of the step is unknown, so nothing new is sent: it ends the plan it has.
        if self.plan is not None:
            self.plan = self.plan.shifted(seconds)
            self._unsent = None
            self._past.clear()
            self._past.append((now, self.plan))
        self.measured.forget()
        self.rivals.clear()
        self.settled += seconds
        for lock in self.locks.values():
            lock.heard = now
        for heard in self.heard.values():
            heard.offered = heard.accepted = heard.stamp = heard.engaged = -np.inf
        text = f"the clock jumped by {seconds:+.2f} s"
        self._note("clock", text, now)
        self._change("stop", text, now, brake=False)

    def _note(self, kind: str, text: str, now: float) -> None:
        self._events.append(Event(now, kind, text))
