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
from udvla_ros.motion.delivery import Delivery, halted
from udvla_ros.motion.errors import Refused
from udvla_ros.motion.exchange import ArbiterOptions, Event, Heard, Lock, Verdict
from udvla_ros.motion.guards import GUARDS
from udvla_ros.motion.measured import AHEAD, Floats, Measured
from udvla_ros.motion.modes import IMPEDIMENTS, SOURCES, TRANSITIONS, Mode, Source
from udvla_ros.motion.plan import Plan, Points, State
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.safety import PERIOD, SafetyFilter
from udvla_ros.motion.stitch import Joining, StitchOptions, ensembled
from udvla_ros.motion.timescale import with_gripper
from udvla_ros.motion.trajectory import Trajectory

KEPT = 1.0  # s for which past plans are kept beyond the greatest age of a stamp
RESOLUTION = 1e-6  # s to which stamps since the epoch can be compared as doubles
STANDING = 1e-6  # rad between two commands that count as the same
BEYOND = 0.6  # s for which a command is planned beyond the silence that ends it: time to brake, and for a late tick
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
        self.impediments: dict[str, str] = {}  # name, as in IMPEDIMENTS -> reason
        self.withheld: Points | None = None  # what the last take() of a dry run kept back
        self.heard = {name: Heard() for name in self.sources}
        self.measured = Measured(robot, self.options.still)
        self._delivery = Delivery(self.options, robot.limits, self.measured)
        self._stepped: float | None = None  # s by which the clock was set, while it is not known what the driver's did
        self._apart = 0.0  # s between the two before
        self._past: deque[tuple[float, Plan]] = deque()
        self._memory = self.safety.admission.max_age + KEPT
        self._events: list[Event] = []
        self._now: float | None = None

    # -- what comes in ---------------------------------------------------------------------------------
    def observe(self, names: Sequence[str], q: Floats, qd: Floats | None, now: float, stamp: float = 0.0) -> None:
        """Take joint states, by name, some at a time or all. The first at rest give the first command.

        Args:
            stamp: their own time, s; 0 where they have none.
        """
        now = self._advance(now)
        self.measured.update(names, q, qd, now)
        if self.options.stamp_commands:
            self.measured.clock.hear(stamp, now)
            if self._stepped is not None and self.measured.clock.offset is not None:
                self._follow_the_clock(now)
            self.impede("clock", self.measured.clock.trouble(), now)
        if self.plan is None and not self.measured.why_not_still(now, self.options):
            self._initialise(now)
            self.mode_reason = "start-up"
            self._note("ready", "commands start from the measured arm", now)
        elif self.plan is not None and self.mode is not Mode.STOPPED and not self.options.dry_run:
            error = self._following_error(now)
            if error.max() > self.options.following_error:
                joint = int(error.argmax())
                self._change("stop", f"{self.robot.joints[joint]} is {error[joint]:.2f} rad from its command", now,
                             astray=True)  # fmt: skip

    def _following_error(self, now: float) -> np.ndarray:
        """Return how far [d] the arm is measured from what was commanded within the last ``servo_lag``, rad."""
        assert self.plan is not None
        before = [self.past(now - part * self.options.servo_lag) for part in (0.5, 1.0)]
        commands = np.array([self.plan.state(now).q, *(state[0].q for state in before if state is not None)])
        return np.maximum(self.measured.q - commands.max(axis=0), commands.min(axis=0) - self.measured.q)

    def offer(self, source: str, trajectory: Trajectory, now: float) -> Verdict:
        """Take a command of ``source`` and, if it passes, put a plan for it in force.

        A refused command changes nothing: the plan in force goes on to its rest. Should the filter itself fail, the
        arm is braked and nobody has it.
        """
        now = self._advance(now)
        try:
            verdict = self._consider(source, trajectory, now)
        except Refused as refusal:
            verdict = Verdict(False, str(refusal), refusal.kind, self.plan)
        except Exception as error:
            text = f"the filter failed on a command of {source}: {error!r}; report it"
            self._change("fault", text, now)
            verdict = Verdict(False, text, "fault", self.plan)
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

    def impede(self, name: str, reason: str, now: float) -> None:
        """Note why the controller cannot be relied on, or that this is over (no reason): see ``IMPEDIMENTS``."""
        if self.options.dry_run or self.impediments.get(name, "") == reason:
            return
        now, kind, news = self._advance(now), IMPEDIMENTS[name], name not in self.impediments
        self.impediments.pop(name, None)
        if not reason:
            return
        self.impediments[name] = reason
        if not news:
            return
        resting = self.mode is Mode.HOLD and not (kind.stops and self._delivery.begun)
        if resting or (self.mode is Mode.STOPPED and not kind.stops):
            if kind.astray and self.plan is not None and not self.plan.at_rest(now):
                self._halt(now)
        else:
            self._change("stop" if kind.stops else "impeded", reason, now, astray=kind.astray)
        if kind.deaf:
            self._delivery.drop()

    def intruded(self, reason: str, now: float) -> None:
        """Stop because somebody else wrote to the controller; what it plays is not known."""
        self._change("stop", reason, self._advance(now), astray=True)

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
        self._change("stop", f"the arbiter stalled for {seconds:.1f} s; is this machine overloaded?", now)

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
        if not active and not self.options.dry_run and self._delivery.missed(now):
            self._change("stop", "the arm did not come to rest as it was told: is the controller on its topic?", now,
                         astray=True)  # fmt: skip
        if active and now - self.measured.time > self.options.joint_state_timeout:
            self._change("blind", f"no joint states for {self.options.joint_state_timeout:g} s", now)
        if self.options.lock_timeout > 0 and self.mode is not Mode.STOPPED:
            for name, lock in self.locks.items():
                if now - lock.heard > self.options.lock_timeout:
                    self._change("stop", f"{name} has been silent for {self.options.lock_timeout:g} s", now)
        if self.options.lock_required:
            self.impede("lock", "" if self.locks else "no emergency stop has been heard; start its publisher", now)
        while len(self._past) > 1 and self._past[1][0] < now - self._memory:
            self._past.popleft()
        events, self._events = self._events, []
        return events

    def take(self, now: float, late: bool = False) -> Points | None:
        """Return the message to send to the controller now, if there is one; two in a row may be the same.

        Args:
            late: it took longer than the lead to make the plan.
        """
        if any(IMPEDIMENTS[name].deaf for name in self.impediments):
            self._delivery.drop()
        points = self._delivery.take(now, late)
        self.withheld = points if self.options.dry_run else None
        return None if self.options.dry_run else points

    @property
    def halting(self) -> bool:
        """Whether the arm was halted off its plan and has not been measured at rest since."""
        return self._delivery.halting

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
        touches = source.takes_over and self._outranks(source)
        if self.mode is not source.mode and not touches:
            if source.takes_over:  # a hand that was there before the mode changed must let go first
                self.safety.check(trajectory, self.plan.state(now), now)
                heard.offered = now
            raise Refused("not_engaged", f"mode is {self.mode.value} ({self.mode_reason}); engage {name} first")
        self._delivery.begin(self.plan.state(now).q, now)
        at = self._leave(now)
        request = self.safety.check(trajectory, self.plan.state(at), at, self._stood(trajectory.stamp, at))
        if trajectory.stamp < heard.stamp - RESOLUTION:
            raise Refused("out_of_order", f"older than the last one accepted by {heard.stamp - trajectory.stamp:.3f} s")
        if not source.takes_over and trajectory.stamp < heard.engaged - RESOLUTION:
            raise Refused("before_engagement", f"made from what was seen before {name} was engaged; send a newer one")
        if touches:  # by what has been admitted; anything less is no hand
            self._change("touch", f"{name} took over" if self.mode is Mode.POLICY else f"{name} spoke", now, name)
        heard.offered = now
        if self.mode is not source.mode:
            raise Refused("not_engaged", f"mode is {self.mode.value} ({self.mode_reason}); engage {name} first")
        in_force = self.plan
        if self.stitch.ensemble is not None:
            older = [chunk for chunk in heard.recent if now - chunk[0] < self._memory]
            heard.recent = [*older, (now, request.times + at, request.q)]
            request = ensembled(request, older, at, self.stitch.ensemble)
        options = replace(self.stitch, frozen=max(self.stitch.frozen - self.stitch.lead, 0.0))
        if source.tail is not None:
            options = replace(options, tail=source.tail, frozen=0.0)
        cap = source.timeout + BEYOND
        joining = Joining(request, in_force, at, self.past, self.safety.limits, options, cap)
        outcome = self.safety.plan(joining, in_force, at)
        heard.accepted, heard.stamp = now, trajectory.stamp
        self._delivery.followed()
        self._put(outcome.plan, now)
        return Verdict(True, plan=self.plan, interventions=outcome.interventions)

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

    def _change(
        self, event: str, reason: str, now: float, source: str | None = None, brake: bool = True, astray: bool = False
    ) -> Verdict:
        """Go through the transition table; the only place that changes the mode.

        Args:
            source: who gets the arm.
            brake: whether who lets go stops first.
            astray: the controller is not on the plan in force, so the arm is halted where it is measured instead.
        """
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
        # After a step of the clock nothing is sent before it is known whose time the controller goes by: by another one
        # a brake that is stamped with ours lies years ahead, and the way to it goes far.
        if brake and self._stepped is None and not (event.startswith("engage") and target is self.mode):
            if astray or self._astray:
                self._halt(now)
            elif not self._delivery.halted:  # else it comes to rest by itself, and what it plays is not the plan
                self._brake(now)
        if target is self.mode:
            if source is not None:
                self.heard[source].accepted = now
            return Verdict(True, f"already {target.value} ({self.mode_reason})", plan=self.plan)
        self.mode, self.mode_reason = target, reason
        self._note("mode", f"{target.value}: {reason}", now)
        return Verdict(True, reason, plan=self.plan)

    @property
    def _astray(self) -> bool:
        """Whether the controller is not on the plan in force."""
        off = self.options.stamp_commands and self.measured.clock.trouble(at_once=True)
        return bool(off) or any(IMPEDIMENTS[name].astray for name in self.impediments)

    def _brake(self, now: float) -> None:
        if self.plan is None:
            return
        if now < self.plan.end:
            stop, hand = self.safety.brake(self.plan, self._leave(now)), self.robot.gripper
            if hand is not None and not hand.feedback and stop is not self.plan:
                # Where it is is not known: halted half-way it would let go what it holds already.
                goal = np.full(len(stop.times), self.plan.next_turn(stop.start))
                knots = stop.times, stop.q, stop.qd, stop.qdd
                stop = with_gripper(stop.start, *knots, goal, float(stop.gripper[0]), hand.max_velocity, PERIOD)
            self._put(stop, now)
        self._delivery.watch(max(now, self.plan.start + self.plan.rest_time))

    def _halt(self, now: float) -> None:
        """Bring the arm to rest from where it is measured; commands start anew after a reset."""
        if self.plan is None or not np.isfinite(self.measured.q).all():
            return
        plan = halted(self.measured, self.plan, self.robot.limits, now)
        self.plan = plan.following(self.plan, self._delivery.since(now))
        self._past.append((now, self.plan))
        self._delivery.anew(plan.q[-1])
        self._delivery.put(self.plan, halt=True)
        self._delivery.watch(plan.start + plan.rest_time)

    def _leave(self, now: float) -> float:
        """Return when a new plan leaves the one in force."""
        at = self._delivery.leaves(now)
        if self.plan is None or self.stitch.lead <= 0.0:
            return at
        return self.plan.switch_from(at + self.stitch.lead)

    def _put(self, plan: Plan, now: float) -> None:
        """Put a plan in force that leaves the present one a moment from now: until then both are the same motion."""
        if self.plan is not None and plan is not self.plan:
            self.plan = plan.following(self.plan, self._delivery.since(now))
            self._delivery.put(self.plan)
            self._past.append((now, self.plan))

    def _initialise(self, now: float) -> None:
        q, gripper, hand = self.measured.q.copy(), self.measured.gripper, self.robot.gripper
        commanded = None if self.plan is None else self.plan.state(now).q
        if commanded is not None and np.abs(q - commanded).max() < self.options.lag:
            q = commanded  # the controller still holds this; the servo's lag is no reason for a step
        blind = hand is not None and not hand.feedback
        if self.plan is not None and hand is not None and (blind or hand.fraction(gripper) > HOLDS_NOTHING):
            gripper = self.plan.gripper_at(now)  # it may hold something: the tighter command goes on
        self.plan = Plan.rest(q, gripper, now)
        self._delivery.anew(commanded)  # nothing is sent: the controller already holds the arm
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
        if self.plan is not None:
            self.plan = self.plan.shifted(seconds)
            self._past.clear()
            self._past.append((now, self.plan))
        self._delivery.drop()
        self._delivery.settled += seconds
        if self._stepped is None:
            self._apart = self.measured.clock.offset or 0.0
        self.measured.forget()
        self.rivals.clear()
        self._stepped = seconds + (self._stepped or 0.0)
        for lock in self.locks.values():
            lock.heard = now
        for heard in self.heard.values():
            heard.offered = heard.accepted = heard.stamp = heard.engaged = -np.inf
        text = f"the clock jumped by {seconds:+.2f} s"
        self._note("clock", text, now)
        # The next joint state tells whether the controller's clock was set as well; until then it ends the plan it has.
        self._change("stop", text, now, brake=False)

    def _follow_the_clock(self, now: float) -> None:
        """Brake after a step of the clock, now that a joint state tells what the driver's clock did."""
        seconds, self._stepped = self._stepped or 0.0, None
        apart = abs((self.measured.clock.offset or 0.0) - self._apart)
        if self.plan is None or self.mode is not Mode.STOPPED:
            return
        if apart > max(abs(seconds) / 2, AHEAD):  # a clock of its own: what is stamped by ours means nothing there
            if not self.plan.at_rest(now) and not self.measured.why_no_state(now, self.options):
                self._halt(now)
        elif seconds >= 0:
            self._brake(now)
        # Set back together with ours, its clock has yet to come to the state it is in: until then it takes nothing.

    def _note(self, kind: str, text: str, now: float) -> None:
        self._events.append(Event(now, kind, text))
