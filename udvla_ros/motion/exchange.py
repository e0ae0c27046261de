"""The values that go into the arbiter and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription


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
        following_error: distance of the measured arm from the command that stops it, rad; None is off.
        release: how long teleop must have been silent before speaking engages it from HOLD.
        dry_run: plans are made and shown, and marked not to be sent.
        max_age: greatest age of a stamp; a slow policy needs more than its slowest inference.
        lock_timeout: silence of a lock, once heard, that counts as pressed; 0 is off, for locks that speak only
            when they change.
        policy_timeout, teleop_timeout: instead of those in the table of sources.
    """

    joint_state_timeout: float = 0.5
    clock_jump: float = 1.0
    clock_back: float = 0.05
    still: float = 0.05
    lag: float = 0.05
    following_error: float | None = None
    release: float = 0.3
    dry_run: bool = False
    max_age: float = 2.0
    lock_timeout: float = 0.0
    policy_timeout: float | None = None
    teleop_timeout: float | None = None

    @classmethod
    def of(cls, robot: RobotDescription) -> ArbiterOptions:
        """Return the options of a robot file.

        Raises:
            ConfigError: a key of its ``arbiter`` section is unknown.
        """
        known = {f.name for f in fields(cls)}
        for key in robot.arbiter:
            if key not in known:
                raise ConfigError(f"arbiter.{key} is not a key; known are {', '.join(sorted(known))}")
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
