"""The scripted expert: what it does next is a function of what the cameras can see.

There is no clock and no phase counter. The action follows from the commanded TCP pose, how far the gripper
is closed, and where the named cube is, so that a policy which sees the pictures can learn it. Because the
law is a plain function, its future can be rolled out without physics: that is the label of an action chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, exp, hypot, sin

import numpy as np

from udvla_ros.sim.control import CONTROL_DT, compose
from udvla_ros.sim.kinematics import log_so3
from udvla_ros.sim.scene import CUBE_HALF
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import DOWN, GRIPPER_SPEED, TabletopWorld

MAX_STEP = 0.028  # m per control step, each of lateral and vertical
LAST_STEP = 0.008  # m within which the goal is reached in one step
GAIN = 0.65  # share of the remaining way per step when near
MAX_TURN = 0.1  # rad per step, to correct drift away from pointing down
HOVER = 0.07  # m above the goal height, until the cube is nearly below
FUNNEL = 3.5  # m of height per m of lateral error
FUNNEL_FLOOR = 0.004  # m of lateral error that count as none
TIP_CLOSED = 0.0185  # m from the TCP down to the closed fingertips
PRESS = 0.0015  # m the commanded fingertip goes below the cube's top
GRASP_ABOVE = 0.002  # m from the cube's centre up to the TCP: the tips sink while closing
LIFT_HEIGHT = 0.115  # m of the TCP above the table at the end of a pick
NEAR = (0.010, 0.015, 0.010)  # m; fingers along y forgive more there
FINGER_LAG = 0.09  # s by which the fingers follow their ramp (fitted)
OPENING = 0.0857  # m between the pads at closed fraction 0 (fitted to where cubes stop the fingers)
CLOSING_RATE = 0.0797  # m of opening per unit of closed fraction


@dataclass
class Sight:
    """What the expert knows at one moment; positions in m, base frame.

    Attributes:
        pose: commanded TCP pose [4, 4].
        cube: centre of the named cube [3].
        width: of the cube between the fingers, m.
        closed: measured closed fraction; ``ramp`` is the fraction its drive is at.
        held: both fingers touch the cube.
    """

    pose: np.ndarray
    cube: np.ndarray
    width: float
    closed: float
    ramp: float
    held: bool

    @staticmethod
    def of(world: TabletopWorld, task: Task) -> Sight:
        """Return what is to be seen in ``world`` for ``task``."""
        w, x, y, z = world.cube_poses()[world.colours.index(task.colour)][3:]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return Sight(
            pose=world.tcp_command(),
            cube=world.cube_position(task.colour),
            width=2 * CUBE_HALF * (abs(cos(yaw)) + abs(sin(yaw))),
            closed=world.gripper,
            ramp=world.gripper_ramp,
            held=world.held(task.colour),
        )


def _step(way: float) -> float:
    """Return how much of ``way`` (m, signed) one control step covers: fast far away, slower near."""
    distance = abs(way)
    covered = min(distance, MAX_STEP, max(GAIN * distance, LAST_STEP))
    return covered if way >= 0 else -covered


def _approach(sight: Sight, height: float, ready: bool) -> tuple[float, float, float]:
    """Return the step towards ``height`` (m) above the table at the cube's x and y, through a funnel."""
    x, y, z = (float(v) for v in sight.pose[:3, 3])
    dx, dy = float(sight.cube[0]) - x, float(sight.cube[1]) - y
    lateral = hypot(dx, dy)

    def wanted(error: float) -> float:
        above = min(max(FUNNEL * (error - FUNNEL_FLOOR), 0.0), HOVER)
        return height + (above if ready else max(above, 0.5 * HOVER))

    share = _step(lateral) / lateral if lateral > 1e-9 else 0.0
    too_low = wanted(lateral) - z - 0.02
    if too_low > 0:  # rise first, or the fingers sweep the cubes away
        share *= max(0.0, 1.0 - too_low / 0.03)
    return dx * share, dy * share, _step(wanted(lateral * (1.0 - share)) - z)


def goal(cube: np.ndarray, kind: str) -> np.ndarray:
    """Return where the expert takes the TCP [3] (m) for a cube centred at ``cube``: onto it, or around it."""
    above = CUBE_HALF + TIP_CLOSED - PRESS if kind == "touch" else GRASP_ABOVE
    return cube + np.array([0.0, 0.0, above])


def law(sight: Sight, kind: str) -> np.ndarray:
    """Return the expert's action [7] for what is seen."""
    action = np.zeros(7)
    turn = log_so3(DOWN @ sight.pose[:3, :3].T)
    size = float(np.linalg.norm(turn))
    if size > 1e-4:  # below that it is the solver's rounding
        action[3:6] = turn * min(1.0, MAX_TURN / size)
    target = goal(sight.cube, kind)
    if kind == "touch":
        action[:3] = _approach(sight, float(target[2]), ready=sight.closed > 0.8)
        action[6] = 1.0
        return action
    if sight.held:
        action[2] = _step(LIFT_HEIGHT - float(sight.pose[2, 3]))
        action[6] = 1.0
        return action
    if np.all(np.abs(target - sight.pose[:3, 3]) < NEAR):
        action[6] = 1.0
        return action
    action[:3] = _approach(sight, float(target[2]), ready=sight.closed < 0.25)
    action[6] = -1.0
    return action


def foresee(sight: Sight, action: np.ndarray, dt: float = CONTROL_DT) -> Sight:
    """Return what the expert expects to see one control step after ``action``, without physics."""
    closing = action[6] > 0
    reach = GRIPPER_SPEED * dt
    ramp = min(sight.ramp + reach, 1.0) if closing else max(sight.ramp - reach, 0.0)
    lag = (ramp - sight.ramp) / dt * FINGER_LAG  # the fingers trail a moving ramp by this much
    closed = ramp - lag + (sight.closed - sight.ramp + lag) * exp(-dt / FINGER_LAG)
    pose = compose(sight.pose, action)
    cube, held = sight.cube, sight.held and closing
    if closing:
        between = np.all(np.abs(goal(sight.cube, "pick") - sight.pose[:3, 3]) < NEAR)
        blocked = (OPENING - sight.width) / CLOSING_RATE
        if held:
            closed = sight.closed
            cube = sight.cube + action[:3]
        elif between and sight.closed < blocked and closed >= blocked:
            closed, held = blocked, True
    return replace(sight, pose=pose, cube=cube, closed=closed, ramp=ramp, held=held)


class Expert:
    """The law applied to a world.

    Args:
        world: the world it looks at (privileged: poses, not pictures).
        task: what it is to do.
    """

    def __init__(self, world: TabletopWorld, task: Task) -> None:
        self._world, self._task = world, task

    def act(self) -> np.ndarray:
        """Return the action [7] float32 for the world as it is."""
        return law(Sight.of(self._world, self._task), self._task.kind).astype(np.float32)

    def plan(self, steps: int) -> np.ndarray:
        """Return the next ``steps`` actions [steps, 7] float32 it intends; the first is :meth:`act`."""
        sight = Sight.of(self._world, self._task)
        actions = np.empty((steps, 7), np.float32)
        for index in range(steps):
            actions[index] = action = law(sight, self._task.kind)
            if index + 1 < steps:
                sight = foresee(sight, action)
        return actions
