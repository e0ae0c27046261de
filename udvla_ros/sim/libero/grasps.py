"""Where to take hold of a thing: across it from above, or by the rim where it is too wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDEST = 0.072  # m that go between the fingers, which open to 0.08
DEPTH = 0.03  # m below its top at which a tall thing is taken
RIM = 0.012  # m below the top at which a rim is taken
SLICE = 0.012  # m of height about a grasp that count for the width there
FINGER = (0.048, 0.012, 0.014)  # m: middle of an open finger from the grasp, its half thickness and half width
HAND = (0.05, 0.10, 0.035)  # m: the hand is so far above a grasp, its half length along the fingers' way and across
ENOUGH = 0.03  # m of clearance beyond which more is of no use


@dataclass(frozen=True)
class Grasp:
    """Point [3] between the fingers, m, and the angle of the way they close about the vertical, rad."""

    position: np.ndarray
    yaw: float
    clearance: float


def best(points: np.ndarray, others: np.ndarray, yaw: float, floor: float) -> Grasp | None:
    """Return the grasp with most room for the fingers, little turning preferred; None where nothing fits.

    Args:
        points: in what is taken, [N, 3], m; ``others``: in all that stands about [M, 3].
        yaw: angle of the fingers now.
        floor: least height of the fingertips' middle, m.
    """
    found = list(_across(points, floor)) or list(_rim(points))
    scored = []
    for position, angle in found:
        turn = (angle - yaw + np.pi / 2) % np.pi - np.pi / 2  # a hand turned by 180 degrees grasps the same
        room = clearance(position, angle, others)
        scored.append((room - 0.004 * abs(turn), Grasp(position, yaw + turn, room)))
    return max(scored, key=lambda entry: entry[0])[1] if scored else None


def _across(points: np.ndarray, floor: float):
    bottom, top = points[:, 2].min(), points[:, 2].max()
    height = max(top - DEPTH, (top + bottom) / 2, floor)
    near = points[np.abs(points[:, 2] - height) < SLICE]
    near = near if len(near) > 3 else points
    for angle in np.linspace(0, np.pi, 24, endpoint=False):
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        u, v = near[:, :2] @ along, near[:, :2] @ across
        if np.ptp(u) < WIDEST:
            middle = along * (u.min() + u.max()) / 2 + across * (v.min() + v.max()) / 2
            yield np.array([*middle, height]), angle


def _rim(points: np.ndarray):
    top = points[:, 2].max()
    rim = points[points[:, 2] > top - 2 * RIM]
    centre = (rim[:, :2].min(0) + rim[:, :2].max(0)) / 2
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        out = np.array([np.cos(angle), np.sin(angle)])
        side = np.array([-out[1], out[0]])
        ray = rim[(np.abs((rim[:, :2] - centre) @ side) < 0.015) & ((rim[:, :2] - centre) @ out > 0)]
        if len(ray):
            reach = ((ray[:, :2] - centre) @ out).max() - 0.004
            yield np.array([*(centre + reach * out), top - RIM]), angle


def clearance(position: np.ndarray, angle: float, others: np.ndarray) -> float:
    """Return the room (m) about open fingers and the hand above them, at most :data:`ENOUGH`, negative inside."""
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    away = others - position
    u, v, up = np.abs(away[:, :2] @ along), np.abs(away[:, :2] @ across), away[:, 2]
    middle, thick, wide = FINGER
    fingers = np.maximum(np.abs(u - middle) - thick, v - wide)[up > -0.015]
    above, long, broad = HAND
    hand = np.maximum(u - long, v - broad)[up > above]
    return float(min(ENOUGH, *fingers, *hand)) if len(fingers) or len(hand) else ENOUGH
