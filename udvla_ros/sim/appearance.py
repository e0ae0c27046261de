"""How a scene is lit and from where it is seen: lights and cameras of a compiled model, changed in place."""

from __future__ import annotations

import numpy as np

from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.scene import Scene


class Appearance:
    """Remembers a model's lights and cameras as built, and shows scenes by changing them."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._diffuse = model.light_diffuse.copy()
        head = model.vis.headlight
        self._ambient, self._head = head.ambient.copy(), head.diffuse.copy()
        self._places, self._turns = model.cam_pos.copy(), model.cam_quat.copy()

    def show(self, scene: Scene) -> None:
        """Light the scene and place the cameras as it says; a plain scene restores what was built."""
        model = self._model
        model.light_diffuse[:] = self._diffuse * scene.light
        model.vis.headlight.ambient[:] = self._ambient * scene.light
        model.vis.headlight.diffuse[:] = self._head * scene.light
        model.cam_pos[:], model.cam_quat[:] = self._places, self._turns
        for name, shift in scene.cameras.items():
            camera = model.camera(name).id
            turn, moved, quaternion = np.zeros(4), np.zeros(3), np.zeros(4)
            angle = float(np.linalg.norm(shift.turn))
            axis = np.array(shift.turn) / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
            mujoco.mju_axisAngle2Quat(turn, axis, angle)
            mujoco.mju_rotVecQuat(moved, np.array(shift.metres, float), self._turns[camera])
            mujoco.mju_mulQuat(quaternion, self._turns[camera], turn)
            model.cam_pos[camera] = self._places[camera] + moved
            model.cam_quat[camera] = quaternion
