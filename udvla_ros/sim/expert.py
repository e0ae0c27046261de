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
from udvla_ros.sim.sampler import PUSH_AREA
from udvla_ros.sim.scene import CUBE_HALF, TRAY_HALF, TRAY_WALL
from udvla_ros.sim.tasks import DIRECTIONS, Task
from udvla_ros.sim.world import DOWN, GRIPPER_SPEED, TabletopWorld

MAX_STEP = 0.028  # m per control step, each of lateral and vertical
LAST_STEP = 0.008  # m within which the goal is reached in one step
GAIN = 0.65  # share of the remaining way per step when near
MAX_TURN = 0.06  # rad per step, to correct drift away from pointing down
TURN_GAIN = 0.2  # share of the drift per step: corrected at once, it would cost most chunks more codes than they have
HOVER = 0.07  # m above the goal height, until the cube is nearly below
FUNNEL = 3.5  # m of height per m of lateral error
FUNNEL_FLOOR = 0.004  # m of lateral error that count as none
TIP_CLOSED = 0.0185  # m from the TCP down to the closed fingertips
PRESS = 0.003  # m the commanded fingertip goes below the cube's top
GRASP_ABOVE = 0.002  # m from the cube's centre up to the TCP: the tips sink while closing
LIFT_HEIGHT = 0.115  # m of the TCP above the table at the end of a pick
NEAR = (0.010, 0.015, 0.010)  # m; fingers along y forgive more there
PUSH_HEIGHT = TIP_CLOSED + 0.012  # m of the TCP while pushing: the tips meet the cube below its middle
STANDOFF = 0.058  # m behind the cube's centre where a push begins
PUSH_STEP = 0.016  # m per control step of a push: fast enough to feel, slow enough to steer
PUSH_LANE = 0.014  # m aside of the cube's centre from which a push may begin
CONTACT = 0.026  # m from the cube's centre to the TCP while it is pushed, for a cube face on (fitted)
RELEASE = GRASP_ABOVE + CUBE_HALF + TRAY_WALL + 0.006  # m of the TCP above the table when a cube is let go
OVER_TRAY = 0.014  # m from the tray's centre from which a cube is let go
LAID = TRAY_HALF - 0.006  # m from the tray's centre, along its sides, of a cube that needs no more handling
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
        tray: centre [2] of the tray, None where there is none.
        touched: the gripper has touched the cube.
    """

    pose: np.ndarray
    cube: np.ndarray
    width: float
    closed: float
    ramp: float
    held: bool
    tray: np.ndarray | None = None
    touched: bool = False

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
            tray=world.tray,
            touched=task.colour in world.touched,
        )


def _step(way: float) -> float:
    """Return how much of ``way`` (m, signed) one control step covers: fast far away, slower near."""
    distance = abs(way)
    covered = min(distance, MAX_STEP, max(GAIN * distance, LAST_STEP))
    return covered if way >= 0 else -covered


def _approach(sight: Sight, goal: np.ndarray, ready: bool) -> tuple[float, float, float]:
    """Return the step towards ``goal`` [3], m, through a funnel: high until nearly above it."""
    x, y, z = (float(v) for v in sight.pose[:3, 3])
    dx, dy, height = float(goal[0]) - x, float(goal[1]) - y, float(goal[2])
    lateral = hypot(dx, dy)

    def wanted(error: float) -> float:
        above = min(max(FUNNEL * (error - FUNNEL_FLOOR), 0.0), HOVER)
        return height + (above if ready else max(above, 0.5 * HOVER))

    share = _step(lateral) / lateral if lateral > 1e-9 else 0.0
    too_low = wanted(lateral) - z - 0.02
    if too_low > 0:  # rise first, or the fingers sweep the cubes away
        share *= max(0.0, 1.0 - too_low / 0.03)
    return dx * share, dy * share, _step(wanted(lateral * (1.0 - share)) - z)


def goal(sight: Sight, task: Task) -> np.ndarray:
    """Return where the expert takes the TCP next [3], m: onto the cube, around it, behind it or over the tray."""
    if task.kind == "touch":
        return sight.cube + np.array([0.0, 0.0, CUBE_HALF + TIP_CLOSED - PRESS])
    if task.kind == "push":
        behind = sight.cube[:2] - STANDOFF * np.array(DIRECTIONS[task.direction])
        return np.array([*behind, PUSH_HEIGHT])
    if task.kind == "place" and sight.held and sight.tray is not None:
        return np.array([*sight.tray, RELEASE])
    return _around(sight.cube)


def _around(cube: np.ndarray) -> np.ndarray:
    return cube + np.array([0.0, 0.0, GRASP_ABOVE])


def law(sight: Sight, task: Task) -> np.ndarray:
    """Return the expert's action [7] for what is seen."""
    action = np.zeros(7)
    turn = log_so3(DOWN @ sight.pose[:3, :3].T)
    size = float(np.linalg.norm(turn))
    if size > 1e-4:  # below that it is the solver's rounding
        action[3:6] = turn * min(TURN_GAIN, MAX_TURN / size)
    {"touch": _touch, "pick": _pick, "push": _push, "place": _place}[task.kind](sight, task, action)
    return action


