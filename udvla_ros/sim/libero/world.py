"""One LIBERO task as a world of our loop: the published physics, init states and success check; pictures when asked.

robosuite renders every camera in every step; here nothing is drawn until somebody looks. The physics are robosuite's
own, step for step (``tests/libero_suite/test_libero.py`` holds both against each other).
"""

from __future__ import annotations

import atexit
from typing import Any

import numpy as np

from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.libero.install import LiberoError, quiet, require
from udvla_ros.sim.libero.suites import LiberoTask
from udvla_ros.sim.libero.thin import FACES, thinned_copy
from udvla_ros.sim.renderer import Renderer
from udvla_ros.sim.scene import Camera

HZ = 20
SCALE = (0.05,) * 3 + (0.5,) * 3 + (1.0,)  # m, rad, gripper of a 1 in an action: robosuite's OSC_POSE
IDLE = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
SETTLE = 10  # idle steps after a reset, as published evaluations have them
SIDE = 256  # px of both cameras, as published
CAMERAS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
COLLIDES, SEEN = 0, 1  # robosuite's groups of geoms


class LiberoWorld:
    """A task's scene. Building takes seconds, resetting milliseconds; several can live in one process.

    Args:
        task: what is to be done.
        render: make pictures; without it :meth:`look` gives images of no pixels.
        faces: of each visual mesh in the pictures, see :mod:`udvla_ros.sim.libero.thin`; 0: the published meshes.

    Raises:
        LiberoError: LIBERO is not installed, or the scene cannot be built.
    """

    def __init__(self, task: LiberoTask, render: bool = True, faces: int = FACES) -> None:
        require()
        with quiet():
            from libero.libero.envs.env_wrapper import ControlEnv

        self.task = task
        try:
            wrapped = ControlEnv(
                bddl_file_name=task.scene, has_offscreen_renderer=False, use_camera_obs=False, hard_reset=False,
                ignore_done=True, control_freq=HZ,
            )  # fmt: skip
        except (OSError, KeyError, ValueError, AssertionError) as error:
            raise LiberoError(f"the scene of {task.suite} task {task.index} cannot be built ({error})") from error
        self._wrapped, self.env = wrapped, wrapped.env
        self.env._observables = {}  # computed in each of the 25 substeps, for nobody
        self._robot = self.env.robots[0]
        self._gripper = self._robot.gripper
        self.closing = False  # the last command to the gripper
        self._drawn: mujoco.MjModel | None = None
        self._renderer: Renderer | None = None
        self._render, self._faces = render, faces
        self._solid = {name: self._surface(name) for name in self.env.objects_dict | self.env.fixtures_dict}

    # -- what MuJoCo holds ------------------------------------------------------------------------------
    @property
    def model(self) -> mujoco.MjModel:
        """The published model."""
        return self.env.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        """Its state."""
        return self.env.sim.data._data

    def flat_state(self) -> np.ndarray:
        """Return time, positions and velocities as the init states have them."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    # -- running ----------------------------------------------------------------------------------------
    def reset(self, state: np.ndarray | None = None, seed: int = 0) -> None:
        """Begin an episode: from a published init state, or from places drawn by the seed.

        The seed also places what is fixed to the table, which init states do not hold.
        """
        from robosuite.utils.errors import RandomizationError

        self.env.seed(seed)
        for _ in range(100):
            try:
                self.env.reset()
                break
            except RandomizationError:
                continue
        else:
            raise LiberoError(f"no free places for the things of {self.task.suite} task {self.task.index}")
        if state is not None:
            if len(state) != 1 + self.model.nq + self.model.nv:
                raise LiberoError(
                    f"an init state of {self.task.suite} task {self.task.index} has {len(state)} numbers and the scene "
                    f"{1 + self.model.nq + self.model.nv}: they are of different versions; make libero"
                )
            self._wrapped.set_init_state(state)
        for _ in range(SETTLE):
            self.step(IDLE)

    def step(self, action: np.ndarray) -> bool:
        """Play one control step; returns whether the goal is reached, by LIBERO's own check."""
        self.closing = bool(action[6] > 0)
        return bool(self._wrapped.step(np.asarray(action, float))[2])

    def succeeded(self) -> bool:
        """Return LIBERO's own check."""
        return bool(self.env._check_success())

    def fulfilled(self, goal: list[list[str]]) -> bool:
        """Return whether another goal's predicates hold here."""
        return all(self.env._eval_predicate(state) for state in goal)

    def names(self) -> set[str]:
        """Return all that a goal can speak of here."""
        return set(self.env.object_states_dict)

    def snapshot(self) -> tuple[Any, ...]:
        """Return all that the future depends on."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, state, kind)
        control = self._robot.controller
        return (
            state, control.goal_pos.copy(), control.goal_ori.copy(), np.copy(self._gripper.current_action),
            self.closing,
        )  # fmt: skip

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Go back to a snapshot."""
        state, position, orientation, fingers, self.closing = kept
        mujoco.mj_setState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        control = self._robot.controller
        control.goal_pos, control.goal_ori = position.copy(), orientation.copy()
        control.update(force=True)
        self._gripper.current_action = fingers.copy()

    # -- what the arm and the things do -----------------------------------------------------------------
    def tcp(self) -> np.ndarray:
        """Return the pose [4, 4] of the point between the fingertips; x is the way they close, z where they point."""
        pose = np.eye(4)
        pose[:3, 3] = self.data.site_xpos[self._robot.eef_site_id]
        pose[:3, :3] = self.data.site_xmat[self._robot.eef_site_id].reshape(3, 3)
        return pose

    def joints(self) -> np.ndarray:
        """Return the arm's joints [7], rad."""
        return self.data.qpos[self._robot._ref_joint_pos_indexes].copy()

    def opening(self) -> float:
        """Return the way between the fingers, m; 0.08 at most."""
        left, right = self.data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return float(left - right)

    def finger_speed(self) -> float:
        """Return how fast the faster finger moves, m/s."""
        return float(np.abs(self.data.qvel[self._robot._ref_gripper_joint_vel_indexes]).max())

    def holds(self, name: str) -> bool:
        """Return whether both fingers touch the thing."""
        fingers = [self._gripper.important_geoms[side] for side in ("left_finger", "right_finger")]
        return bool(self.env._check_grasp(fingers, self.env.get_object(name)))

    def place(self, name: str) -> np.ndarray:
        """Return where a thing or a region is [3], m."""
        if name in self.env.object_sites_dict:
            return self.env.sim.data.get_site_xpos(name).copy()
        return self.data.xpos[self.env.obj_body_id[name]].copy()

    def surface(self, name: str) -> np.ndarray:
        """Return points [N, 3] in what collides of a thing, m."""
        return np.concatenate([
            local @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom]
            for geom, local in self._solid[name]
        ])  # fmt: skip

    def _surface(self, name: str) -> list[tuple[int, np.ndarray]]:
        """Return (geom, points [N, 3] in its frame) of the geoms that collide."""
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 3), -1).reshape(-1, 3)
        found = []
        for label in self.env.get_object(name).contact_geoms:
            geom = self.model.geom(label).id
            kind, size = self.model.geom_type[geom], self.model.geom_size[geom]
            if kind == mujoco.mjtGeom.mjGEOM_MESH:
                mesh = self.model.geom_dataid[geom]
                first, count = self.model.mesh_vertadr[mesh], self.model.mesh_vertnum[mesh]
                found.append((geom, self.model.mesh_vert[first : first + count][:: max(1, count // 300)].astype(float)))
            elif kind == mujoco.mjtGeom.mjGEOM_BOX:
                found.append((geom, grid * size))
            elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
                found.append((geom, _round(grid, 3) * size[0]))
            else:  # cylinders and capsules
                found.append((geom, _round(grid, 2) * (size[0], size[0], size[1])))
        return found or [(0, np.full((1, 3), np.nan))]

    # -- pictures ---------------------------------------------------------------------------------------
    def look(self) -> dict[str, np.ndarray]:
        """Return both views as published policies get them, uint8 RGB [256, 256, 3].

        robosuite's pictures stand on their heads, and the published code turns them by 180 degrees: what comes out is
        the camera's picture mirrored.
        """
        if not self._render:
            return {name: np.zeros((0, 0, 3), np.uint8) for name in CAMERAS}
        if self._renderer is None:
            self._drawn = thinned_copy(self.model, self._faces) if self._faces else self.model
            sizes = {camera: Camera(SIDE, SIDE, 0.0, 1) for camera in CAMERAS.values()}
            self._renderer = Renderer(self._drawn, sizes, hidden=(COLLIDES,))
            atexit.register(self._renderer.close)  # before MuJoCo's own, which ends OpenGL
        if self._drawn is not None and self._drawn is not self.model:
            self._drawn.site_rgba[:], self._drawn.geom_rgba[:] = self.model.site_rgba, self.model.geom_rgba
        images = self._renderer.render(self.data)
        return {name: np.ascontiguousarray(images[camera][:, ::-1]) for name, camera in CAMERAS.items()}

    def close(self) -> None:
        """Free what was rendered with."""
        if self._renderer is not None:
            atexit.unregister(self._renderer.close)
            self._renderer.close()
            self._renderer = self._drawn = None


def _round(grid: np.ndarray, axes: int) -> np.ndarray:
    """Return the grid drawn into the unit circle or ball of its first axes."""
    made = grid.copy()
    length = np.linalg.norm(grid[:, :axes], axis=1)
    most = np.abs(grid[:, :axes]).max(1)
    made[:, :axes] *= np.where(length > 0, most / np.maximum(length, 1e-9), 1.0)[:, None]
    return made
