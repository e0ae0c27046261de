"""A tabletop with a UR5e that is stepped, looked at and commanded like a robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.sim.appearance import Appearance
from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.kinematics import ArmKinematics
from udvla_ros.sim.renderer import Renderer
from udvla_ros.sim.scene import (
    AWAY,
    COLOURS,
    CUBE_HALF,
    DISTRACTORS,
    GRIPPER_CLOSED,
    HOME_TCP,
    JOINTS,
    Camera,
    Scene,
    build_model,
    default_cameras,
    distractor_height,
)

SEED_JOINTS = np.array([-0.3, -1.6, 1.9, -1.87, -1.57, 1.27])  # near home, elbow up
GRIPPER_SPEED = 1.75  # closed fraction per second: the real gripper needs 0.57 s for its stroke
RAMP_HZ = 100  # rate at which a new joint target is approached, as a trajectory controller would
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # TCP pointing down, fingers along y
NOBODY, GRIPPER, LEFT_FINGER, RIGHT_FINGER = -1, 10, 11, 12  # owners of contacts; cubes count from 0


STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class Snapshot:
    """A moment of a world: MuJoCo's state, what was commanded and what touches."""

    state: np.ndarray
    q: np.ndarray
    target: float
    ramp: float
    touched: list[str]
    sides: dict[str, set[int]]
    excused: set[str]