def _touch(sight: Sight, task: Task, action: np.ndarray) -> None:
    action[6] = 1.0
    if sight.touched:  # away again: a hand that stayed would teach a policy to hover
        action[2] = _step(LIFT_HEIGHT - float(sight.pose[2, 3]))
    else:
        action[:3] = _approach(sight, goal(sight, task), ready=sight.closed > 0.8)


def _pick(sight: Sight, task: Task, action: np.ndarray) -> None:
    if sight.held:
        action[2] = _step(LIFT_HEIGHT - float(sight.pose[2, 3]))
        action[6] = 1.0
    else:
        _grasp(sight, task, action)


def _grasp(sight: Sight, task: Task, action: np.ndarray) -> None:
    target = goal(sight, task)
    if np.all(np.abs(target - sight.pose[:3, 3]) < NEAR):
        action[6] = 1.0
        return
    action[:3] = _approach(sight, target, ready=sight.closed < 0.25)
    action[6] = -1.0


def _place(sight: Sight, task: Task, action: np.ndarray) -> None:
    action[6] = -1.0
    if sight.tray is None:
        return
    if sight.held:
        target = goal(sight, task)
        away = target - sight.pose[:3, 3]
        if hypot(away[0], away[1]) > OVER_TRAY or abs(away[2]) > OVER_TRAY:
            action[:3] = _approach(sight, target, ready=True)
            action[6] = 1.0
    elif _laid(sight):
        action[2] = _step(LIFT_HEIGHT - float(sight.pose[2, 3]))
    else:
        _grasp(sight, task, action)


def _laid(sight: Sight) -> bool:
    """Return whether the cube lies in the tray."""
    assert sight.tray is not None
    return bool(np.all(np.abs(sight.cube[:2] - sight.tray) < LAID)) and float(sight.cube[2]) < 2 * CUBE_HALF


def _push(sight: Sight, task: Task, action: np.ndarray) -> None:
    action[6] = 1.0
    direction = np.array(DIRECTIONS[task.direction])
    if _pushed_far(sight, direction):
        action[2] = _step(LIFT_HEIGHT - float(sight.pose[2, 3]))
        return
    rest = sight.cube[:2] - sight.pose[:2, 3]
    ahead = float(rest @ direction)
    aside = rest - ahead * direction
    low = float(sight.pose[2, 3]) < PUSH_HEIGHT + 0.012
    if low and hypot(*aside) < PUSH_LANE and 0.2 * CUBE_HALF < ahead < STANDOFF + 0.02:
        step = PUSH_STEP * direction + np.clip(aside, -LAST_STEP, LAST_STEP)
        action[:3] = *step, _step(PUSH_HEIGHT - float(sight.pose[2, 3]))
    else:
        action[:3] = _approach(sight, goal(sight, task), ready=sight.closed > 0.8)


