"""From an operator's wish to a short motion that starts at the commanded state and ends at rest.

Every motion sets out from what the arbiter commands, position and velocity, never from the measured arm: a
stick that is touched while the policy moves the arm bends that motion, and nothing winds up while the arm is
held at a limit. The motion goes on as wished for ``AHEAD`` and then brakes, so that an operator who vanishes
leaves an arm that comes to rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.teleop.straight import StraightLine
from udvla_ros.teleop.wish import REST, Wish

STEP = 0.02  # s of the integration
POINT = 0.04  # s between points
AHEAD = 0.16  # s for which the wish goes on before the arm brakes: more than a busy machine's gap in a stream
CHANGES = POINT * np.arange(1, 76)  # s a change of velocity may take; from any allowed speed it takes less
GENTLE, ABRUPT = 0.6, 0.5  # parts of the acceleration and jerk limits a wish may use: the arbiter's spline needs more
KEPT = 2e-3  # rad kept from the soft bounds
CAP = 0.9  # part of the velocity limits that a wish may ask for
GAIN = 8.0  # 1/s, of following a goal
DAMPING, SINGULAR, LEVER = 0.05, 0.05, 0.3  # as in motion/kinematics.py
SLOWER = (1.0, 0.5, 0.2, 0.05)  # of a wish that leaves the bounds: the first that stays inside is taken, else rest


@dataclass(frozen=True)
class Speeds:
    """Speeds at full deflection and scale 1: of the TCP in m/s and rad/s, of a joint in rad/s."""

    linear: float = 0.25
    angular: float = 1.0
    joint: float = 1.0

    def __post_init__(self) -> None:
        if not min(self.linear, self.angular, self.joint) > 0:
            raise ConfigError("speeds of teleop must be above 0; give m/s and rad/s")


@dataclass(frozen=True, eq=False)
class Motion:
    """Points of a motion, relative to the commanded state it set out from.

    Attributes:
        times: [n] s, increasing, the first above 0.
        q, qd: [n, d] rad and rad/s; the last is at rest.
        note: what keeps the arm from doing all that is wished, for people; else empty.
        wanted: [d] rad/s wished for at the start, in joints and within the limits.
    """

    times: np.ndarray
    q: np.ndarray
    qd: np.ndarray
    note: str
    wanted: np.ndarray


class Change:
    """A change of velocity that fades from ``offset``, ``slope`` [d] to nothing as a cubic, all joints together.

    It takes the shortest of ``CHANGES`` that keeps within the accelerations and jerks [d], or the longest.
    """

    def __init__(self, offset: np.ndarray, slope: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray) -> None:
        self.offset, self.slope = offset, slope
        t = CHANGES[:, None]
        ends = np.abs(6 * offset / t**2 + 4 * slope / t), np.abs(6 * offset / t**2 + 2 * slope / t)
        fits = (np.maximum(*ends) <= np.maximum(jerk, 1e-9)).all(axis=1)
        for u in (0.25, 0.5, 0.75):
            rate = offset * (6 * u * u - 6 * u) / t + slope * (1 - 4 * u + 3 * u * u)
            fits &= (np.abs(rate) <= np.maximum(acceleration, np.abs(slope))).all(axis=1)
        self.duration = float(CHANGES[fits.argmax()] if fits.any() else CHANGES[-1])

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return its distance, velocity and acceleration [d] at ``t`` s."""
        T = self.duration
        u = min(t / T, 1.0)
        distance = self.offset * T * (u - u**3 + u**4 / 2) + self.slope * T * T * (u**2 / 2 - 2 * u**3 / 3 + u**4 / 4)
        velocity = self.offset * (1 - 3 * u**2 + 2 * u**3) + self.slope * T * (u - 2 * u**2 + u**3)
        return distance, velocity, self.offset * (6 * u**2 - 6 * u) / T + self.slope * (1 - 4 * u + 3 * u**2)


