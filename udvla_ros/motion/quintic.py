"""Quintic cells: polynomials given by position, velocity and acceleration at both ends.

This is also how ``joint_trajectory_controller`` interpolates points that carry all three, so a plan made of
such cells is what the controller plays. The Bernstein control points of a polynomial enclose it (convex hull
property), which bounds every derivative over the whole cell, not only at samples.

Everything here is linear in the knots. A cell of duration h that starts at 0 is a cell of one second with the
end, velocities h v and accelerations h^2 a; what holds for that one is a table, and many cells are one product.
"""

from __future__ import annotations

import numpy as np

# Rows of a table of control points: position [6], velocity [5], acceleration [4], jerk [3].
POSITION, VELOCITY, ACCELERATION, JERK = slice(0, 6), slice(6, 11), slice(11, 15), slice(15, 18)


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return control points [18, 5] and power coefficients [6, 5] of the cell of one second that starts at 0.

    Columns: its end, velocity and acceleration at the start, velocity and acceleration at the end.
    """
    end, v0, a0, v1, a1 = np.eye(5)
    b = np.stack([0 * end, v0 / 5, 2 * v0 / 5 + a0 / 20, end - 2 * v1 / 5 + a1 / 20, end - v1 / 5, end])
    velocity = 5 * np.diff(b, axis=0)
    acceleration = 4 * np.diff(velocity, axis=0)
    points = np.vstack([b, velocity, acceleration, 3 * np.diff(acceleration, axis=0)])
    third = 10 * end - 6 * v0 - 4 * v1 + (a1 - 3 * a0) / 2
    fourth = -15 * end + 8 * v0 + 7 * v1 + (3 * a0 - 2 * a1) / 2
    fifth = 6 * end - 3 * (v0 + v1) + (a1 - a0) / 2
    return points, np.stack([0 * end, v0, a0 / 2, third, fourth, fifth])


CONTROL, POWER = _tables()
MIDDLE = np.array([1, 5, 10, 10, 5, 1]) / 32  # de Casteljau at one half, of the control points of position


def _knots(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return the columns that the tables multiply, for all cells and joints in one row each: [5, n * d]."""
    size = q.shape[1]
    q, v, a = q.reshape(-1), v.reshape(-1), a.reshape(-1)
    knots = np.empty((5, len(h)))
    np.subtract(q[size:], q[:-size], out=knots[0])
    np.multiply(v[:-size], h, out=knots[1])
    np.multiply(v[size:], h, out=knots[3])
    square = h * h
    np.multiply(a[:-size], square, out=knots[2])
    np.multiply(a[size:], square, out=knots[4])
    return knots


def hulls(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return the control points [18, n, d] of all four derivatives; see ``POSITION`` and its like for the rows.

    Args:
        h: durations of the cells [n], s.
        q, v, a: position, velocity and acceleration at the knots [n + 1, d].
    """
    cells, size = q[1:].shape
    h = h.repeat(size)  # long rows: numpy is slow at many short ones
    points = CONTROL @ _knots(h, q, v, a)
    points[POSITION] += q[:-1].reshape(-1)
    rate = 1.0 / h
    points[VELOCITY] *= rate
    points[ACCELERATION] *= rate * rate
    points[JERK] *= rate * rate * rate
    return points.reshape(-1, cells, size)


def bernstein(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return :func:`hulls` as position [6, n, d], velocity [5], acceleration [4] and jerk [3]."""
    points = hulls(h, q, v, a)
    return points[POSITION], points[VELOCITY], points[ACCELERATION], points[JERK]


def middles(points: np.ndarray) -> np.ndarray:
    """Return the positions [n, d] in the middle of each cell, of :func:`hulls`."""
    return (MIDDLE @ points[POSITION].reshape(6, -1)).reshape(points.shape[1:])


def coefficients(h: np.ndarray, q: np.ndarray, v: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return power coefficients [n, 6, d] of the cells in seconds from their start; arguments as above."""
    cells, size = q[1:].shape
    h = h.repeat(size)
    c = POWER @ _knots(h, q, v, a)
    c[0] = q[:-1].reshape(-1)
    c[1:] *= (1.0 / h) ** ORDERS
    return c.reshape(6, cells, size).transpose(1, 0, 2)


ORDERS = np.arange(1, 6)[:, None]  # of the powers after the constant


# Rows: value, first and second derivative of 1, u, u^2, ... u^5: a factor times a power of u.
FACTORS = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5], [0, 0, 2, 6, 12, 20]], float)
POWERS = np.array([[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4], [0, 0, 0, 1, 2, 3]])


def at(c: np.ndarray, u: float) -> np.ndarray:
    """Return position, velocity and acceleration [3, d] at ``u`` seconds into one cell [6, d]: one instant, quickly."""
    u2, u3, u4 = u * u, u * u * u, u * u * u * u
    powers = (
        (1.0, u, u2, u3, u4, u4 * u),
        (0.0, 1.0, 2 * u, 3 * u2, 4 * u3, 5 * u4),
        (0.0, 0.0, 2.0, 6 * u, 12 * u2, 20 * u3),
    )
    return np.array(powers) @ c


def evaluate(c: np.ndarray, cell: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return position, velocity and acceleration [m, d] at ``u`` seconds [m] into cells ``cell`` [m]."""
    powers = np.ones((len(u), 6))
    powers[:, 1:] = u[:, None]
    powers = np.multiply.accumulate(powers, axis=1)
    values = (FACTORS * powers[:, POWERS]) @ c[cell]
    return values[:, 0], values[:, 1], values[:, 2]
