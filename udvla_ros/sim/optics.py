"""What a simulated camera is to those who measure in its pictures: intrinsics, and where it stands."""

from __future__ import annotations

import numpy as np

from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.scene import Camera

# MuJoCo looks along -z with y up; REP-103's optical frame along +z with y down.
_OPTICAL = np.diag([1.0, -1.0, -1.0])


def intrinsics(camera: Camera) -> np.ndarray:
    """Return the pinhole matrix [3, 3] in pixels of the delivered image; MuJoCo's pixels are square, undistorted."""
    focal = 0.5 * camera.height / np.tan(np.deg2rad(camera.fovy) / 2)
    return np.array([[focal, 0.0, camera.width / 2], [0.0, focal, camera.height / 2], [0.0, 0.0, 1.0]])


def optical_pose(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> tuple[str, np.ndarray]:
    """Return what a camera is fixed to, ``base`` or ``tcp``, and the pose [4, 4] of its optical frame in it, in m."""
    camera, site = model.camera(name), model.site("tcp")
    pose = _pose(data.cam_xpos[camera.id], data.cam_xmat[camera.id])
    pose[:3, :3] = pose[:3, :3] @ _OPTICAL
    if model.body(camera.bodyid[0]).name == "world":
        return "base", pose
    return "tcp", np.linalg.inv(_pose(data.site_xpos[site.id], data.site_xmat[site.id])) @ pose


def _pose(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3], pose[:3, :3] = position, rotation.reshape(3, 3)
    return pose
