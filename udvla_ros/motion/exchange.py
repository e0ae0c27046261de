"""The values that go into the arbiter and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from udvla_ros.motion.plan import Plan

if TYPE_CHECKING:
    from udvla_ros.motion.robot import RobotDescription


def _within(default: float | None, **bounds: float) -> Any:
    """Return a field with its default and the bounds of what a robot file may say for it."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class ArbiterOptions:
    """Thresholds of the arbiter, s and rad; the robot file's ``arbiter`` section overrides the defaults.

    Attributes:
        joint_state_timeout: silence of the joint states after which the mode falls to HOLD.
        clock_jump: a step of the clock beyond this, or back by ``clock_back``, stops the arm.
        clock_back: see above; smaller steps back are taken as no time passing.
        still: joint speed below which the measured arm stands, rad/s.
        lag: distance of the measured arm from the command up to which a reset keeps the command, and beyond
            which an arm at rest is not engaged, rad.
        following_error: distance of the measured arm from what was commanded within the last ``servo_lag`` that stops
            it, rad.
        servo_lag: greatest delay of an arm that follows, s.
        release: how long teleop must have been silent before speaking engages it from HOLD.
        dry_run: plans are made and shown, and marked not to be sent.
        max_age: greatest age of a stamp; a slow policy needs more than its slowest inference.
        lock_timeout: silence of a lock, once heard, that counts as pressed; 0 is off, for locks that speak only
            when they change.
        lock_required: whether a lock must have been heard before anybody is engaged.
        stamp_commands: whether messages carry the plan's own time; else they begin when they come.
        policy_timeout, teleop_timeout: instead of those in the table of sources.
    """

    joint_state_timeout: float = _within(0.5, above=0.0, high=60.0)
    clock_jump: float = _within(1.0, above=0.0, high=3600.0)
    clock_back: float = _within(0.05, low=0.0, high=3600.0)
    still: float = _within(0.05, above=0.0, high=10.0)
    lag: float = _within(0.05, above=0.0, high=10.0)
    following_error: float = _within(0.1, above=0.0, high=10.0)
    servo_lag: float = _within(0.15, low=0.0, high=1.0)
    release: float = _within(0.3, low=0.0, high=60.0)
    dry_run: bool = False
    max_age: float = _within(2.0, above=0.0, high=3600.0)
    lock_timeout: float = _within(0.0, low=0.0, high=3600.0)
    lock_required: bool = False
    stamp_commands: bool = True
    policy_timeout: float | None = _within(None, above=0.0, high=3600.0)
    teleop_timeout: float | None = _within(None, above=0.0, high=3600.0)

    @classmethod
    def of(cls, robot: RobotDescription) -> ArbiterOptions:
        """Return the options of a robot file, which has been checked against the fields above."""
        return cls(**robot.arbiter)


@dataclass(frozen=True, eq=False)
class Verdict:
    """The answer to an offer or to a service.

    Attributes:
        accepted: whether it took effect.
        reason: one line for people; empty where there is nothing to say.
        kind: class of a refusal, counted.
        plan: the plan in force after it.
        interventions: what the filter had to do, by class.
    """

    accepted: bool
    reason: str = ""
    kind: str = ""
    plan: Plan | None = None
    interventions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened: ``mode``, ``refused``, ``intervention``, ``clock`` or ``ready``."""

    time: float
    kind: str
    text: str


@dataclass
class Lock:
    """A lock such as a hardware emergency stop: whether it is held, and when it was last heard."""

    held: bool
    heard: float


@dataclass
class Heard:
    """What was heard of one source.

    Attributes:
        offered, accepted: times of the last offer and of the last sign of life that counts.
        stamp: newest stamp accepted.
        engaged: when it was given the arm.
        recent: chunks kept for ensembling: time of arrival, due times on the clock, positions.
    """

    offered: float = -np.inf
    accepted: float = -np.inf
    stamp: float = -np.inf
    engaged: float = -np.inf
    recent: list[tuple[float, np.ndarray, np.ndarray]] = field(default_factory=list)
