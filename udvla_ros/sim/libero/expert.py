"""A scripted expert for LIBERO's pick-and-place goals, in the benchmark's own actions.

It knows where everything is, and each action follows from the state of the world alone (but for the grasp that was
chosen), so that it goes on from wherever it is put: after noise, or in a policy's place.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from udvla_ros.sim.libero import grasps
from udvla_ros.sim.libero.install import LiberoError
from udvla_ros.sim.libero.suites import LiberoTask, goal
from udvla_ros.sim.libero.world import SCALE, LiberoWorld

GAIN = 4.0  # the arm goes a fraction of what it is told in a step
SWIFT = 0.05  # m of error from which it goes as fast as it can
ABOVE = 0.03  # m between what is carried and what it is carried over
OPEN, CLOSE = -1.0, 1.0
DOWN = np.array([0.0, 0.0, -1.0])


def placing(task: LiberoTask) -> list[list[str]]:
    """Return the goal of a task that is all picking and placing. Raises LiberoError for others."""
    found = goal(task.scene)
    for state in found:
        if state[0] not in ("in", "on") or len(state) != 3:
            raise LiberoError(f"no expert for {task.suite} task {task.index}: '{' '.join(state)}' is no placing")
    return found


class Expert:
    """Acts for the first predicate of the goal that does not hold yet.

    Raises:
        LiberoError: a goal that is no picking and placing.
    """

    def __init__(self, world: LiberoWorld) -> None:
        self.world = world
        self.goal = placing(world.task)
        self._grasp: grasps.Grasp | None = None
        self._seen = np.zeros(3)

    def act(self) -> np.ndarray:
        """Return the next action, float32 [7], in the benchmark's units."""
        world = self.world
        open_goals = [state for state in self.goal if not world.fulfilled([state])]
        if not open_goals:
            return self._leave()
        verb, thing, onto = open_goals[0]
        points, tcp = world.surface(thing), world.tcp()
        target, height = self._resting(verb, onto)
        away = target[:2] - world.place(thing)[:2]
        off = float(np.linalg.norm(away))
        held = world.holds(thing) and world.closing and world.finger_speed() < 0.02
        if held:
            self._grasp = None
            return self._carry(points, away, off, height, 0.02 if verb == "in" else 0.01)
        if off < 0.04 and points[:, 2].min() > height - 0.15 and points[:, 2].min() > self._floor(thing) + 0.02:
            return self._leave()  # just let go: it falls
        return self._fetch(thing, points, tcp)

    def _leave(self) -> np.ndarray:
        """Open, and go up once the fingers are open."""
        return self._towards(np.array([0.0, 0.0, 0.02 if self.world.opening() > 0.07 else 0.0]), OPEN)

    # -- carrying ---------------------------------------------------------------------------------------
    def _resting(self, verb: str, onto: str) -> tuple[np.ndarray, float]:
        """Return where the thing shall be let go: a place [3], and the height of its lowest point."""
        world = self.world
        target = world.place(onto)
        holder = onto
        if onto in world.env.object_sites_dict:
            holder = world.env.object_sites_dict[onto].parent_name
        top = target[2]
        if holder in world._solid:
            solid = world.surface(holder)
            if verb == "in":
                top = float(solid[:, 2].max())
            else:
                near = solid[np.linalg.norm(solid[:, :2] - target[:2], axis=1) < 0.08]
                top = float(near[:, 2].max()) if len(near) and holder == onto else target[2]
        return target, top + 0.008

    def _floor(self, thing: str) -> float:
        """Return the height of what the things stand on, m."""
        lowest = [self.world.surface(name)[:, 2].min() for name in self.world.env.objects_dict if name != thing]
        return float(np.nanmin(lowest)) if lowest else 0.0

    def _carry(self, points: np.ndarray, away: np.ndarray, off: float, height: float, tolerance: float) -> np.ndarray:
        bottom = float(points[:, 2].min())
        if off < tolerance and abs(bottom - height) < 0.012:
            return self._towards(np.zeros(3), OPEN)
        over = max(height, self._tallest() + ABOVE if off > 0.15 else height)
        wanted = height + float(np.clip(4 * (off - tolerance), 0.0, max(over, height + ABOVE) - height))
        rise = wanted - bottom
        pace = 1.0 if rise < 0.03 else 0.1  # up before sideways
        return self._towards(np.array([*(away * pace), rise]), CLOSE)

    def _tallest(self) -> float:
        """Return how high the things on the table reach, but for what is held, m."""
        held = [n for n in self.world.env.objects_dict if self.world.holds(n)]
        tops = [self.world.surface(n)[:, 2].max() for n in self.world.env.objects_dict if n not in held]
        return float(np.nanmax(tops)) if tops else 0.0

    # -- fetching ---------------------------------------------------------------------------------------
    def _fetch(self, thing: str, points: np.ndarray, tcp: np.ndarray) -> np.ndarray:
        world = self.world
        yaw = float(np.arctan2(tcp[1, 0], tcp[0, 0]))
        place = world.place(thing)
        moved = np.linalg.norm(place - self._seen) > 0.01
        if self._grasp is None or (moved and not world.closing):
            about = [world.surface(name) for name in world._solid if name != thing]
            others = np.concatenate(about) if about else np.zeros((0, 3))
            others = others[np.isfinite(others).all(1)]
            self._grasp = grasps.best(points, others, yaw, float(points[:, 2].min()) + 0.008)
            self._seen = place
        if self._grasp is None:  # nothing to take hold of: wait above it
            return self._towards(np.array([*(place - tcp[:3, 3])[:2], 0.02]), OPEN)
        error = self._grasp.position - tcp[:3, 3]
        off, turn = float(np.linalg.norm(error[:2])), abs(self._grasp.yaw - yaw)
        turn = min(turn, 2 * np.pi - turn)
        if world.closing and world.opening() > 0.004 and off < 0.03 and abs(error[2]) < 0.03:
            return self._towards(error, CLOSE, self._grasp.yaw)
        there = off < 0.008 and abs(error[2]) < 0.008 and turn < 0.12
        if there and world.opening() > 0.06:  # fingers that missed open first
            return self._towards(error, CLOSE, self._grasp.yaw)
        travel = max(self._grasp.position[2] + 0.08, self._tallest() + 0.03)
        span = travel - self._grasp.position[2]
        above = float(np.clip(5 * max(off - 0.008, 0) + 0.3 * max(turn - 0.1, 0), 0.0, span))
        rise = self._grasp.position[2] + above - tcp[2, 3]
        pace = 1.0 if rise < 0.03 else 0.1
        return self._towards(np.array([*(error[:2] * pace), rise]), OPEN, self._grasp.yaw)

    def _towards(self, way: np.ndarray, fingers: float, yaw: float | None = None) -> np.ndarray:
        """Return the action that goes a way [3] in m, the hand pointing down, its fingers at ``yaw`` (as they are)."""
        tcp = self.world.tcp()
        angle = float(np.arctan2(tcp[1, 0], tcp[0, 0])) if yaw is None else yaw
        x = np.array([np.cos(angle), np.sin(angle), 0.0])
        wanted = np.stack([x, np.cross(DOWN, x), DOWN], 1)
        turn = Rotation.from_matrix(wanted @ tcp[:3, :3].T).as_rotvec()
        action = np.empty(7, np.float32)
        action[:3] = way * GAIN / SCALE[0]
        length = float(np.abs(action[:3]).max())
        action[:3] /= max(length * SCALE[0] / SWIFT, 1.0)  # straight, not along the fastest axis
        action[3:6] = np.clip(turn * GAIN / SCALE[3] / 2, -0.5, 0.5)
        action[6] = fingers
        return action
