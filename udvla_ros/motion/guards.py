"""Guards of the transition table: why a change of mode is refused now, in words that say what to mend; else nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from udvla_ros.motion.exchange import ArbiterOptions, Heard, Lock
from udvla_ros.motion.measured import Measured
from udvla_ros.motion.modes import IMPEDIMENTS, Mode, Source
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription

SETTLED = 0.5  # s after the end of a plan at which the servo's lag is over


class Situation(Protocol):
    """What a guard looks at: the arbiter, as far as it is anybody's business."""

    robot: RobotDescription
    options: ArbiterOptions
    sources: dict[str, Source]
    mode: Mode
    mode_reason: str
    plan: Plan | None
    measured: Measured
    locks: dict[str, Lock]
    heard: dict[str, Heard]
    impediments: dict[str, str]

    @property
    def halting(self) -> bool:
        """Whether the arm was halted off its plan and has not been measured at rest since."""


def not_ready(at: Situation, now: float) -> str:
    """Return why no source can be engaged."""
    if at.plan is None:
        return at.measured.why_not_still(now, at.options) or at.mode_reason
    if at.impediments:
        return next(iter(at.impediments.values()))
    if now - at.measured.time > at.options.joint_state_timeout:
        return f"no joint states for {now - at.measured.time:.1f} s; check the joint_states topic"
    if at.halting:
        return "the arm is still being halted; try again"
    return _not_our_clock(at) or _not_where_commanded(at, now)


def _not_our_clock(at: Situation) -> str:
    return "" if at.options.dry_run else at.measured.clock.trouble(at_once=True)


def _not_where_commanded(at: Situation, now: float) -> str:
    """Return why a resting arm that is not where it is commanded may not be engaged.

    A restarted controller or a protective stop leaves it there: the first command would be a step.
    """
    if at.plan is None or at.options.dry_run or now < at.plan.end + SETTLED:
        return ""
    error = np.abs(at.measured.q - at.plan.state(now).q)
    if error.max() < at.options.lag:
        return ""
    joint = int(error.argmax())
    return (
        f"{at.robot.joints[joint]} is {error[joint]:.2f} rad from its command; "
        "call ~/stop and ~/reset, so that commands start where the arm is"
    )


def not_released(at: Situation, now: float) -> str:
    """Return why a touch in HOLD does not count: the stick was never let go since."""
    if not_ready(at, now):
        return not_ready(at, now)
    offered = max((h.offered for n, h in at.heard.items() if at.sources[n].takes_over), default=-np.inf)
    if at.mode is Mode.HOLD and now - offered < at.options.release:
        return "let go of the stick first"
    return ""


def not_still(at: Situation, now: float) -> str:
    """Return why the arm cannot be reset."""
    held = sorted(name for name, lock in at.locks.items() if lock.held)
    if held:
        return f"{', '.join(held)} is still pressed; release it first"
    timeout = at.options.lock_timeout
    silent = sorted(name for name, lock in at.locks.items() if now - lock.heard > timeout > 0)
    if silent:
        return f"{', '.join(silent)} is silent; bring its publisher back first"
    for name, reason in at.impediments.items():
        if IMPEDIMENTS[name].stops:
            return reason
    heard = min(at.measured.time, at.measured.gripper_time)
    if at.plan is not None and heard < at.plan.end:
        return "the arm is still coming to rest; try again"
    return _not_our_clock(at) or at.measured.why_not_still(now, at.options)


GUARDS: dict[str, Callable[[Situation, float], str]] = {
    "engage_policy": not_ready,
    "engage_teleop": not_ready,
    "touch": not_released,
    "reset": not_still,
}
