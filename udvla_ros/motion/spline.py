"""A smooth path through the points of a request: a cubic spline, then quintic cells that keep its accelerations.

The spline is smooth to the acceleration at every point, leaves from the given state, and ends at rest.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from udvla_ros.motion.admission import Request
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.path import SplinePath
from udvla_ros.motion.plan import State

# Greatest acceleration and jerk of coming to rest within a segment after even ones, by its length over its time
# squared and cubed; 3.5 and 27 by the spline itself, and a little for what is blended into it.
STOP = (3.8, 30.0)
CRUISE = 0.8  # fraction of the velocity limit a straight segment may need on average; the spline peaks above it


def node_velocities(times: np.ndarray, q: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return velocities [m, d] at the nodes of the cubic spline that is smooth to the acceleration.

    Args:
        times: node times [m], s.
        q: node positions [m, d].
        first, last: velocities at both ends [d].
    """
    h = times[1:] - times[:-1]
    slope = (q[1:] - q[:-1]) / h[:, None]
    v = np.empty_like(q)
    v[0], v[-1] = first, last
    if len(times) == 2:
        return v
    # De Boor, A Practical Guide to Splines, chapter IV: accelerations agree at each inner node.
    inner = len(times) - 2
    system = np.zeros((inner, inner + 2))
    rows = np.arange(inner)
    system[rows, rows], system[rows, rows + 1], system[rows, rows + 2] = h[1:], 2.0 * (h[:-1] + h[1:]), h[:-1]
    right = 3.0 * (h[1:, None] * slope[:-1] + h[:-1, None] * slope[1:])
    right -= system[:, :1] * first + system[:, -1:] * last
    v[1:-1] = np.linalg.solve(system[:, 1:-1], right)
    return v


def node_accelerations(times: np.ndarray, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return accelerations [m, d] at the nodes of cubic cells, the mean of both sides where there are two."""
    h = (times[1:] - times[:-1])[:, None]
    slope = (q[1:] - q[:-1]) / h
    after = (6 * slope - 4 * v[:-1] - 2 * v[1:]) / h
    before = (-6 * slope + 2 * v[:-1] + 4 * v[1:]) / h
    return np.concatenate([after[:1], (before[:-1] + after[1:]) / 2, before[-1:]])


def stretched(times: np.ndarray, q: np.ndarray, limits: Limits, stops: bool = True) -> np.ndarray:
    """Return node times [m] moved later where a straight segment would need more than the limits.

    ``stops`` says whether the last segment ends at rest, and so has to hold the stop.
    """
    h, way = times[1:] - times[:-1], np.abs(q[1:] - q[:-1])
    least = (way / (CRUISE * limits.velocity)).max(axis=1)
    if stops:
        stop = np.sqrt(STOP[0] * way[-1] / limits.acceleration), np.cbrt(STOP[1] * way[-1] / limits.jerk)
        least[-1] = max(least[-1], np.max(stop))
    if (least <= h).all():
        return times
    return times[0] + np.concatenate([[0.0], np.cumsum(np.maximum(h, least))])


@lru_cache(maxsize=64)
def _even(count: int, h: float) -> np.ndarray:
    """Return [2 * count, count + 2]: velocities and accelerations at nodes ``h`` s apart, of all that shapes them.

    They are linear in the node positions and the velocities at both ends; the spacing of chunks rarely changes.
    """
    one, times = np.eye(count + 2), h * np.arange(count)
    v = node_velocities(times, one[:count], one[count], one[count + 1])
    return np.concatenate([v, node_accelerations(times, one[:count], v)])


def smooth(times: np.ndarray, q: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return :func:`node_velocities` and their :func:`node_accelerations`."""
    h = times[1:] - times[:-1]
    if h.max() - h.min() > 1e-9:
        v = node_velocities(times, q, first, last)
        return v, node_accelerations(times, q, v)
    both = _even(len(times), round(float(h[0]), 9)) @ np.concatenate([q, first[None], last[None]])
    return both[: len(times)], both[len(times) :]


def spline(
    request: Request,
    origin: tuple[float, State],
    limits: Limits,
    gripper: tuple[float, float],
    tail: float = 0.0,
    cap: float = np.inf,
) -> SplinePath:
    """Return the path from ``origin`` (time relative to now, state commanded then) through the points.

    Points due before the origin are left out, and what would be played later than ``cap`` s after now, since nobody is
    followed for so long. The path ends at rest, on the last point or ``tail`` after it. ``gripper`` is where its joint
    is, and where it goes if the request does not say.
    """
    begin, state = origin
    skip = min(int(np.searchsorted(request.times, begin + 1e-3, "right")), len(request.times) - 1)
    q = np.concatenate([state.q[None], request.q[skip:]])
    wanted = np.full(len(q), gripper[1])
    if request.gripper is not None:
        wanted[0], wanted[1:] = gripper[0], request.gripper[skip:]
    times = stretched(np.concatenate([[begin], request.times[skip:]]), q, limits, stops=tail == 0)
    if times[-1] > cap + 1e-3:
        kept = max(1, int(np.searchsorted(times, cap - 1e-3)))
        part = (cap - times[kept - 1]) / (times[kept] - times[kept - 1])
        times = np.append(times[:kept], cap)
        q = np.concatenate([q[:kept], q[kept - 1 : kept] + part * (q[kept] - q[kept - 1])])
        wanted = wanted[: kept + 1]
        times = stretched(times, q, limits, stops=tail == 0)
    last = np.zeros_like(state.q)
    if tail > 0:
        last = (q[-1] - q[-2]) / (times[-1] - times[-2]) / 2  # already slowing, so that little is overshot
    v, a = smooth(times, q, state.qd, last)
    if request.velocities is not None and len(q) == len(request.times) - skip + 1:
        v[1:] = request.velocities[skip:]
        v[-1] *= 1.0 if tail > 0 else 0.0
        a = node_accelerations(times, q, v)
    a[0], a[-1] = state.qdd, 0.0
    if tail > 0:
        times = np.append(times, times[-1] + tail)
        q = np.concatenate([q, q[-1:] + v[-1] * (tail / 2)])
        v, a = np.concatenate([v, 0 * v[:1]]), np.concatenate([a, 0 * a[:1]])
        wanted = np.append(wanted, wanted[-1])
    return SplinePath(times, q, v, a, (times, wanted))
