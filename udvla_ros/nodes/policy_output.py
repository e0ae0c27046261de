"""What leaves ``policy_node``: the chunk first, then what is known about it, then the pictures for those who look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import Empty, String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import images, runtime
from udvla_ros.nodes.inference import Result
from udvla_ros.nodes.messages import message_from_arrays


class PolicyOutput:
    """The publishers of one policy. :meth:`publish` is called from the inference thread."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._chunk = node.create_publisher(JointTrajectory, "policy/joint_trajectory", runtime.COMMAND_QOS)
        self._first = node.create_publisher(Image, "~/predicted_image", runtime.STATE_QOS)
        self._info = node.create_publisher(String, "~/chunk_info", runtime.STATE_QOS)
        self._predicted: dict[str, Publisher] = {}
        # DDS takes 20 s to miss a process that was killed; whoever is to rely on this one hears it before.
        alive = node.create_publisher(Empty, "policy/alive", runtime.STATE_QOS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(runtime.ALIVE / 4, lambda: alive.publish(Empty()), clock=steady)

    def open(self, cameras: Sequence[str]) -> None:
        """Make room for the predictions of a bundle's cameras; the first has the topic without a name."""
        self._predicted = {cameras[0]: self._first}
        for name in cameras[1:]:
            self._predicted[name] = self._node.create_publisher(
                Image, f"~/predicted_image/{name}", runtime.STATE_QOS
            )

    def close(self) -> None:
        """Take back what :meth:`open` made."""
        for publisher in self._predicted.values():
            if publisher is not self._first:
                self._node.destroy_publisher(publisher)
        self._predicted = {}

    def publish(self, result: Result, robot: RobotDescription, about: Mapping[str, object]) -> None:
        """Publish all that one inference gave; ``about`` says whose it is, and goes into ``~/chunk_info``."""
        targets = result.targets
        times = result.chunk.dt * np.arange(1, len(targets.q) + 1)
        points = targets.q
        if robot.gripper is not None:
            points = np.column_stack([points, robot.gripper.position(targets.gripper)])
        self._chunk.publish(message_from_arrays(robot.command_names, times, points, stamp=result.stamp))
        self._info.publish(String(data=json.dumps({**about, **describe(result)})))
        self._publish_predicted(result)

    def _publish_predicted(self, result: Result) -> None:
        """Paint the future and publish it, last of all and only for those who look: the arm has its chunk."""
        publishers = dict(self._predicted)
        if not any(publisher.get_subscription_count() for publisher in publishers.values()):
            return
        # The picture carries the time it is a picture of: the end of the chunk.
        stamp = runtime.to_stamp(result.stamp + result.chunk.dt * len(result.chunk.actions))
        for name, pixels in (result.chunk.predicted or {}).items():
            if name not in publishers:
                continue
            message = images.fill_image(Image(), pixels, "rgb8")
            message.header.stamp, message.header.frame_id = stamp, f"{name}_camera_optical_frame"
            publishers[name].publish(message)


def describe(result: Result) -> dict[str, object]:
    """Return what ``~/chunk_info`` says of one inference: enough to compute it again from a bag."""
    return {
        "stamp": result.stamp,
        "horizon": result.chunk.dt * len(result.chunk.actions),
        "dt": result.chunk.dt,
        "instruction": result.instruction,
        "seed": result.seed,
        "image_stamps": dict(result.image_stamps),
        "options": dict(vars(result.options)),
        "commanded": None if result.commanded is None else result.commanded.tolist(),
        "actions": np.asarray(result.chunk.actions, float).round(6).tolist(),
        "timings_ms": {name: round(value, 3) for name, value in result.timings_ms.items()},
        "played_steps": result.played,
        "statistics": {k: v for k, v in result.chunk.statistics.items() if k != "steps"},
    }
