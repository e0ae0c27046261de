"""The rules of ros2_control's ``joint_trajectory_controller`` (Jazzy) on its topic interface, without ros2_control.

What the simulated arm obeys must be what a real controller obeys, its unfriendly habits included: it
checks neither limits nor NaN, a first point at time zero is a step, positions alone are joined by straight
lines. Nothing here is kinder to a command than the real thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """Desired positions, velocities and accelerations [d] at one instant, in the controller's joint order."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray | None

    @classmethod
    def at_rest(cls, position: np.ndarray) -> JointSample:
        position = np.array(position, dtype=float)
        return cls(position, np.zeros_like(position), np.zeros_like(position))


class JointTrajectoryController:
    """Follow the newest accepted trajectory; hold the last point when it has played out.

    Args:
        joints: names in the controller's order.
        position: where the joints are now; held until a trajectory is accepted.
        interpolate_from_desired_state: start a new trajectory from what was last desired (as shipped
            configurations do) rather than from the measured state (the default of the controller).
        allow_nonzero_velocity_at_end: accept trajectories that do not come to rest.
    """

    def __init__(
        self,
        joints: Sequence[str],
        position: np.ndarray,
        *,
        interpolate_from_desired_state: bool = False,
        allow_nonzero_velocity_at_end: bool = False,
    ) -> None:
        self.joints = tuple(joints)
        self._from_desired = interpolate_from_desired_state
        self._allow_nonzero_end = allow_nonzero_velocity_at_end
        self.reset(position)

    def reset(self, position: np.ndarray) -> None:
        """Forget every trajectory and hold this position, as on activation."""
        position = np.asarray(position, dtype=float)
        if position.shape != (len(self.joints),):
            raise ValueError(f"{len(self.joints)} joints need as many positions, got shape {position.shape}")
        self.desired = JointSample.at_rest(position)
        self._active: _Active | None = None
        self._pending: TrajectoryCommand | None = None
        self._updated: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the last accepted trajectory has played out (or none was ever accepted)."""
        return self._pending is None and (self._active is None or self._active.done)

    def accept(self, command: TrajectoryCommand, now: float) -> None:
        """Take a trajectory in place of the one in force, from the next :meth:`update` on.

        Raises:
            TrajectoryRejected: the controller's own checks refuse it; nothing changes.
        """
        self._pending = self._validated(command, now)

    def update(self, now: float, position: np.ndarray, velocity: np.ndarray) -> JointSample:
        """Return the desired state at ``now``, given the measured positions and velocities [d]."""
        if self._pending is not None:
            command, self._pending = self._pending, None
            if self._from_desired and self._updated is not None:
                # The desired state belongs to the last cycle: the bridge begins there and then.
                began, before = min(self._updated, now), self.desired
            elif self._from_desired:
                began, before = now, self.desired
            else:
                began, before = now, JointSample(np.array(position, float), np.array(velocity, float), None)
            self._active = _Active(command, command.stamp or now, began, before)
        self._updated = now
        if self._active is not None:
            self.desired = self._active.sample(now)
        return self.desired

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
        if velocities is not None and not self._allow_nonzero_end:
            fastest = float(np.abs(velocities[-1]).max(initial=0.0))
            if fastest > _FINAL_VELOCITY:
                raise TrajectoryRejected(f"velocity at the last point is not zero ({fastest:.3g})")
        return TrajectoryCommand(self.joints, times, positions, velocities, accelerations, command.stamp)


class _Active:
    """One accepted trajectory being sampled."""

    def __init__(self, command: TrajectoryCommand, start: float, began: float, before: JointSample) -> None:
        self.command = command
        self.times = start + command.times
        self.began = began
        self.before = before
        self.done = False

    def point(self, k: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        c = self.command
        return (
            c.positions[k],
            None if c.velocities is None else c.velocities[k],
            None if c.accelerations is None else c.accelerations[k],
        )

    def sample(self, now: float) -> JointSample:
        if now >= self.times[-1]:
            self.done = True
            return JointSample.at_rest(self.command.positions[-1])
        k = int(np.searchsorted(self.times, now, side="right"))
        if k == 0:  # the bridge from where the joints were when the trajectory came
            before = (self.before.position, self.before.velocity, self.before.acceleration)
            return interpolate(self.began, before, self.times[0], self.point(0), now)
        return interpolate(self.times[k - 1], self.point(k - 1), self.times[k], self.point(k), now)


_Point = tuple[np.ndarray, "np.ndarray | None", "np.ndarray | None"]


def interpolate(time_a: float, a: _Point, time_b: float, b: _Point, time: float) -> JointSample:
    """Join two points (position, velocity or None, acceleration or None): linear, cubic or quintic.

    The order is that of what *both* ends give, as in the controller.
    """
    (pa, va, aa), (pb, vb, ab) = a, b
    duration = time_b - time_a
    if duration <= 0.0:
        return JointSample.at_rest(pb)
    t = min(max(time - time_a, 0.0), duration)
    if va is None or vb is None:
        slope = (pb - pa) / duration
        return JointSample(pa + slope * t, slope, np.zeros_like(pa))
    if aa is None or ab is None:
        c2 = (3.0 * (pb - pa) / duration - 2.0 * va - vb) / duration
        c3 = (-2.0 * (pb - pa) / duration + va + vb) / duration**2
        return JointSample(
            pa + t * (va + t * (c2 + t * c3)),
            va + t * (2.0 * c2 + t * 3.0 * c3),
            2.0 * c2 + 6.0 * c3 * t,
        )
    d, T = pb - pa, duration
    c2 = 0.5 * aa
    c3 = (20.0 * d - (8.0 * vb + 12.0 * va) * T - (3.0 * aa - ab) * T**2) / (2.0 * T**3)
    c4 = (-30.0 * d + (14.0 * vb + 16.0 * va) * T + (3.0 * aa - 2.0 * ab) * T**2) / (2.0 * T**4)
    c5 = (12.0 * d - 6.0 * (vb + va) * T + (ab - aa) * T**2) / (2.0 * T**5)
    return JointSample(
        pa + t * (va + t * (c2 + t * (c3 + t * (c4 + t * c5)))),
        va + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * 5.0 * c5))),
        2.0 * c2 + t * (6.0 * c3 + t * (12.0 * c4 + t * 20.0 * c5)),
    )
