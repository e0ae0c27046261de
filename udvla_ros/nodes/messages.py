"""``trajectory_msgs/JointTrajectory`` to arrays and back; joints keep the order and names of the message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from rclpy.serialization import serialize_message
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from udvla_ros.nodes.runtime import to_seconds, to_stamp
from udvla_ros.sim.jtc import TrajectoryCommand, TrajectoryRejected


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


def serialized(message: JointTrajectory) -> bytes:
    """Return a message as it goes over the wire.

    ``serialize_message`` hands out the whole of a buffer that was made too large; strict readers of a bag refuse what
    stands behind the message.
    """
    return serialize_message(message)[: _wire_size(message)]


def _wire_size(message: JointTrajectory) -> int:
    """Return the bytes of a message in CDR: each value is aligned to its size, an empty sequence ends at its count."""
    size = 8  # of the stamp; the encapsulation's four bytes are not counted for alignment
    size += 4 + len(message.header.frame_id.encode()) + 1
    size += -size % 4 + 4  # how many names
    for name in message.joint_names:
        size += -size % 4 + 4 + len(name.encode()) + 1
    size += -size % 4 + 4  # how many points
    for point in message.points:
        for row in (point.positions, point.velocities, point.accelerations, point.effort):
            size += -size % 4 + 4
            if len(row):
                size += -size % 8 + 8 * len(row)
        size += -size % 4 + 8
    return 4 + size
