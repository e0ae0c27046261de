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

LONGER = 1.2  # ratio of successive stopping times
SHORTEST, LONGEST = 0.04, 2.0  # s


def stops(in_force: Plan, now: float, limits: Limits) -> Iterator[HaltedPath]:
    """Yield ever gentler stops along ``in_force`` from ``now``, none of them longer than it."""
    path = PlanPath(in_force, now)
    state = in_force.state(now)
    speed = np.abs(state.qd)
    # The rate's greatest slope is 1.5 / T and its greatest curvature 6 / T^2: nothing shorter is within limits.
    duration = max(
        SHORTEST,
        float((1.5 * speed / (limits.acceleration + np.abs(state.qdd))).max()),
        float(np.sqrt(6.0 * speed / (2.0 * limits.jerk)).max()),
    )
    while duration < min(LONGEST, path.end):
        yield HaltedPath(path, 0.0, duration)
        duration *= LONGER
