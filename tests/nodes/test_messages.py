"""What goes over the wire is the message and nothing behind it, whatever its sizes."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message
from rosbags.typesys import Stores, get_typestore
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from udvla_ros.nodes.messages import serialized

STORE = get_typestore(Stores.ROS2_JAZZY)
sizes = st.integers(0, 4)
points = st.lists(st.tuples(sizes, sizes, sizes, sizes), max_size=5)


@given(st.lists(st.text(max_size=9).filter(lambda s: "\0" not in s), max_size=4), st.text("ab_", max_size=9), points)
def test_a_strict_reader_takes_it(names, frame, rows):
    message = JointTrajectory(joint_names=names)
    message.header.frame_id = frame
    message.header.stamp.sec = 7
    for p, v, a, e in rows:
        point = JointTrajectoryPoint(
            positions=[0.1] * p, velocities=[0.2] * v, accelerations=[0.3] * a, effort=[0.4] * e
        )
        point.time_from_start.nanosec = 5
        message.points.append(point)
    data = serialized(message)
    assert deserialize_message(data, JointTrajectory) == message
    read = STORE.deserialize_cdr(data, "trajectory_msgs/msg/JointTrajectory")  # refuses one byte too many or too few
    assert read.joint_names == names and len(read.points) == len(rows)
    with pytest.raises(Exception, match="size mismatch"):
        STORE.deserialize_cdr(data + b"\0\0\0\0", "trajectory_msgs/msg/JointTrajectory")