def _pushed_far(sight: Sight, direction: np.ndarray) -> bool:
    """Return whether the cube has come to the edge of where cubes are pushed."""
    low, high = np.array(PUSH_AREA).T
    edge = np.where(direction > 0, high, -low)
    reach = sight.cube[:2] * np.sign(direction)
    return bool(np.any((reach > edge) & (direction != 0)))


def foresee(sight: Sight, action: np.ndarray, task: Task, dt: float = CONTROL_DT) -> Sight:
    """Return what the expert expects to see one control step after ``action``, without physics."""
    closing = action[6] > 0
    reach = GRIPPER_SPEED * dt
    ramp = min(sight.ramp + reach, 1.0) if closing else max(sight.ramp - reach, 0.0)
    lag = (ramp - sight.ramp) / dt * FINGER_LAG  # the fingers trail a moving ramp by this much
    closed = ramp - lag + (sight.closed - sight.ramp + lag) * exp(-dt / FINGER_LAG)
    pose = compose(sight.pose, action)
    cube, held = sight.cube, sight.held and closing
    if sight.held and not closing:
        cube = _dropped(sight)
    if closing and task.kind in ("pick", "place"):
        between = np.all(np.abs(_around(sight.cube) - sight.pose[:3, 3]) < NEAR)
        blocked = (OPENING - sight.width) / CLOSING_RATE
        if held:
            closed = sight.closed
            cube = sight.cube + action[:3]
        elif between and sight.closed < blocked and closed >= blocked:
            closed, held = blocked, True
    if task.kind == "push":
        cube = _shoved(sight, pose, np.array(DIRECTIONS[task.direction]))
    touched = sight.touched or (task.kind == "touch" and closed > 0.8 and _tipped(sight, pose))
    return replace(sight, pose=pose, cube=cube, closed=closed, ramp=ramp, held=held, touched=touched)


def _tipped(sight: Sight, pose: np.ndarray) -> bool:
    """Return whether closed fingertips at ``pose`` are below the cube's top, and over it."""
    x, y, z = sight.cube - pose[:3, 3]
    return hypot(x, y) < CUBE_HALF and z + CUBE_HALF + TIP_CLOSED > 0.5 * PRESS


def _dropped(sight: Sight) -> np.ndarray:
    """Return where a cube that is let go comes to lie."""
    over = sight.tray is not None and np.all(np.abs(sight.cube[:2] - sight.tray) < TRAY_HALF)
    return np.array([*sight.cube[:2], CUBE_HALF + (TRAY_WALL if over else 0.0)])


def _shoved(sight: Sight, pose: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return where the cube is once the TCP has come to ``pose``: ahead of it, if it came low and in line."""
    rest = sight.cube[:2] - pose[:2, 3]
    ahead = float(rest @ direction)
    contact = CONTACT + 0.5 * (sight.width - 2 * CUBE_HALF)
    lined = hypot(*(rest - ahead * direction)) < CUBE_HALF and 0.0 < ahead < contact
    if not lined or float(pose[2, 3]) > PUSH_HEIGHT + CUBE_HALF:
        return sight.cube
    return sight.cube + np.array([*((contact - ahead) * direction), 0.0])


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
        return law(Sight.of(self._world, self._task), self._task).astype(np.float32)

    def plan(self, steps: int) -> np.ndarray:
        """Return the next ``steps`` actions [steps, 7] float32 it intends; the first is :meth:`act`."""
        sight = Sight.of(self._world, self._task)
        actions = np.empty((steps, 7), np.float32)
        for index in range(steps):
            actions[index] = action = law(sight, self._task)
            if index + 1 < steps:
                sight = foresee(sight, action, self._task)
        return actions
