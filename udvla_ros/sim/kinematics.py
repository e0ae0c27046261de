"""Kinematics of the simulated arm from MuJoCo's own Jacobian, for the expert and for placing the arm.

The path through ROS uses the URDF kinematics of the motion room instead; the two agree.
"""

from __future__ import annotations

import numpy as np

from udvla_ros.errors import UdvlaError
from udvla_ros.sim.gl import mujoco

DAMPING = 1e-3  # of the least squares, in m and rad; small, as the poses asked for are a step away


class UnreachablePose(UdvlaError):
    """Damped least squares does not get to the pose asked for."""


def log_so3(rotation: np.ndarray) -> np.ndarray:
    """Return the rotation vector [3] (rad) of a rotation matrix [3, 3]."""
    quaternion, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).reshape(9))
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


def exp_so3(vector: np.ndarray) -> np.ndarray:
    """Return the rotation matrix [3, 3] of a rotation vector [3] (rad)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    quaternion, matrix = np.empty(4), np.empty(9)
    mujoco.mju_axisAngle2Quat(quaternion, np.asarray(vector, float) / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


class ArmKinematics:
    """Forward and differential kinematics of the ``tcp`` site, on scratch data of its own.

    Args:
        model: a compiled tabletop.
        qpos_index: positions of the six arm joints in ``qpos``, in kinematic order.
    """

    def __init__(self, model: mujoco.MjModel, qpos_index: np.ndarray, dof_index: np.ndarray) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._qpos, self._dof = qpos_index, dof_index
        self._site = model.site("tcp").id
        self._jacobian = np.zeros((6, model.nv))
        self._range = model.jnt_range[[model.dof_jntid[d] for d in dof_index]].T

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Return the TCP pose [4, 4] in the base frame for joints [6] (rad)."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        pose = np.eye(4)
        pose[:3, 3] = self._data.site_xpos[self._site]
        pose[:3, :3] = self._data.site_xmat[self._site].reshape(3, 3)
        return pose

    def inverse(
        self, pose: np.ndarray, q: np.ndarray, iterations: int = 8, tolerance: float = 1e-4
    ) -> np.ndarray:
        """Return joints [6] near ``q`` whose TCP is at ``pose``.

        Raises:
            UnreachablePose: the error stays above ``tolerance`` (m and rad).
        """
        q = np.array(q, float)
        for _ in range(iterations + 1):
            now = self.forward(q)
            error = np.concatenate([pose[:3, 3] - now[:3, 3], log_so3(pose[:3, :3] @ now[:3, :3].T)])
            if np.linalg.norm(error) < tolerance * 0.1:
                return q
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            jacobian = self._jacobian[:, self._dof]
            gram = jacobian @ jacobian.T
            gram[np.diag_indices(6)] += DAMPING**2
            q = np.clip(q + jacobian.T @ np.linalg.solve(gram, error), *self._range)
        if np.linalg.norm(error) < tolerance:
            return q
        x, y, z = pose[:3, 3]
        raise UnreachablePose(
            f"the arm cannot reach ({x:.3f}, {y:.3f}, {z:.3f}) m from where it is "
            f"(error {np.linalg.norm(error):.4f}); ask for a nearer pose"
        )