class Jogger:
    """Makes motions of wishes for one robot. Keeps nothing but the line of a straight motion."""

    def __init__(self, robot: RobotDescription) -> None:
        self.robot, self._line = robot, StraightLine(robot.kinematics)
        self._acceleration, self._jerk = GENTLE * robot.limits.acceleration, ABRUPT * robot.limits.jerk

    def motion(self, q: np.ndarray, qd: np.ndarray, wish: Wish, qdd: np.ndarray | None = None) -> Motion:
        """Return the motion from the commanded state ``q``, ``qd`` and, where known, ``qdd`` [d].

        It stays within the soft bounds, the workspace and the velocity limits, those of the TCP included, where
        braking at once does; an arm found beyond a bound may come back.
        """
        limits, q = self.robot.limits, np.asarray(q, float)
        v = np.clip(qd, -limits.velocity, limits.velocity)
        a = np.clip(np.zeros_like(q) if qdd is None else qdd, -limits.acceleration, limits.acceleration)
        self._line.begin(q + Change(v, a, self._acceleration, self._jerk).at(np.inf)[0], wish)  # what still runs out
        start = self._depth(q[None])
        note, wanted = "", np.zeros_like(q)
        for part in SLOWER if wish.moves else ():
            motion = self._made(q, v, a, wish, part)
            why = self._outside(motion.q, q, start)
            if part == 1.0:
                wanted = motion.wanted
            if not why:
                return Motion(motion.times, motion.q, motion.qd, note or motion.note, wanted)
            note = note or why
        motion = self._made(q, v, a, REST, 1.0)
        # Somebody else's motion, taken over close to a bound, may need a quicker stop than this one: the arbiter's.
        inside = np.clip(motion.q, np.minimum(limits.lower, q), np.maximum(limits.upper, q))
        return Motion(motion.times, inside, np.where(inside == motion.q, motion.qd, 0.0), note, wanted)

    def _depth(self, q: np.ndarray) -> float:
        """Return how far the TCP leaves the workspace at joints [n, d], m; negative inside."""
        return float(self.robot.workspace.depth(self.robot.kinematics.positions(q)).max())

    def _outside(self, q: np.ndarray, start: np.ndarray, depth: float) -> str:
        """Return why joints [n, d] may not be asked for, or nothing; ``start`` [d] and its ``depth`` may be outside."""
        limits = self.robot.limits
        lower, upper = np.minimum(limits.lower + KEPT, start), np.maximum(limits.upper - KEPT, start)
        beyond = np.maximum(lower - q, q - upper).max(axis=0)
        if beyond.max() > 1e-9:
            return f"{self.robot.joints[int(beyond.argmax())]} is at its limit"
        return "at the edge of the workspace" if self._depth(q) > max(0.0, depth) + 1e-9 else ""

    def _made(self, q: np.ndarray, v: np.ndarray, a: np.ndarray, wish: Wish, part: float) -> Motion:
        times, positions, velocities, t = [], [], [], 0.0
        wanted, note = self._wanted(q, wish, 0.0, part)
        begin = wanted
        if wish.moves:
            change = Change(v - wanted, a, self._acceleration, self._jerk)
            for k in range(1, round(AHEAD / STEP) + 1):
                ahead, said = self._wanted(q + v * STEP, wish, k * STEP, part)
                _, off, slope = change.at(k * STEP)
                new = ahead + off
                q, a = q + (v + new) / 2 * STEP, slope + (ahead - wanted) / STEP
                v, wanted, note, t = new, ahead, note or said, k * STEP
                if k % round(POINT / STEP) == 0:
                    times.append(t)
                    positions.append(q)
                    velocities.append(v)
        brake = Change(v, a, self._acceleration, self._jerk)
        for k in range(1, max(2, round(brake.duration / POINT)) + 1):
            distance, velocity, _ = brake.at(k * POINT)
            times.append(t + k * POINT)
            positions.append(q + distance)
            velocities.append(velocity)
        limit = self.robot.limits.velocity
        return Motion(np.array(times), np.array(positions), np.clip(velocities, -limit, limit), note, begin)

    # -- one step ------------------------------------------------------------------------------------------
    def _wanted(self, q: np.ndarray, wish: Wish, t: float, part: float) -> tuple[np.ndarray, str]:
        """Return joint velocities [d] that would do what is wished, within the velocity limits."""
        note = ""
        if wish.goal is not None:
            along = np.zeros_like(q) if wish.goal_velocity is None else wish.goal_velocity
            error = wish.goal + along * t - q
            reach = np.sqrt(2 * GENTLE * self.robot.limits.acceleration * np.abs(error))
            wanted = (along + np.sign(error) * np.minimum(GAIN * np.abs(error), reach)) * part
        elif wish.twist is not None:
            twist = self._line.corrected(q, wish, part)
            wanted, note = self._joint_velocities(q, twist, bool(np.any(wish.twist[3:])))
        elif wish.joints is not None:
            wanted = np.asarray(wish.joints, float) * part
        else:
            return np.zeros_like(q), note
        most = float((np.abs(wanted) / (CAP * self.robot.limits.velocity)).max())
        jacobian = self.robot.kinematics.jacobian(q)
        tcp = float(np.linalg.norm(jacobian[:3] @ wanted)) / (CAP * self.robot.limits.tcp_speed)
        return wanted / max(1.0, most, tcp), note

    def _joint_velocities(self, q: np.ndarray, twist: np.ndarray, turns: bool) -> tuple[np.ndarray, str]:
        """Return the damped least-squares answer to a twist in base axes (Nakamura and Hanafusa 1986)."""
        weights = np.array([LEVER] * 3 + [1.0] * 3)
        # An arm of fewer joints cannot keep its TCP from turning: where no turn is wished, it may turn.
        rows = slice(None) if len(q) >= 6 or turns else slice(3)
        jacobian = (self.robot.kinematics.jacobian(q) / weights[:, None])[rows]
        gram = jacobian @ jacobian.T
        spectrum = np.linalg.eigvalsh(gram)[max(0, len(gram) - len(q)) :]
        least, damping, note = float(np.sqrt(max(spectrum[0], 0.0))), 1e-10, ""
        if least < SINGULAR or len(gram) > len(q):
            damping += DAMPING**2 * (1 - min(1.0, least / SINGULAR) ** 2) + 1e-4 * (len(gram) > len(q))
            note = "near a singularity: move around it, or by joints" if least < SINGULAR else ""
        gram[np.diag_indices(len(gram))] += damping
        return jacobian.T @ np.linalg.solve(gram, (twist / weights)[rows]), note
