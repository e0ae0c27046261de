"""What ros2_control's ``joint_trajectory_controller`` (Jazzy) makes of the messages on its topic, without ros2_control.

What the simulated arm obeys must be what a real controller obeys, its unfriendly habits included. It checks neither
limits nor NaN; a first point at time zero is a step; positions alone are joined by straight lines. In each cycle it
writes the sample of the *next* period and takes that for the state it is in *now*: a trajectory that begins after now
is bridged to from there, one period too far along. Deactivated, it drops messages without a word, and activated again
it takes the next one as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from udvla_ros.motion import quintic

# The real controller compares final velocities with the machine epsilon of a float.
_FINAL_VELOCITY = float(np.finfo(np.float32).eps)


class TrajectoryRejected(ValueError):
    """The controller does not take this trajectory; the one in force goes on."""


@dataclass(frozen=True)
class TrajectoryCommand:
    """A ``trajectory_msgs/JointTrajectory`` as arrays.

    ``times`` [n] are seconds from the start; ``positions``, ``velocities`` and ``accelerations`` are [n, d] in
    the order of ``names``; ``stamp`` is the start in seconds, 0 for 'now'.
    """

    names: tuple[str, ...]
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None
    stamp: float = 0.0


@dataclass(frozen=True)
class JointSample:
    """Positions, velocities and accelerations [d] at one instant, in the controller's joint order."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def at_rest(cls, position: np.ndarray) -> JointSample:
        """Return the sample of joints that stand."""
        position = np.array(position, dtype=float)
        return cls(position, np.zeros_like(position), np.zeros_like(position))


