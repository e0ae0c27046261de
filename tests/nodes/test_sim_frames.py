"""What is published beside the simulated pictures says where a point of the scene is seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes.sim_frames import camera_info, camera_transforms
from udvla_ros.sim.scene import Camera
from udvla_ros.sim.world import TabletopWorld


@pytest.fixture(scope="module")
def world():
    cameras = {"front": Camera(240, 320, 35.0, 1), "wrist": Camera(240, 240, 90.0, 1)}
    world = TabletopWorld(cameras=cameras)
    yield world
    world.close()


@pytest.mark.parametrize("name", ["front", "wrist"])
def test_a_cube_is_seen_where_the_messages_say(world, name):
    robot = RobotDescription.load("ur5e_sim")
    transforms = {t.child_frame_id: t for t in camera_transforms(world, robot, 1.5)}
    told = transforms[f"{name}_camera_optical_frame"]
    assert told.header.frame_id == {"front": "base_link", "wrist": "tcp"}[name] and told.header.stamp.sec == 1
    move, turn = told.transform.translation, told.transform.rotation
    pose = np.eye(4)
    pose[:3, 3] = move.x, move.y, move.z
    pose[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    if name == "wrist":  # straight above the red cube
        world.command(world.kinematics.inverse(_above(world.cube_position("red")), world.home), 0.0)
        world.step(2.0)
        pose = world.tcp_pose() @ pose
    point = np.linalg.inv(pose) @ [*world.cube_position("red"), 1.0]
    info = camera_info(name, world.cameras[name])
    u, v, depth = np.reshape(info.k, (3, 3)) @ point[:3]
    image = world.render()[name].astype(float)
    redness = image[..., 0] - image[..., 1:].max(axis=-1)
    rows, columns = np.nonzero(redness > 60)
    assert depth > 0 and len(rows) > 20
    assert abs(columns.mean() - u / depth) < 6 and abs(rows.mean() - v / depth) < 6  # the centre against the faces seen


def _above(position):
    pose = np.eye(4)
    pose[:3, :3] = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
    pose[:3, 3] = np.add(position, (0.0, 0.0, 0.15))
    return pose
