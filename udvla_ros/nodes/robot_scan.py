"""What a running graph tells of its robot, for a robot file: description, joints, cameras, controllers. It listens."""

from __future__ import annotations

import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from udvla_ros.nodes import runtime
from udvla_ros.robots.new import Seen

OURS = ("predicted_image", "policy/", "teleop/", "dry_run")
MOST_CAMERAS = 4
COMMON = ("image_raw", "image", "color", "rgb", "image_rect")  # in the topics of every driver


def scan(seconds: float = 5.0, namespace: str = "") -> Seen:
    """Listen to ``robot_description``, ``joint_states`` and the graph's topics."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("udvla_robot_scan", namespace=namespace or None, context=context, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    seen = Seen()

    def described(message: String) -> None:
        seen.urdf = message.data.encode()

    def stood(message: JointState) -> None:
        seen.positions |= dict(zip(message.name, message.position, strict=False))

    try:
        node.create_subscription(String, "robot_description", described, runtime.LATCHED_QOS)
        node.create_subscription(JointState, "joint_states", stood, runtime.ANY_QOS)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left, 0.1))
        prefix = node.get_namespace().rstrip("/") + "/"
        for topic, kinds in sorted(node.get_topic_names_and_types()):
            name = topic.removeprefix(prefix)
            if any(word in name for word in OURS):
                continue
            pictures = "sensor_msgs/msg/Image" in kinds and "depth" not in name and node.count_publishers(topic)
            if pictures and len(seen.cameras) < MOST_CAMERAS:
                seen.cameras.setdefault(camera_name(name), name)
            if "trajectory_msgs/msg/JointTrajectory" in kinds and node.count_subscribers(topic):
                seen.commands.append(name)
        seen.commands.sort(key=lambda name: "gripper" in name)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown(context=context)
    return seen


def camera_name(topic: str) -> str:
    """Return a camera's name from its topic: the part before what every driver has."""
    parts = [part for part in topic.strip("/").split("/") if part not in COMMON]
    name = "_".join(parts[-2:] if len(parts) > 2 else parts) or "camera"
    return name if name[0].isalpha() else f"camera_{name}"
