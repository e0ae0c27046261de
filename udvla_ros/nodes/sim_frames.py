"""What drivers publish beside pictures: ``camera_info``, ``robot_description``, and where the cameras stand.

The arm's own transforms are ``robot_state_publisher``'s, as with a real driver: it needs the description and the joint
states. Transforms need ``tf2_msgs``, which a ROS installation has and the wheels lack: without it none are sent.
"""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.sim.optics import intrinsics, optical_pose
from udvla_ros.sim.scene import Camera
from udvla_ros.sim.world import TabletopWorld

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None


def optical_frame(camera: str) -> str:
    """Return the frame that a camera's pictures are stamped with."""
    return f"{camera}_camera_optical_frame"


def camera_info(name: str, camera: Camera) -> CameraInfo:
    """Return the message of one camera, without a stamp."""
    matrix = intrinsics(camera)
    message = CameraInfo(height=camera.height, width=camera.width, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.frame_id = optical_frame(name)
    message.k, message.r = matrix.flatten().tolist(), np.eye(3).flatten().tolist()
    message.p = np.hstack([matrix, np.zeros((3, 1))]).flatten().tolist()
    return message


def camera_transforms(world: TabletopWorld, robot: RobotDescription, stamp: float) -> list[TransformStamped]:
    """Return where the cameras stand, in the base frame or, for those that it carries, in the TCP's."""
    frames = {"base": robot.base_frame, "tcp": robot.tcp_frame}
    transforms = []
    for name in world.cameras:
        parent, pose = optical_pose(world.model, world.data, name)
        message = TransformStamped(child_frame_id=optical_frame(name), transform=Transform())
        message.header.frame_id, message.header.stamp = frames[parent], runtime.to_stamp(stamp)
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = pose[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
        transforms.append(message)
    return transforms


class Frames:
    """Publishes the description and the cameras' places once, and a ``camera_info`` with each picture.

    Args:
        node: the simulator's.
        robot: its robot file; ``camera_info`` stands beside each camera's image topic.
        world: what is rendered, at rest.
    """

    def __init__(self, node: Node, robot: RobotDescription, world: TabletopWorld) -> None:
        self._infos = {}
        for name, camera in robot.cameras.items():
            image = node.resolve_topic_name(camera["topic"])
            topic = f"{image.rpartition('/')[0]}/camera_info"
            publisher = node.create_publisher(CameraInfo, topic, runtime.CAMERA_QOS)
            self._infos[name] = (publisher, camera_info(name, world.cameras[name]))
        self._description = node.create_publisher(String, "robot_description", runtime.LATCHED_QOS)
        self._description.publish(String(data=robot.kinematics.urdf.read_text(encoding="utf-8")))
        if TFMessage is not None:
            self._static = node.create_publisher(TFMessage, "/tf_static", runtime.LATCHED_QOS)
            transforms = camera_transforms(world, robot, runtime.now(node))
            self._static.publish(TFMessage(transforms=transforms))

    def publish(self, name: str, stamp: object) -> None:
        """Send the ``camera_info`` that belongs to a picture."""
        publisher, message = self._infos[name]
        message.header.stamp = stamp
        publisher.publish(message)
