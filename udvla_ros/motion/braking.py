"""Stopping: the plan in force, played ever slower until it stands.

The arm stays on the way it was cleared for, all joints halt together, and no new place has to be checked.
Of a family of stops the quickest within the limits is taken. The family's last member is the plan in force
itself, which was checked when it was made and ends at rest: there is always a stop.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from udvla_ros.motion.limits import Limits
from udvla_ros.motion.path import HaltedPath, PlanPath
from udvla_ros.motion.plan import Plan

# In a sharp bend one joint brakes while another gathers speed; slowing down there asks for more than the
# limits, a moment later it does not. So stops that begin a little later are in the family as well.
DELAYS = np.arange(0.0, 0.22, 0.02)  # s until the braking begins
LONGER = 1.2  # ratio of successive braking times
SHORTEST, LONGEST = 0.04, 2.0  # s of braking


def stops(in_force: Plan, now: float, limits: Limits) -> Iterator[HaltedPath]:
    """Yield stops along ``in_force`` from ``now``, the quickest first, none later than its own end."""
    path = PlanPath(in_force, now)
    _, speeds, accelerations = path.evaluate(DELAYS)
    # The rate's greatest slope is 1.5 / T and its greatest curvature 6 / T^2: nothing shorter is within limits.
    gain = (1.5 * np.abs(speeds) / (limits.acceleration + np.abs(accelerations))).max(axis=1)
    least = np.maximum(np.maximum(gain, np.sqrt(3.0 * np.abs(speeds) / limits.jerk).max(axis=1)), SHORTEST)
    lengths = LONGER ** np.arange(np.log(LONGEST / SHORTEST) / np.log(LONGER))
    family = [
        (delay + length, delay, length)
        for delay, shortest in zip(DELAYS.tolist(), least.tolist(), strict=True)
        for length in (shortest * lengths).tolist()
        if delay + length < min(path.end, LONGEST)
    ]
    for _, delay, length in sorted(family):
        yield HaltedPath(path, delay, length)
