"""What was commanded and measured while something broke, and the numbers that say whether it was safe.

Nothing here shares code with the safety filter: the limits are checked on the samples that the arbiter published,
by differences between them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from udvla_ros.motion.robot import RobotDescription

ACTIVE = ("POLICY", "TELEOP")
STILL = 1e-6  # rad/s and rad between samples below which the command stands
STANDS = 0.05  # rad/s below which the measured arm stands
REST = 0.3  # s of standing that are a rest
CLOCK = 0.25  # s by which stamps and arrivals may differ in pace before it is the clock that moved
TOLERANCE = 2e-3  # of a limit: stamps are nanoseconds, positions doubles
SLACK = 1e-5  # rad


@dataclass
class Trace:
    """Samples of one run, in the order they came; times are on the observer's steady clock unless said otherwise.

    Attributes:
        stamps: of the commands, on the arbiter's clock, s.
        received: arrival of the commands, s.
        q, qd: [d] commanded joints, rad and rad/s.
        measured: (arrival, greatest joint speed in rad/s) of the joint states at the robot.
        modes: (arrival, mode, reason).
        grants: when somebody gave the arm to a source on purpose: called engage, or took the stick.
    """

    stamps: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    q: list[np.ndarray] = field(default_factory=list)
    qd: list[np.ndarray] = field(default_factory=list)
    measured: list[tuple[float, float]] = field(default_factory=list)
    modes: list[tuple[float, str, str]] = field(default_factory=list)
    grants: list[float] = field(default_factory=list)

    def mode_at(self, t: float) -> str:
        """Return the mode in force at ``t``; empty before the first."""
        before = [mode for at, mode, _ in self.modes if at <= t]
        return before[-1] if before else ""

    def speeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return arrival times [n] and the greatest commanded joint speed [n], by the command and by differences.

        A change while no command came for long says nothing of when it was: the measured arm has to tell.
        """
        count = len(self.qd)  # the last of them to grow: a trace is looked at while it does
        t, q = np.array(self.received[:count]), np.array(self.q[:count])
        qd = np.abs(np.array(self.qd[:count])).max(axis=1)
        moved = np.abs(np.diff(q, axis=0)).max(axis=1) * (np.diff(t) < REST)
        moved = np.concatenate([[0.0], moved])
        return t, np.where((moved > STILL) | (qd > STILL), np.maximum(qd, STILL * 2), 0.0)


@dataclass(frozen=True)
class Steps:
    """Changes from one command to the next.

    Attributes:
        worst: greatest change of a joint, rad: 10 ms of motion, and more where a tick was late.
        beyond: the part of a change that no motion within velocity, acceleration and jerk limits makes, rad.
        gap: longest time between two commands, s.
    """

    worst: float
    beyond: float
    gap: float = 0.0


def pace(trace: Trace) -> np.ndarray:
    """Return the seconds between commands [n - 1]: by their stamps, or by arrival where the clock was set."""
    by_stamp, by_arrival = np.diff(trace.stamps), np.diff(trace.received)
    return np.where((np.abs(by_stamp - by_arrival) > CLOCK) | (by_stamp < 0), by_arrival, by_stamp)


def steps(trace: Trace, robot: RobotDescription) -> Steps:
    """Return how far consecutive commands lie apart.

    A motion with velocities v0 and v1 at the ends of dt covers dt (v0 + v1) / 2, but for jerk dt^3 / 12 and for
    acceleration dt^2 / 4 at most (the error of the trapezoidal rule).
    """
    if len(trace.q) < 2:
        return Steps(0.0, 0.0)
    q, qd, dt = np.array(trace.q), np.array(trace.qd), pace(trace)[:, None]
    moved, limits = np.diff(q, axis=0), robot.limits
    stamped = np.abs(np.diff(trace.stamps)[:, None] - dt) < CLOCK
    off = np.abs(moved - dt * (qd[1:] + qd[:-1]) / 2)
    allowed = np.minimum(limits.jerk * dt**3 / 12, limits.acceleration * dt**2 / 4)
    # Where the clock was set, dt is known only as well as messages travel: the speed limit is what remains.
    beyond = np.where(stamped, off - allowed, np.abs(moved) - limits.velocity * (dt + CLOCK))
    beyond = np.where(np.isfinite(beyond), beyond, np.inf)
    return Steps(float(np.nanmax(np.abs(moved))), float(max(beyond.max() - SLACK, 0.0)), float(dt.max()))


