"""Quintic cells: polynomials given by position, velocity and acceleration at both ends.

This is also how ``joint_trajectory_controller`` interpolates points that carry all three, so a plan made of
such cells is what the controller plays. The Bernstein control points of a polynomial enclose it (convex hull
property), which bounds every derivative over the whole cell, not only at samples.
"""

from __future__ import annotations

import numpy as np


def bernstein(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the control points of position [6, n, d], velocity [5], acceleration [4] and jerk [3].

    Args:
        h: durations of the cells [n], s.
        q, v, a: position, velocity and acceleration at the knots [n + 1, d].
    """
    h = h[:, None]
    b = np.empty((6, *q[1:].shape))
    b[0], b[5] = q[:-1], q[1:]
    b[1], b[4] = q[:-1] + v[:-1] * (h / 5), q[1:] - v[1:] * (h / 5)
    b[2] = 2 * b[1] - b[0] + a[:-1] * (h * h / 20)
    b[3] = 2 * b[4] - b[5] + a[1:] * (h * h / 20)
    velocity = (b[1:] - b[:-1]) * (5 / h)
    acceleration = (velocity[1:] - velocity[:-1]) * (4 / h)
    return b, velocity, acceleration, (acceleration[1:] - acceleration[:-1]) * (3 / h)


def coefficients(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return power coefficients [n, 6, d] of the cells in seconds from their start; arguments as above."""
    h = h[:, None]
    # Remainders after the start's Taylor expansion keep their digits where cells are short.
    r = (q[1:] - q[:-1] - (v[:-1] + a[:-1] * (h / 2)) * h) / h**3
    rv = (v[1:] - v[:-1] - a[:-1] * h) / h**2
    ra = (a[1:] - a[:-1]) / h
    c = np.empty((len(r), 6, r.shape[1]))
    c[:, 0], c[:, 1], c[:, 2] = q[:-1], v[:-1], a[:-1] / 2
    c[:, 3] = 10 * r - 4 * rv + ra / 2
    c[:, 4] = (-15 * r + 7 * rv - ra) / h
    c[:, 5] = (6 * r - 3 * rv + ra / 2) / (h * h)
    return c


# Rows: value, first and second derivative of 1, u, u^2, ... u^5: a factor times a power of u.
FACTORS = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5], [0, 0, 2, 6, 12, 20]], float)
POWERS = np.array([[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4], [0, 0, 0, 1, 2, 3]])


def evaluate(c: np.ndarray, cell: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return position, velocity and acceleration [m, d] at ``u`` seconds [m] into cells ``cell`` [m]."""
    powers = np.ones((len(u), 6))
    powers[:, 1:] = u[:, None]
    powers = np.multiply.accumulate(powers, axis=1)
    values = (FACTORS * powers[:, POWERS]) @ c[cell]
    return values[:, 0], values[:, 1], values[:, 2]
