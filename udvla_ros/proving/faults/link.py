"""Faults between the arbiter and its controller, run in simulated time against the honest look-alike at 500 Hz.

Nothing of them needs processes: what a node hears (a transition event, a speed factor, a foreign message) is told to
the arbiter 10 ms later, as its tick would. What the controller writes is audited cycle by cycle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.modes import Mode
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.proving.faults.report import Outcome
from udvla_ros.proving.faults.rig import Rig
from udvla_ros.proving.faults.scenarios import Scenario
from udvla_ros.proving.faults.trace import REST, Steps

RATE, DELAY, LAG, LEAD = 500.0, 0.005, 0.02, 0.02  # Hz of the controller; s of messages, of the arm, of the arbiter
NOTICED = 0.01  # s until the arbiter hears of it
EVERY = 0.2  # s between chunks
SWING, PACE = np.array([0.3, 0.1, -0.15, 0.1, 0.1, 0.2]), 1.8  # rad and rad/s of the motion
STILL = 1e-6  # rad/s


class Scene:
    """A policy that swings the arm, and what is done to it."""

    def __init__(self, robot: RobotDescription, **options: object) -> None:
        chosen = replace(ArbiterOptions.of(robot), **options)  # type: ignore[arg-type]
        self.rig = Rig(
            robot, lag=LAG, controller={"rate": RATE, "delay": DELAY}, options=chosen, stitch=StitchOptions(lead=LEAD)
        )
        self.since = self.granted = np.inf
        self.notes: dict[str, object] = {}
        self._began = self.rig.now

    def chunk(self, gripper: float = 0.0) -> Trajectory:
        """Return a second of the swing from now on."""
        due = self.rig.now - self._began + 0.1 * np.arange(1, 11)
        swing = np.outer(np.sin(PACE * due), np.resize(SWING, len(self.rig.robot.joints)))
        return self.rig.chunk(self.rig.robot.home + swing, gripper=gripper)

    def drive(self, seconds: float, gripper: float = 0.0) -> None:
        """Let the policy send chunk after chunk, whoever listens."""
        for _ in range(round(seconds / EVERY)):
            self.rig.offer("policy", self.chunk(gripper))
            self.rig.wait(EVERY)

    def set_out(self) -> None:
        """Give the arm to the policy and come into mid-motion."""
        self.rig.act("engage", "policy")
        self.drive(1.6)

    def mark(self) -> None:
        """The fault is now."""
        self.since = self.rig.now

    def tell(self, name: str, reason: str) -> None:
        """Let the arbiter hear of an impediment."""
        self.rig.wait(NOTICED)
        self.rig.act("impede", name, reason)

    def engage(self) -> None:
        """Reset, engage anew on purpose, and go on."""
        self.granted = self.rig.now
        steps = (("reset",), ("engage", "policy")) if self.rig.arbiter.mode is Mode.STOPPED else (("engage", "policy"),)
        for step in steps:
            verdict = self.rig.act(*step)
            if not verdict.accepted:
                self.notes |= {"unsafe": True, "refused": verdict.reason}

    def end(self) -> None:
        """Hold: from here on the arm comes to rest."""
        self.mark()
        self.rig.act("hold")


def _inactive(scene: Scene, name: str, reason: str) -> None:
    """Deactivate the controllers in motion and activate them 1.8 s later, the policy sending all the while."""
    arm = scene.rig.controller.arm
    scene.mark()
    arm.deactivate()
    scene.rig.controller.restarted()  # that the command stops dead is the driver's doing
    scene.tell(name, reason)
    scene.drive(1.8)
    arm.activate(scene.rig.controller.state[0])
    scene.tell(name, "")
    scene.drive(1.0)


def _scaled(scene: Scene) -> None:
    arm = scene.rig.controller.arm
    scene.mark()
    for factor in (0.5, 0.1, 1.0):
        arm.scaling = factor
        scene.tell("scaling", "" if factor == 1.0 else f"the robot plays at {factor:.0%}")
        scene.drive(2.0)


def _late(scene: Scene, seconds: float) -> None:
    scene.rig.controller.delay = seconds
    scene.drive(2.0)
    scene.end()


def _lossy(scene: Scene) -> None:
    turn = count()
    scene.rig.controller.lose = lambda: next(turn) % 2 == 1
    scene.drive(2.0)
    scene.end()


def _stop_lost(scene: Scene) -> None:
    scene.rig.controller.lose = lambda: True
    scene.mark()
    scene.rig.act("stop", "button")
    scene.rig.wait(0.05)
    scene.rig.controller.lose = lambda: False


def _ahead(scene: Scene) -> None:
    scene.mark()
    scene.rig.driver_ahead(0.2)
    scene.rig.wait(NOTICED)
    scene.drive(1.0)


def _restarted(scene: Scene) -> None:
    scene.mark()
    scene.rig.controller.arm.activate(scene.rig.arbiter.measured.q)
    scene.rig.controller.restarted()
    scene.tell("controller", "it was started anew")
    scene.tell("controller", "")
    scene.drive(1.0)


def _contested(scene: Scene) -> None:
    scene.mark()
    scene.rig.act("contest", "policy", "two writers")
    scene.drive(1.0)


def _foreign(scene: Scene) -> None:
    """Somebody sends the arm 0.15 rad away within a second."""
    rig = scene.rig
    q, still = rig.controller.state[0] + 0.15 * np.eye(len(rig.robot.joints))[0], np.zeros((1, len(rig.robot.joints)))
    points = rig.arbiter.plan.points_after(rig.now, 0.0)  # type: ignore[union-attr]
    rig.controller.receive(
        points._replace(times=np.array([1.0]), q=q[None], qd=still, qdd=still, gripper=still[0, :0], stamp=0.0), rig.now
    )
    scene.mark()
    rig.wait(DELAY + NOTICED)
    rig.act("intruded", "somebody else commanded the controller")
    scene.drive(1.0)


def _two_arbiters(scene: Scene) -> None:
    """A second arbiter cannot be engaged in motion; at rest it can, and the first hears what it sends."""
    rig = scene.rig
    other = Arbiter(rig.robot, rig.arbiter.options, StitchOptions(lead=LEAD))
    names, hand = rig.robot.command_names, [] if rig.robot.gripper is None else [rig.robot.gripper.open]

    def engaged() -> bool:
        q, qd, _ = rig.controller.state
        other.observe(names, [*q, *hand], [*qd, *np.zeros(len(hand))], rig.now, rig.now)
        return other.engage("policy", rig.now).accepted

    scene.notes["second_engaged_in_motion"] = scene.notes["unsafe"] = engaged()
    rig.act("hold")
    rig.wait(1.0)
    engaged()
    other.offer("policy", scene.chunk(), rig.now)
    for _ in range(10):
        points = other.take(rig.now)
        if points is not None:
            rig.controller.receive(points, rig.now)
            break
        rig.wait(NOTICED)
    scene.mark()
    rig.wait(DELAY + NOTICED)
    rig.act("intruded", "somebody else commanded the controller")
    scene.drive(1.0)


def _sagged(scene: Scene) -> None:
    rig = scene.rig
    rig.act("stop", "button")
    rig.wait(1.0)
    rig.sag = -0.055 * np.eye(len(rig.robot.joints))[1]
    rig.wait(0.5)
    scene.engage()
    scene.drive(1.0)
    scene.end()


def _blind_hand(scene: Scene) -> None:
    rig, hand = scene.rig, scene.rig.robot.gripper
    assert hand is not None and rig.arbiter.plan is not None
    scene.drive(0.6, gripper=1.0)
    scene.mark()
    rig.act("stop", "in mid-closing")
    rig.wait(2.0)
    before = rig.arbiter.plan.gripper_at(rig.now)
    rig.act("reset")
    rig.wait(1.0)
    after = rig.arbiter.plan.gripper_at(rig.now)
    scene.notes["closed"] = float(hand.fraction(after))
    scene.notes["unsafe"] = bool(before != after or hand.fraction(after) < 1.0)


def _garbage(scene: Scene) -> None:
    rig, good = scene.rig, scene.chunk()
    for broken in (
        replace(good, stamp=good.stamp - 10.0), replace(good, names=["a", *list(good.names)[1:]]),
        replace(good, positions=np.full_like(good.positions, np.nan)),
        replace(good, times=good.times[:0], positions=good.positions[:0]),
    ):  # fmt: skip
        rig.offer("teleop", broken)
        scene.drive(0.2)
    scene.notes["mode_after_garbage"] = rig.arbiter.mode.value
    scene.notes["unsafe"] = rig.arbiter.mode.value != "POLICY"
    scene.end()


def _long(scene: Scene) -> None:
    rig = scene.rig
    rig.act("hold")
    rig.wait(1.0)
    rig.arbiter.set_speed(0.1, rig.now)
    scene.engage()
    times = np.linspace(0.15, 30.0, 200)
    swing = np.outer(np.sin(times), np.resize(SWING, len(rig.robot.joints)))
    q = np.column_stack([rig.q + swing, np.zeros((200, len(rig.robot.command_names) - len(rig.robot.joints)))])
    begin = time.perf_counter()
    verdict = rig.offer("policy", Trajectory(rig.robot.command_names, times, q, None, rig.now))
    scene.notes |= {"offer_ms": round((time.perf_counter() - begin) * 1e3, 1), "unsafe": not verdict.accepted}
    rig.wait(0.6)
    scene.end()


def _silent(scene: Scene) -> None:
    rig = scene.rig
    rig.wait(rig.arbiter.sources["policy"].timeout - EVERY)  # the last chunk has been played by then
    scene.mark()


def _stalled(scene: Scene) -> None:
    scene.mark()
    scene.rig.stall(0.4)


def _act(name: str, *given: object) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.mark()
        scene.rig.act(name, *given)

    return act


@dataclass(frozen=True)
class LinkFault:
    """One fault: what is done, s to rest from then on, modes that it may end in, options of the arbiter."""

    name: str
    what: str
    do: Callable[[Scene], None]
    rest_within: float = 0.5
    ends: tuple[str, ...] = ("STOPPED",)
    blind_hand: bool = False


FAULTS = (
    LinkFault("hold in motion", "the hold service", _act("hold"), ends=("HOLD",)),
    LinkFault("stop in motion", "the stop service", _act("stop", "button")),
    LinkFault("policy silent", "no chunk for 2 s", _silent, ends=("HOLD",)),
    LinkFault("arbiter stalled", "not called for 0.4 s", _stalled, 0.9),
    LinkFault(
        "controller deactivated", "deactivated in motion, activated 1.8 s later, chunks coming",
        lambda s: _inactive(s, "controller", "it is inactive"),
    ),
    LinkFault(
        "program stop and play", "the robot's program stops in motion and plays 1.8 s later",
        lambda s: _inactive(s, "program", "the robot's program does not run"),
    ),
    LinkFault("speed 100-50-10-100%", "the speed factor, 2 s each", _scaled, 1.0, ("HOLD",)),
    LinkFault("messages 15 ms late", "for 2 s, then hold", lambda s: _late(s, 0.015), ends=("HOLD",)),
    LinkFault("every other message lost", "for 2 s, then hold", _lossy, ends=("HOLD",)),
    LinkFault("stop lost", "stop, and nothing arrives for 50 ms", _stop_lost, 1.6),
    LinkFault("driver's clock ahead", "by 0.2 s, in motion", _ahead, 1.0),
    LinkFault("controller restarted", "it holds where the arm is measured, in motion", _restarted),
    LinkFault("two writers", "a second policy on the topic", _contested, ends=("HOLD",)),
    LinkFault("foreign publisher", "somebody sends the controller elsewhere", _foreign, 1.0),
    LinkFault("two arbiters", "a second arbiter sends a plan of its own", _two_arbiters, 1.0),
    LinkFault("sag and reset", "the arm sags 0.055 rad while stopped; reset, go on, hold", _sagged, 0.6, ("HOLD",)),
    LinkFault(
        "hand without feedback", "stopped in mid-closing, then reset", _blind_hand, ends=("HOLD",), blind_hand=True
    ),
    LinkFault("garbage teleop", "stale, foreign, NaN and empty messages; then hold", _garbage, ends=("HOLD",)),
    LinkFault("200 points over 30 s", "at 10% speed; then hold", _long, ends=("HOLD",)),
)  # fmt: skip


def run(fault: LinkFault, robot: RobotDescription) -> Outcome:
    """Run one fault and return what came of it; what is audited is what the controller wrote."""
    if fault.blind_hand and robot.gripper is not None:
        robot = replace(robot, gripper=replace(robot.gripper, feedback=False))
    scene = Scene(robot)
    scene.set_out()
    fault.do(scene)
    scene.rig.wait(2.5)
    rig, controller = scene.rig, scene.rig.controller
    times, q, _ = controller.written()
    speeds = np.abs(np.diff(q, axis=0)).max(axis=1) / controller.period
    times, audit = times[1:] + rig.skew, controller.audit()
    until = scene.granted if scene.granted > scene.since else np.inf
    moving = np.flatnonzero((speeds > STILL) & (times > scene.since) & (times < until))
    gaps = np.flatnonzero(np.diff(times[moving]) > REST) if moving.size else moving
    last = times[moving[gaps[0] if gaps.size else -1]] if moving.size else scene.since
    rest = None if not controller.at_rest else float(max(last - scene.since, 0.0))
    again = f"moved {times[moving[gaps[0] + 1]] - last:.2f} s after it had come to rest" if gaps.size else ""
    per_look = max(1, round(0.01 / controller.period))
    notes = {**scene.notes, "worst": {kind: round(value, 4) for kind, value in sorted(audit.worst.items())},
             "halts": controller.halts, "rejected": controller.rejected}  # fmt: skip
    return Outcome(
        scenario=Scenario(fault.name, fault.what, (), fault.rest_within, fault.ends), rest={"command": rest},
        step=Steps(float(np.abs(q[per_look:] - q[:-per_look]).max()), 0.0),
        violations=audit.violations, by_kind=dict(audit.counts), resumed=again, moved_again=bool(again),
        mode=rig.arbiter.mode.value, reason=rig.arbiter.mode_reason, notes=notes,
        curve=(times - scene.since, speeds), modes=[(at - scene.since, mode) for at, mode in rig.modes],
    )  # fmt: skip
