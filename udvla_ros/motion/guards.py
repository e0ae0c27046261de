"""Guards of the transition table: why a change of mode is refused now, in words that say what to mend; else nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from udvla_ros.motion.modes import Mode

if TYPE_CHECKING:
    from udvla_ros.motion.arbiter import Arbiter

SETTLED = 0.5  # s after the end of a plan at which the servo's lag is over


def not_ready(arbiter: Arbiter, now: float) -> str:
    """Return why no source can be engaged."""
    if arbiter.plan is None:
        return arbiter.measured.why_not_still(now, arbiter.options) or arbiter.mode_reason
    if now - arbiter.measured.time > arbiter.options.joint_state_timeout:
        return f"no joint states for {now - arbiter.measured.time:.1f} s; check the joint_states topic"
    return _not_where_commanded(arbiter, now)


def _not_where_commanded(arbiter: Arbiter, now: float) -> str:
    """Return why a resting arm that is not where it is commanded may not be engaged.

    A restarted controller or a protective stop leaves it there: the first command would be a step.
    """
    if arbiter.plan is None or arbiter.options.dry_run or now < arbiter.plan.end + SETTLED:
        return ""
    error = np.abs(arbiter.measured.q - arbiter.plan.state(now).q)
    if error.max() < arbiter.options.lag:
        return ""
    joint = int(error.argmax())
    return (
        f"{arbiter.robot.joints[joint]} is {error[joint]:.2f} rad from its command; "
        "call ~/stop and ~/reset, so that commands start where the arm is"
    )


def not_released(arbiter: Arbiter, now: float) -> str:
    """Return why a touch in HOLD does not count: the stick was never let go since."""
    if not_ready(arbiter, now):
        return not_ready(arbiter, now)
    offered = max((h.offered for n, h in arbiter.heard.items() if arbiter.sources[n].takes_over), default=-np.inf)
    if arbiter.mode is Mode.HOLD and now - offered < arbiter.options.release:
        return "let go of the stick first"
    return ""


def not_still(arbiter: Arbiter, now: float) -> str:
    """Return why the arm cannot be reset."""
    held = sorted(name for name, lock in arbiter.locks.items() if lock.held)
    if held:
        return f"{', '.join(held)} is still pressed; release it first"
    timeout = arbiter.options.lock_timeout
    silent = sorted(name for name, lock in arbiter.locks.items() if now - lock.heard > timeout > 0)
    if silent:
        return f"{', '.join(silent)} is silent; bring its publisher back first"
    heard = min(arbiter.measured.time, arbiter.measured.gripper_time)
    if arbiter.plan is not None and heard < arbiter.plan.end:
        return "the arm is still coming to rest; try again"
    return arbiter.measured.why_not_still(now, arbiter.options)


GUARDS: dict[str, Callable[[Arbiter, float], str]] = {
    "engage_policy": not_ready,
    "engage_teleop": not_ready,
    "touch": not_released,
    "reset": not_still,
}