class JointTrajectoryController:
    """Follow the newest accepted trajectory; hold the last point when it has played out.

    Args:
        joints: names in the controller's order.
        position: where the joints are now; held until a trajectory is accepted.
        period: of its cycles, s, as it reckons with.
        interpolate_from_desired_state: start a new trajectory from what was last commanded (as shipped
            configurations do) rather than from the measured state (the default of the controller).
        allow_nonzero_velocity_at_end: accept trajectories that do not come to rest.
        path_tolerance: rad of following error at which it gives the trajectory up and holds where it is measured,
            until the next message; 0 is off.

    Attributes:
        command: what it wrote to the joints in the last cycle.
        active: whether it does anything at all; see :meth:`activate`.
        scaling: speed factor, 0 to 1: time of the trajectory that passes in a second.
        skipped: [n, d] samples of its own way that it passed over in the cycle in which it took up its last trajectory:
            it writes the sample of the next period, from a state that it believes to be one period younger. None where
            that trajectory had begun already, so that no way of its own was needed, and in all other cycles.
    """

    def __init__(
        self,
        joints: Sequence[str],
        position: np.ndarray,
        *,
        period: float = 0.01,
        interpolate_from_desired_state: bool = False,
        allow_nonzero_velocity_at_end: bool = False,
        path_tolerance: float = 0.0,
    ) -> None:
        self.joints, self.period, self.scaling = tuple(joints), period, 1.0
        self.skipped: np.ndarray | None = None
        self._from_desired, self._allow_moving_end = interpolate_from_desired_state, allow_nonzero_velocity_at_end
        self._tolerance = path_tolerance
        self.activate(position)

    def activate(self, position: np.ndarray) -> None:
        """Forget every trajectory and hold this position."""
        position = np.asarray(position, dtype=float)
        if position.shape != (len(self.joints),):
            raise ValueError(f"{len(self.joints)} joints need as many positions, got shape {position.shape}")
        self.active, self.aborted = True, 0
        self.command = JointSample.at_rest(position)
        self._commanded_at: float | None = None
        self._pending: TrajectoryCommand | None = None
        self._playing: _Playing | None = None
        self._time = -np.inf  # of the trajectory: that of its first cycle, and what has passed since

    def deactivate(self) -> None:
        """Write nothing and drop every message, until :meth:`activate`."""
        self.active, self._pending, self._playing = False, None, None

    @property
    def idle(self) -> bool:
        """Whether the last accepted trajectory has played out (or none was ever accepted)."""
        return self._pending is None and (self._playing is None or self._time >= self._playing.times[-1])

    def accept(self, command: TrajectoryCommand, now: float) -> None:
        """Take a trajectory in place of the one in force, from the next :meth:`update` on; none while inactive.

        Raises:
            TrajectoryRejected: the controller's own checks refuse it; nothing changes.
        """
        if self.active:
            self._pending = self._validated(command, now)

    def update(
        self, now: float, position: np.ndarray, velocity: np.ndarray, elapsed: float | None = None
    ) -> JointSample:
        """Return what is written in the cycle at ``now``, given the measured positions and velocities [d].

        Args:
            elapsed: length of the cycle, s; the nominal period by default.
        """
        if not self.active:
            return self.command
        first = self._take_up(now, position, velocity)
        if self._playing is None:
            self._commanded_at = now
            return self.command
        if not first:
            self._time += (self.period if elapsed is None else elapsed) * self.scaling
        return self._sample(now, position)

    def play(self, now: float, cycles: int) -> np.ndarray:
        """Return the positions [cycles, d] that :meth:`update` would write one by one, by an arm that follows.

        The first cycle is at ``now``; no message comes and no tolerance is looked at meanwhile.
        """
        out = np.repeat(self.command.position[None], cycles, axis=0)
        if not self.active or not cycles:
            return out
        here = self.command
        first = self._take_up(now, here.position, here.velocity)
        playing = self._playing
        if playing is None:
            self._commanded_at = now + self.period * (cycles - 1)
            return out
        step = self.period * self.scaling
        times = self._time + step * np.arange(0 if first else 1, cycles + (0 if first else 1))
        seen = times + step >= playing.times[0]  # before that the controller writes nothing
        q, qd, qdd = playing.sample(times + step)
        out[seen] = q[seen]
        if seen.any():
            self.command = JointSample(q[-1], qd[-1], qdd[-1])
            self._commanded_at = now + self.period * (cycles - 1)
        self._time = float(times[-1])
        return out

    # -- inside ------------------------------------------------------------------------------------------
    def _take_up(self, now: float, position: np.ndarray, velocity: np.ndarray) -> bool:
        """Begin what was accepted since the last cycle; returns whether there was anything."""
        self.skipped = None
        if self._pending is None:
            return False
        command, self._pending = self._pending, None
        if self._from_desired:
            began = now if self._commanded_at is None else self._commanded_at
            before = (self.command.position, self.command.velocity, self.command.acceleration)
        else:
            # What is missing of the measured state counts as zero where the first point has it.
            began, before = now, (np.array(position, float), np.array(velocity, float), 0.0 * np.asarray(position))
        self._playing = _Playing(command, command.stamp or now, began, before)
        self._time = now
        if self._from_desired and began < now < self._playing.times[1]:
            passed = np.arange(1.0, round(1.0 / max(self.scaling, 0.01)) + 1.0) * self.scaling * self.period
            self.skipped = self._playing.sample(now - self.period + passed)[0]
        return True

    def _sample(self, now: float, position: np.ndarray) -> JointSample:
        playing, ahead = self._playing, self._time + self.period * self.scaling
        assert playing is not None
        if ahead < playing.times[0]:
            return self.command  # sampled before the state it was to be joined to: nothing is written
        if self._tolerance and self._time < playing.times[-1]:
            desired = playing.sample(np.array([self._time]))[0][0]
            if np.abs(np.asarray(position, float) - desired).max() > self._tolerance:
                self.aborted += 1
                self._playing, self.command = None, JointSample.at_rest(position)
                self._commanded_at = now
                return self.command
        q, qd, qdd = playing.sample(np.array([ahead]))
        self.command, self._commanded_at = JointSample(q[0], qd[0], qdd[0]), now
        return self.command

    def _validated(self, command: TrajectoryCommand, now: float) -> TrajectoryCommand:
        names, times = command.names, np.asarray(command.times, dtype=float)
        if len(times) == 0:
            raise TrajectoryRejected("empty trajectory: it is ignored and does not stop the one in force")
        if len(names) != len(self.joints):
            raise TrajectoryRejected(
                f"{len(names)} joints named, the controller has {len(self.joints)}: no partial goals"
            )
        unknown = [name for name in names if name not in self.joints]
        if unknown:
            raise TrajectoryRejected(f"unknown joints: {', '.join(unknown)}")
        if len(set(names)) != len(names):
            raise TrajectoryRejected("a joint is named twice")
        if command.stamp and command.stamp + times[-1] < now:
            raise TrajectoryRejected(f"it ended {now - command.stamp - times[-1]:.3f} s ago")
        backwards = np.flatnonzero(~(np.diff(times) > 0))
        if backwards.size:
            k = int(backwards[0])
            raise TrajectoryRejected(f"times of points {k} and {k + 1} are not strictly increasing")

        order = [names.index(joint) for joint in self.joints]
        mapped: list[np.ndarray | None] = []
        for field in ("positions", "velocities", "accelerations"):
            values = getattr(command, field)
            if values is None:
                if field == "positions":
                    raise TrajectoryRejected("points without positions")
                mapped.append(None)
                continue
            values = np.asarray(values, dtype=float)
            if values.shape != (len(times), len(names)):
                raise TrajectoryRejected(f"{field} have shape {values.shape}, not {(len(times), len(names))}")
            mapped.append(values[:, order])
        positions, velocities, accelerations = mapped
        assert positions is not None
        if velocities is not None and not self._allow_moving_end:
            fastest = float(np.abs(velocities[-1]).max(initial=0.0))
            if fastest > _FINAL_VELOCITY:
                raise TrajectoryRejected(f"velocity at the last point is not zero ({fastest:.3g})")
        return TrajectoryCommand(self.joints, times, positions, velocities, accelerations, command.stamp)


