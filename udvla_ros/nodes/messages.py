"""``trajectory_msgs/JointTrajectory`` to arrays and back; joints keep the order and names of the message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from udvla_ros.nodes.jtc import TrajectoryCommand, TrajectoryRejected
from udvla_ros.nodes.runtime import to_seconds, to_stamp


def _rows(message: JointTrajectory, field: str) -> np.ndarray | None:
    """Return one field of all points [n, d], or None when no point has it."""
    rows = [getattr(point, field) for point in message.points]
    lengths = {len(row) for row in rows}
    if lengths <= {0}:
        return None
    if lengths != {len(message.joint_names)}:
        raise TrajectoryRejected(
            f"{field} of {sorted(lengths)} numbers per point for {len(message.joint_names)} joints"
        )
    return np.array(rows, dtype=float)


def command_from_message(message: JointTrajectory) -> TrajectoryCommand:
    """Return the message as arrays.

    Raises:
        TrajectoryRejected: points whose sizes do not fit the joint names, or of mixed kinds.
    """
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points])
    positions = _rows(message, "positions")
    if positions is None:
        positions = np.zeros((0, len(message.joint_names)))
        if len(times):
            raise TrajectoryRejected("points without positions")
    return TrajectoryCommand(
        names=tuple(message.joint_names),
        times=times,
        positions=positions,
        velocities=_rows(message, "velocities"),
        accelerations=_rows(message, "accelerations"),
        stamp=to_seconds(message.header.stamp),
    )


def message_from_arrays(
    names: Sequence[str],
    times: np.ndarray,
    positions: np.ndarray,
    velocities: np.ndarray | None = None,
    accelerations: np.ndarray | None = None,
    stamp: float = 0.0,
) -> JointTrajectory:
    """Return a message of points at ``times`` [n] s after ``stamp`` (0: on arrival), arrays [n, d]."""
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = to_stamp(stamp)
    nanoseconds = np.rint(np.asarray(times, float) * 1e9).astype(int)
    for k, t in enumerate(nanoseconds.tolist()):
        point = JointTrajectoryPoint(positions=positions[k].tolist())
        if velocities is not None:
            point.velocities = velocities[k].tolist()
        if accelerations is not None:
            point.accelerations = accelerations[k].tolist()
        point.time_from_start = Duration(sec=t // 1_000_000_000, nanosec=t % 1_000_000_000)
        message.points.append(point)
    return message
