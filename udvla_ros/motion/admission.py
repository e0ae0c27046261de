"""What is refused before it is looked at as a motion: malformed, unnamed, stale, or far from the arm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from udvla_ros.motion.errors import Refused
from udvla_ros.motion.plan import State
from udvla_ros.motion.robot import Gripper, RobotDescription
from udvla_ros.motion.trajectory import Trajectory


@dataclass(frozen=True)
class Admission:
    """Bounds on what a source may send.

    Attributes:
        max_age: greatest age of a stamp, s.
        max_ahead: how far a stamp may lie in the future (clock skew between machines), s.
        jump: how far the first point may be from the command, rad, beyond what the velocity limits allow.
        max_points: greatest number of points.
        max_duration: latest time of the last point, s.
    """

    max_age: float = 2.0
    max_ahead: float = 0.05
    jump: float = 0.25
    max_points: int = 200
    max_duration: float = 30.0


@dataclass(frozen=True, eq=False)
class Request:
    """A checked trajectory in the robot's joint order, relative to now.

    Attributes:
        begin: the stamp relative to now, s; at most 0.
        times: [n] when each point is due relative to now, s; negative has elapsed.
        q: [n, d] rad.
        velocities: [n, d] rad/s or None.
        gripper: [n] wanted gripper joint, or None to leave the gripper to the plan in force.
    """

    begin: float
    times: np.ndarray
    q: np.ndarray
    velocities: np.ndarray | None
    gripper: np.ndarray | None

    @cached_property
    def due(self) -> int:
        """Index of the first point not yet elapsed."""
        return int(np.searchsorted(self.times, 1e-3))


def admit(
    robot: RobotDescription,
    request: Trajectory,
    now: float,
    command: State,
    rules: Admission,
    stood: bool = False,
) -> Request:
    """Return the checked request.

    Args:
        request: anything a source sent.
        now: time of arrival, s, on the clock of ``request.stamp``.
        command: what the arm is commanded at ``now``.
        stood: whether the arm has stood still since the stamp; then nothing of the request has elapsed.

    Raises:
        Refused: with the class of the fault; the message says what to send instead.
    """
    columns = _columns(robot, tuple(str(name) for name in request.names))
    times, positions = _array(request.times, 1, "times"), _array(request.positions, 2, "positions")
    count = len(times)
    if count == 0:
        raise Refused("empty", "the trajectory has no points; to stop the arm call ~/hold")
    if count > rules.max_points:
        raise Refused("too_long", f"{count} points, at most {rules.max_points} are taken; send fewer")
    velocities = None if request.velocities is None else _array(request.velocities, 2, "velocities")
    for name, array in (("positions", positions), ("velocities", velocities)):
        if array is not None and array.shape != (count, len(request.names)):
            raise Refused(
                "malformed",
                f"{name} is of shape {array.shape} for {count} points of {len(request.names)} joints",
            )
        if array is not None and not np.isfinite(array).all():
            point, joint = np.argwhere(~np.isfinite(array))[0]
            raise Refused("non_finite", f"{name} of {request.names[joint]} at point {point} is {array[point, joint]}")
    if not (np.isfinite(times).all() and np.isfinite(request.stamp)):
        raise Refused("non_finite", "a time of the trajectory or its stamp is not finite")
    if times[0] <= 0 or (times[1:] - times[:-1] <= 1e-4).any():
        raise Refused("times", "times must start above 0 and increase by more than 0.1 ms from point to point")
    if times[-1] > rules.max_duration:
        raise Refused("too_long", f"the last point is due after {times[-1]:.1f} s, at most {rules.max_duration:g} s")
    age = now - request.stamp
    if age < -rules.max_ahead:
        raise Refused("future", f"the stamp lies {-age:.3f} s ahead; synchronise the clocks of the two machines")
    if age > rules.max_age:
        raise Refused("stale", f"the stamp is {age:.2f} s old, at most {rules.max_age:g} s is taken")
    age = 0.0 if stood else max(age, 0.0)
    arm = len(robot.joints)
    checked = Request(
        begin=-age, times=times - age, q=positions[:, columns[:arm]],
        velocities=None if velocities is None else velocities[:, columns[:arm]],
        gripper=_gripper(robot.gripper, positions[:, columns[arm]]) if robot.gripper and columns[arm:] else None,
    )  # fmt: skip
    if checked.due == count:
        raise Refused("elapsed", f"all {count} points were due before it arrived; the source is {age:.2f} s late")
    _within(robot, checked, command, rules)
    return checked


@lru_cache(maxsize=64)
def _columns(robot: RobotDescription, names: tuple[str, ...]) -> list[int]:
    """Return the column of each command joint, the gripper last where it is named."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused("duplicate_joint", f"{twice} is named twice")
    for name in names:
        if name not in robot.command_names:
            raise Refused("unknown_joint", f"{name} is not a joint of {robot.name} ({', '.join(robot.command_names)})")
    for name in robot.joints:
        if name not in names:
            raise Refused("missing_joint", f"{name} is missing; name every joint of the arm")
    return [names.index(name) for name in robot.command_names if name in names]


def _array(value: object, ndim: int, name: str) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise Refused("malformed", f"{name} is not an array of numbers") from None
    if array.size == 0:
        return array.reshape((0,) * ndim)
    if array.ndim != ndim:
        raise Refused("malformed", f"{name} has {array.ndim} dimensions instead of {ndim}")
    return array


def _gripper(gripper: Gripper, positions: np.ndarray) -> np.ndarray:
    low, high = sorted((gripper.open, gripper.closed))
    slack = 0.05 * (high - low)
    if positions.min() < low - slack or positions.max() > high + slack:
        raise Refused("out_of_limits", f"{gripper.joint} must stay within {low:g} to {high:g}")
    return np.clip(positions, low, high)


def _within(robot: RobotDescription, request: Request, command: State, rules: Admission) -> None:
    limits = robot.limits
    beyond = np.maximum(limits.hard_lower - request.q, request.q - limits.hard_upper)
    if beyond.max() > 1e-6:
        point, joint = np.unravel_index(beyond.argmax(), beyond.shape)
        raise Refused(
            "out_of_limits",
            f"{robot.joints[joint]} {request.q[point, joint]:.3f} rad at point {point} is beyond its limits "
            f"{limits.hard_lower[joint]:.3f} to {limits.hard_upper[joint]:.3f}",
        )
    if request.velocities is not None and (np.abs(request.velocities) > limits.velocity * (1 + 1e-6)).any():
        joint = int((np.abs(request.velocities).max(axis=0) / limits.velocity).argmax())
        raise Refused("out_of_limits", f"a velocity of {robot.joints[joint]} is above {limits.velocity[joint]:g} rad/s")
    first = request.due
    distance = np.abs(request.q[first] - command.q)
    excess = distance - rules.jump - limits.velocity * request.times[first]
    if excess.max() > 0:
        joint = int(excess.argmax())
        raise Refused(
            "jump",
            f"{robot.joints[joint]} would jump {distance[joint]:.2f} rad within {request.times[first]:.2f} s "
            "of the command; start nearer to where the arm is, or give it more time",
        )