class _Playing:
    """An accepted trajectory: cells from the state before it through its points, as the controller joins them.

    Two points are joined by a line, a cubic or a quintic: by the derivatives that *both* of them have.

    Attributes:
        times: [m + 1] of the ends of the cells, s.
    """

    def __init__(self, command: TrajectoryCommand, start: float, began: float, before: Sequence[np.ndarray]) -> None:
        points = [x for x in (command.positions, command.velocities, command.accelerations) if x is not None]
        times = start + command.times
        knots = [np.concatenate([b[None], x]) for b, x in zip(before, points, strict=False)]
        self.times = np.concatenate([[min(began, times[0])], times])
        self._last = [points[k][-1] if k < len(points) else np.zeros(len(command.names)) for k in range(3)]
        h = np.maximum(np.diff(self.times), 1e-12)[:, None]
        q, d = knots[0], np.diff(knots[0], axis=0)
        if len(knots) == 3:
            self._c = quintic.coefficients(h[:, 0], *knots)
            return
        self._c = np.zeros((len(h), 6, q.shape[1]))
        self._c[:, 0] = q[:-1]
        if len(knots) == 1:
            self._c[:, 1] = d / h
        else:
            v = knots[1]
            self._c[:, 1] = v[:-1]
            self._c[:, 2] = (3.0 * d / h - 2.0 * v[:-1] - v[1:]) / h
            self._c[:, 3] = (-2.0 * d / h + v[:-1] + v[1:]) / h**2

    def sample(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position, velocity and acceleration [n, d] at ``t`` [n], none before the first cell."""
        cell = np.searchsorted(self.times, t, "right") - 1
        inside = np.clip(cell, 0, len(self._c) - 1)
        values = quintic.evaluate(self._c, inside, np.maximum(t - self.times[inside], 0.0))
        over = cell >= len(self._c)
        if over.any():
            values[0][over], values[1][over], values[2][over] = self._last
        return values
