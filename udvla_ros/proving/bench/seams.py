"""How smooth a motion is where one chunk takes over from another, and two ways of joining chunks without care.

``chunk_after_chunk`` plays each chunk from its first step when it arrives: it goes back to where its observation
was. ``reanchored`` drops elapsed steps and moves the rest to the measured pose, as many policy runners do: the
measured arm lags, and each switch drags the command back by the lag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from udvla_ros.motion.spline import node_velocities

TICK = 0.01  # s between commands
LAG = 0.033  # s by which the arm follows its command
SEAM = 0.1  # s after the beginning of a switch that count as its seam
BEFORE = 3  # commands before it that do as well: the third difference reaches back as far


@dataclass
class Trace:
    """What was commanded.

    Attributes:
        commands: joints [d] every ``TICK``.
        switches: indices from which on another chunk begins to take over.
    """

    commands: list[np.ndarray] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)

    @property
    def curve(self) -> np.ndarray:
        """Commands [n, d]."""
        return np.array(self.commands)


def careless(
    chunk: Callable[[np.ndarray], np.ndarray], home: np.ndarray, chunks: int, latency: float, dt: float, measured: bool
) -> Trace:
    """Return the commands of joining chunks without care.

    Args:
        chunk: returns the joint targets [k, d] of a policy that sees the arm at joints [d].
        home: [d] where the arm starts, at rest.
        chunks: how many.
        latency: s from what a chunk is computed from until it arrives; the next is computed at once.
        dt: s between targets.
        measured: whether chunks are moved to the measured arm; else each plays from its first step.
    """
    here = arm = home.copy()
    times, curve, begin, now = np.array([0.0, 1.0]), np.repeat(here[None], 2, axis=0), 0.0, 0.0
    trace = Trace()
    for _ in range(chunks):
        targets = chunk(here)
        for _ in range(round(latency / TICK)):
            now += TICK
            here = hermite(times, curve, now - begin)
            arm = arm + (here - arm) * (TICK / LAG)
            trace.commands.append(here)
        trace.switches.append(len(trace.commands))
        if measured:
            elapsed = min(round(latency / dt), len(targets) - 1)
            targets = targets[elapsed:] - targets[elapsed - 1] + arm if elapsed else targets
            here = arm
        curve = np.vstack([here, targets])
        times, begin = dt * np.arange(len(curve)), now
    return trace


def hermite(times: np.ndarray, q: np.ndarray, t: float) -> np.ndarray:
    """Return the smooth cubic spline through ``q`` [m, d] at ``times`` [m], at rest before and after, at ``t``."""
    zero = np.zeros(q.shape[1])
    slope = (q[1] - q[0]) / (times[1] - times[0])
    v = node_velocities(times, q, slope, zero)
    t = min(max(t, 0.0), times[-1])
    k = min(int(np.searchsorted(times, t, "right")) - 1, len(times) - 2)
    h = times[k + 1] - times[k]
    x = (t - times[k]) / h
    a, b = x * x * (3 - 2 * x), x * (1 - x)
    return (1 - a) * q[k] + a * q[k + 1] + h * b * ((1 - x) * v[k] - x * v[k + 1])


def followed(commands: np.ndarray) -> np.ndarray:
    """Return where an arm goes [n, d] that follows commands [n, d] with a lag of first order."""
    arm, places = commands[0], []
    for command in commands:
        arm = arm + (command - arm) * (TICK / LAG)
        places.append(arm)
    return np.array(places)


def jerk(curve: np.ndarray) -> np.ndarray:
    """Return the jerk [n - 3], rad/s^3, over all joints, of a curve [n, d] every ``TICK``."""
    return np.linalg.norm(np.diff(curve, n=3, axis=0), axis=1) / TICK**3


def seam_jerk(curve: np.ndarray, switches: list[int]) -> dict[str, float | None]:
    """Return RMS jerk, rad/s^3, near the switches, elsewhere and in all.

    There is no ratio where all is near a switch: let chunks arrive further apart than ``SEAM``.
    """
    size = jerk(curve)
    near = np.zeros(len(size), bool)
    for switch in switches:
        near[max(switch - BEFORE, 0) : switch + round(SEAM / TICK)] = True
    at, inside = (float(np.sqrt(np.mean(size[x] ** 2))) if x.any() else 0.0 for x in (near, ~near))
    overall = float(np.sqrt(np.mean(size**2)))
    return {"at_seams": at, "inside": inside, "overall": overall, "ratio": at / inside if inside > 1e-6 else None}