def violations(trace: Trace, robot: RobotDescription) -> Counter[str]:
    """Count the commands that break a limit, by kind."""
    counts: Counter[str] = Counter()
    if not trace.q:
        return counts
    q, qd, limits = np.array(trace.q), np.array(trace.qd), robot.limits
    finite = np.isfinite(q).all(axis=1) & np.isfinite(qd).all(axis=1)
    counts["non_finite"] = int((~finite).sum())
    q, qd, stamps, dt = q[finite], qd[finite], np.array(trace.stamps)[finite], pace(trace)
    counts["position"] = int(((q < limits.hard_lower - SLACK) | (q > limits.hard_upper + SLACK)).any(axis=1).sum())
    counts["velocity"] = int((np.abs(qd) > limits.velocity * (1 + TOLERANCE)).any(axis=1).sum())
    outside = robot.workspace.depth(np.array([robot.kinematics.forward(x)[:3, 3] for x in q])).max(axis=1)
    counts["workspace"] = int((outside > 2e-3).sum())
    if finite.all() and len(q) > 1:
        stamped = (np.abs(np.diff(stamps) - dt) < CLOCK)[:, None]
        moved, turned = np.abs(np.diff(q, axis=0)), np.abs(np.diff(qd, axis=0))
        fast = moved > limits.velocity * dt[:, None] * (1 + TOLERANCE) + SLACK
        hard = turned > limits.acceleration * dt[:, None] * (1 + TOLERANCE) + SLACK
        counts["velocity_between"] = int((fast & stamped).any(axis=1).sum())
        counts["acceleration"] = int((hard & stamped).any(axis=1).sum())
    return +counts


def rest_after(times: np.ndarray, speeds: np.ndarray, since: float, still: float) -> float | None:
    """Return the seconds from ``since`` until the arm first stands for ``REST``; None if it never does.

    An arm that does not move at ``since`` but sets out within ``REST`` has not come to rest.
    """
    after = times >= since
    t, moving = times[after], speeds[after] > still
    begin = since
    for at, moves in zip(t, moving, strict=True):
        if moves:
            begin = float(at)
        elif at - begin >= REST:
            return begin - since
    return None


def time_to_rest(trace: Trace, since: float) -> dict[str, float | None]:
    """Return the seconds from ``since`` to rest of the command and of the measured arm; None: it did not rest."""
    measured = np.array(trace.measured).reshape(-1, 2)
    return {
        "command": rest_after(*trace.speeds(), since, STILL),
        "measured": rest_after(measured[:, 0], measured[:, 1], since, STANDS),
    }


def resumed(trace: Trace, since: float) -> str:
    """Return what resumed by itself after ``since``, in one line, or nothing.

    Two things count: a source that has the arm again though nobody gave it, and a command that moves again
    after it came to rest while nobody had the arm.
    """
    lost: float | None = None
    for at, mode, reason in trace.modes:
        if at < since:
            continue
        if mode not in ACTIVE:
            lost = at if lost is None else lost
        elif lost is not None:
            if not any(lost <= grant <= at for grant in trace.grants):
                return f"{mode} ({reason}) {at - lost:.2f} s after the arm was taken away, though nobody engaged it"
            lost = None
    times, speeds = trace.speeds()
    rested: float | None = None
    still_since: float | None = None
    for at, speed in zip(times, speeds, strict=True):
        if at < since or trace.mode_at(float(at)) in ACTIVE:
            rested = still_since = None
            continue
        if speed <= STILL:
            still_since = float(at) if still_since is None else still_since
            if at - still_since >= REST:
                rested = still_since
        else:
            if rested is not None:
                return f"the command moved {at - rested:.2f} s after it had come to rest in {trace.mode_at(float(at))}"
            still_since = None
    return ""


def moved_again(trace: Trace, since: float) -> bool:
    """Return whether the command moved again after its first rest after ``since``, whoever had the arm."""
    times, speeds = trace.speeds()
    first = rest_after(times, speeds, since, STILL)
    return first is not None and bool((speeds[times > since + first + REST] > STILL).any())
