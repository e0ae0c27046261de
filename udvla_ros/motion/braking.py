"""Stopping: the plan in force, played ever slower until it stands.

The arm stays on the way it was cleared for, all joints halt together, and no new place has to be checked.
Of a family of stops the quickest within the limits is taken. The family's last member is the plan in force
itself, which was checked when it was made and ends at rest: there is always a stop.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from udvla_ros.motion.limits import Limits
from udvla_ros.motion.path import HaltedPath, PlanPath, halting
from udvla_ros.motion.plan import Plan

# In a sharp bend one joint brakes while another gathers speed; slowing down there asks for more than the
# limits, a moment later it does not. So stops that begin a little later are in the family as well.
DELAYS = np.arange(0.0, 0.22, 0.02)  # s until the braking begins
LONGER = 1.2  # ratio of successive braking times
SHORTEST, LONGEST = 0.04, 2.0  # s of braking
LENGTHS = LONGER ** np.arange(np.log(LONGEST / SHORTEST) / np.log(LONGER))
AT_ONCE = 24  # stops that are looked at together
WITHIN = np.linspace(0.0, 1.0, 11)  # parts of the braking time at which they are


def stops(in_force: Plan, now: float, limits: Limits) -> Iterator[HaltedPath]:
    """Yield stops along ``in_force`` from ``now``, the quickest first, none later than its own end.

    Those that break a limit at a sample are left out; the others are yet to be verified.
    """
    path = PlanPath(in_force, now)
    _, speeds, accelerations = path.evaluate(DELAYS)
    # The rate's greatest slope is 1.5 / T and its greatest curvature 6 / T^2: nothing shorter is within limits.
    gain = (1.5 * np.abs(speeds) / (limits.acceleration + np.abs(accelerations))).max(axis=1)
    least = np.maximum(np.maximum(gain, np.sqrt(3.0 * np.abs(speeds) / limits.jerk).max(axis=1)), SHORTEST)
    lengths = (least[:, None] * LENGTHS).reshape(-1)
    delays = DELAYS.repeat(len(LENGTHS))
    ends = delays + lengths
    quickest = np.argsort(ends, kind="stable")
    quickest = quickest[ends[quickest] < min(path.end, LONGEST)]
    for first in range(0, len(quickest), AT_ONCE):
        some = quickest[first : first + AT_ONCE]
        fit = _within(path, delays[some], lengths[some], limits)
        for delay, length in zip(delays[some][fit].tolist(), lengths[some][fit].tolist(), strict=True):
            yield HaltedPath(path, delay, length)


def _within(path: PlanPath, delays: np.ndarray, lengths: np.ndarray, limits: Limits) -> np.ndarray:
    """Return which stops [m] keep acceleration and jerk at samples: more than these they can only ask for."""
    along, rate, slope = halting(WITHIN[:, None], lengths)  # [samples, m]
    _, q1, q2 = (x.reshape(*along.shape, -1) for x in path.evaluate((delays + along).reshape(-1)))
    acceleration = q2 * (rate * rate)[:, :, None] + q1 * slope[:, :, None]
    force = np.abs(acceleration) / limits.acceleration
    jerk = np.abs(acceleration[1:] - acceleration[:-1]) / limits.jerk
    jerk = jerk.max(axis=(0, 2)) * ((len(WITHIN) - 1) / lengths)
    return np.maximum(force.max(axis=(0, 2)), jerk) <= 1.0
