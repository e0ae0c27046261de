"""Definitions and hashes come from what is installed, and are those that other tools have."""

from __future__ import annotations

import pytest
from mcap_ros2._dynamic import generate_dynamic
from recorded import STORE
from rosbags.typesys import get_types_from_msg

from udvla_ros.rollouts.bags import schemas

pytest.importorskip("rclpy")

KINDS = [
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState", "std_msgs/msg/String",
    "std_msgs/msg/Bool", "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory",
    "diagnostic_msgs/msg/DiagnosticArray", "rcl_interfaces/msg/ParameterEvent", "action_msgs/msg/GoalStatusArray",
    "visualization_msgs/msg/MarkerArray",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_definition_holds_the_type_and_all_types_in_it(kind):
    text = schemas.definition(kind)
    ours = get_types_from_msg(text, kind)
    assert ours.keys() == get_types_from_msg(STORE.generate_msgdef(kind, ros_version=2)[0], kind).keys()
    for name, (_, fields) in ours.items():
        assert [field for field, _ in fields] == [field for field, _ in STORE.fielddefs[name][1]], name
    assert kind in generate_dynamic(kind, text)


@pytest.mark.parametrize("kind", KINDS)
def test_hash_is_the_one_that_the_definition_has(kind):
    assert schemas.type_hash(kind) == STORE.hash_rihs01(kind)


def test_a_type_that_is_not_installed_has_neither():
    assert schemas.definition("no_such_msgs/msg/Thing") == schemas.type_hash("no_such_msgs/msg/Thing") == ""


def test_dependencies_see_through_arrays_bounds_comments_and_constants():
    text = """
    # geometry_msgs/Pose in a comment
    uint8 MAX=3
    string<=10 name
    float64[<=5] values
    Point32[3] corners          # of this package
    geometry_msgs/Pose[] poses
    geometry_msgs/Pose again
    """
    assert schemas.dependencies("some_msgs", text) == ["some_msgs/Point32", "geometry_msgs/Pose"]