class TabletopWorld:
    """Physics, cameras and joint commands of one tabletop; to be used from one thread, as OpenGL asks for.

    Args:
        render: make an OpenGL context; without one :meth:`render` refuses.
        cameras: ``front`` and ``wrist`` sizes; the default is what the small policy sees.
        physics_hz: physics steps per second.

    Raises:
        RenderError: ``render`` is asked for and OpenGL does not start.
    """

    joint_names = JOINTS
    colours = tuple(COLOURS)

    def __init__(
        self, render: bool = True, cameras: dict[str, Camera] | None = None, physics_hz: int = 500
    ) -> None:
        self.cameras = cameras or default_cameras()
        self.model = build_model(self.cameras, physics_hz)
        self.data = mujoco.MjData(self.model)
        self.physics_hz = physics_hz
        joints = [self.model.joint(name) for name in JOINTS]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._dof = np.array([j.dofadr[0] for j in joints])
        self._drivers = [self.model.joint(f"gripper/{s}_driver_joint").qposadr[0] for s in ("left", "right")]
        self._fingers = self.model.actuator("gripper/fingers_actuator").id
        self.cubes = {c: self.model.joint(f"cube_{c}") for c in COLOURS}
        self._site = self.model.site("tcp").id
        self.loose = {name: self.model.body(name).mocapid[0] for name in ("tray", *DISTRACTORS)}
        self.tray: np.ndarray | None = None  # centre (x, y) in m of the tray, where there is one
        self.appearance = Appearance(self.model)
        self.touched: list[str] = []  # cubes the gripper touched since the last mark, in order
        self._sides: dict[str, set[int]] = {}  # cube -> parts of the gripper that touch it now
        self._excused: set[str] = set()
        self.kinematics = ArmKinematics(self.model, self._qpos, self._dof)
        self._geom_owner = self._owners()
        self.home = self.kinematics.inverse(_down_at(HOME_TCP), SEED_JOINTS, iterations=50)
        self._settled = {g: self._settle(g) for g in (0.0, 1.0)}
        self._renderer = Renderer(self.model, self.cameras) if render else None
        self.reset(Scene({c: (0.42 + 0.12 * i, 0.0, 0.0) for i, c in enumerate(COLOURS)}))

    # -- state -----------------------------------------------------------------------------------------
    @property
    def time(self) -> float:
        """Simulated seconds since the last reset."""
        return float(self.data.time)

    @property
    def q(self) -> np.ndarray:
        """Measured joint positions [6], rad."""
        return self.data.qpos[self._qpos].copy()

    @property
    def qd(self) -> np.ndarray:
        """Measured joint velocities [6], rad/s."""
        return self.data.qvel[self._dof].copy()

    @property
    def q_command(self) -> np.ndarray:
        """Last joint target given by :meth:`command` or :meth:`follow` [6], rad."""
        return self._q_command.copy()

    @property
    def gripper(self) -> float:
        """Measured closed fraction of the gripper, 0 open to 1 closed."""
        return float(np.clip(self.data.qpos[self._drivers].mean() / GRIPPER_CLOSED, 0.0, 1.0))

    @property
    def gripper_command(self) -> float:
        """Closed fraction last asked for."""
        return self._gripper_target

    @property
    def gripper_ramp(self) -> float:
        """Closed fraction the gripper's drive is at, on its way to the command."""
        return self._gripper_ramp

    def tcp_pose(self) -> np.ndarray:
        """Return the measured TCP pose [4, 4] in the base frame."""
        pose = np.eye(4)
        pose[:3, 3] = self.data.site_xpos[self._site]
        pose[:3, :3] = self.data.site_xmat[self._site].reshape(3, 3)
        return pose

    def tcp_command(self) -> np.ndarray:
        """Return the TCP pose [4, 4] of the commanded joints."""
        return self.kinematics.forward(self._q_command)

    def cube_poses(self) -> np.ndarray:
        """Return position and quaternion (w first) of each cube [3, 7], in the order of ``colours``."""
        return np.stack([self.data.qpos[j.qposadr[0] : j.qposadr[0] + 7] for j in self.cubes.values()])

    def cube_position(self, colour: str) -> np.ndarray:
        """Return the centre of one cube [3], m."""
        start = self.cubes[colour].qposadr[0]
        return self.data.qpos[start : start + 3].copy()

    # -- acting ----------------------------------------------------------------------------------------
    def reset(self, scene: Scene) -> None:
        """Put the cubes and the arm where ``scene`` says, everything at rest, time zero.

        Raises:
            UnreachablePose: the arm cannot start there.
        """
        start = self.kinematics.inverse(_down_at(scene.tcp), self.home, iterations=50)
        closed = round(scene.gripper)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self._settled[float(closed)]
        self.data.qpos[self._qpos] = start
        for colour, joint in self.cubes.items():
            x, y, yaw = scene.cubes[colour]
            at = joint.qposadr[0]
            self.data.qpos[at : at + 7] = [x, y, CUBE_HALF, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self._furnish(scene)
        self.appearance.show(scene)
        self._q_command, self._gripper_target, self._gripper_ramp = start, float(closed), float(closed)
        self._write_controls(start)
        self._sides, self.touched, self._excused = {}, [], set()
        self.step(0.02)
        self.data.time = 0.0
        self.mark()

    def mark(self) -> None:
        """Judge the next task from here: forget what was touched, and take the cubes' places as their rest.

        A cube that the gripper still leans on from the task before counts again once it was let go.
        """
        self.touched = []
        self._excused = set(self._sides)
        self.rest = {c: self.cube_position(c) for c in COLOURS}

    def command(self, q_target: np.ndarray, gripper_fraction: float) -> None:
        """Set the servo targets: joints [6] in rad and the gripper's closed fraction (0 to 1)."""
        self._q_command = np.array(q_target, float)
        self._gripper_target = float(np.clip(gripper_fraction, 0.0, 1.0))
        self._write_controls(self._q_command)

    def follow(self, q_target: np.ndarray, gripper_fraction: float, seconds: float) -> None:
        """Move the joint target linearly to ``q_target`` over ``seconds``, stepping the physics meanwhile."""
        start, goal = self._q_command, np.array(q_target, float)
        self._gripper_target = float(np.clip(gripper_fraction, 0.0, 1.0))
        ticks = max(1, round(seconds * RAMP_HZ))
        for tick in range(1, ticks + 1):
            self._write_controls(start + (goal - start) * (tick / ticks))
            self.step(seconds / ticks)
        self._q_command = goal

    def step(self, seconds: float) -> None:
        """Advance the physics; the fingers approach their target at the gripper's speed."""
        substeps = max(1, round(seconds * self.physics_hz))
        chunk = max(1, round(self.physics_hz / RAMP_HZ))
        while substeps > 0:
            count = min(chunk, substeps)
            reach = GRIPPER_SPEED * count / self.physics_hz
            self._gripper_ramp += float(np.clip(self._gripper_target - self._gripper_ramp, -reach, reach))
            self.data.ctrl[self._fingers] = 255.0 * self._gripper_ramp
            mujoco.mj_step(self.model, self.data, count)
            self._note_contacts()
            substeps -= count

    def render(self) -> dict[str, np.ndarray]:
        """Return ``front`` and ``wrist`` as uint8 RGB [H, W, 3]."""
        if self._renderer is None:
            raise RuntimeError("this world was made with render=False")
        mujoco.mj_kinematics(self.model, self.data)  # poses of the state itself, not of the step before it
        mujoco.mj_camlight(self.model, self.data)
        return self._renderer.render(self.data)

    def snapshot(self) -> Snapshot:
        """Return all that decides what comes next, for :meth:`restore`."""
        state = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, state, STATE)
        commanded = self._q_command.copy(), self._gripper_target, self._gripper_ramp
        return Snapshot(state, *commanded, list(self.touched), dict(self._sides), set(self._excused))

    def restore(self, kept: Snapshot) -> None:
        """Go back to a moment of the same scene."""
        mujoco.mj_setState(self.model, self.data, kept.state, STATE)
        mujoco.mj_forward(self.model, self.data)
        self._q_command, self._gripper_target, self._gripper_ramp = kept.q.copy(), kept.target, kept.ramp
        self.touched, self._sides, self._excused = list(kept.touched), dict(kept.sides), set(kept.excused)

    def look(self) -> dict[str, np.ndarray]:
        """Return :meth:`render`, or images of no pixels where the world was made without rendering."""
        if self._renderer is None:
            return {name: np.zeros((0, 0, 3), np.uint8) for name in self.cameras}
        return self.render()

    def close(self) -> None:
        """Free the OpenGL context; safe to call twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- inside ----------------------------------------------------------------------------------------
    def _write_controls(self, q: np.ndarray) -> None:
        self.data.ctrl[:6] = q

    def _settle(self, gripper: float) -> np.ndarray:
        """Return ``qpos`` with the gripper's linkage at rest, open or closed, the arm at home."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._qpos] = self.home
        for i, joint in enumerate(self.cubes.values()):
            self.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = [0.3, 0.4 + 0.1 * i, CUBE_HALF]
        self.data.ctrl[:6], self.data.ctrl[self._fingers] = self.home, 255.0 * gripper
        mujoco.mj_step(self.model, self.data, self.physics_hz)
        return self.data.qpos.copy()

    def _furnish(self, scene: Scene) -> None:
        """Put the tray and the distractors where the scene has them, and the rest away."""
        self.tray = None if scene.tray is None else np.array(scene.tray)
        for name, index in self.loose.items():
            at = (0.0, 0.0, AWAY)
            if name == "tray" and scene.tray is not None:
                at = (*scene.tray, 0.0)
            elif name in scene.distractors:
                at = (*scene.distractors[name], distractor_height(name))
            self.data.mocap_pos[index] = at

    def _owners(self) -> np.ndarray:
        """Return for each geom the index of the cube it belongs to, the gripper's part, or NOBODY."""
        owner = np.full(self.model.ngeom, NOBODY)
        for geom in range(self.model.ngeom):
            body = self.model.body(self.model.geom_bodyid[geom]).name
            if body.startswith("cube_"):
                owner[geom] = self.colours.index(body.removeprefix("cube_"))
            elif body.startswith("gripper/left"):
                owner[geom] = LEFT_FINGER
            elif body.startswith("gripper/right"):
                owner[geom] = RIGHT_FINGER
            elif body.startswith("gripper/"):
                owner[geom] = GRIPPER
        return owner

    def _note_contacts(self) -> None:
        pairs = self._geom_owner[self.data.contact.geom[: self.data.ncon]]
        low, high = pairs.min(axis=1, initial=99), pairs.max(axis=1, initial=-1)
        sides: dict[str, set[int]] = {}
        for cube, part in zip(low, high, strict=True):
            if 0 <= cube < GRIPPER <= part:
                sides.setdefault(self.colours[cube], set()).add(int(part))
        self._sides = sides
        self._excused &= set(sides)
        self.touched += [c for c in sides if c not in self.touched and c not in self._excused]

    def touching(self, colour: str) -> bool:
        """Return whether any part of the gripper touches the cube."""
        return bool(self._sides.get(colour))

    def held(self, colour: str) -> bool:
        """Return whether both fingers touch the cube."""
        return {LEFT_FINGER, RIGHT_FINGER} <= self._sides.get(colour, set())


def _down_at(position: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = DOWN, position
    return pose
