"""Was it done? One episode, judged from the simulator's own state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from udvla_ros.sim.scene import TRAY_HALF
from udvla_ros.sim.tasks import DIRECTIONS, Task

if TYPE_CHECKING:
    from udvla_ros.sim.world import TabletopWorld

MOVED = 0.02  # m another cube may move
LIFTED = 0.06  # m above its rest height counts as picked up
OTHER_LIFTED = 0.03  # m
PUSHED = 0.05  # m in the asked direction
ASTRAY = 0.03  # m a pushed cube may leave the asked line
RELEASED = 0.5  # closed fraction below which the gripper has let go
IN_TRAY = TRAY_HALF - 0.008  # m from the tray's centre, along its sides, of a cube that lies in it
LYING = 0.03  # m: centre of a cube that lies in the tray is below this


class TaskMonitor:
    """Watches one episode; call :meth:`update` once after each control step.

    Attributes:
        succeeded, failed: latched, never both.
        reason: why it failed, or what was achieved; empty while neither.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.succeeded = False
        self.failed = False
        self.reason = ""

    def update(self, world: TabletopWorld) -> None:
        """Judge the world's state and what was touched since its last reset."""
        if self.succeeded or self.failed:
            return
        {"touch": self._touch, "pick": self._pick, "push": self._push, "place": self._place}[self.task.kind](world)

    def _fail(self, reason: str) -> None:
        self.failed, self.reason = True, reason

    def _succeed(self, reason: str) -> None:
        self.succeeded, self.reason = True, reason

    def _moved_another(self, world: TabletopWorld) -> bool:
        """Fail where a cube that was not named has moved."""
        for other in world.colours:
            moved = np.linalg.norm(world.cube_position(other) - world.rest[other])
            if other != self.task.colour and moved > MOVED:
                self._fail(f"moved the {other} cube")
        return self.failed

    def _lifted_another(self, world: TabletopWorld) -> bool:
        for other in world.colours:
            rise = world.cube_position(other)[2] - world.rest[other][2]
            if other != self.task.colour and rise > OTHER_LIFTED:
                self._fail(f"lifted the {other} cube")
        return self.failed

    def _touch(self, world: TabletopWorld) -> None:
        wanted = self.task.colour
        if world.touched and world.touched[0] != wanted:
            return self._fail(f"touched the {world.touched[0]} cube first")
        if not self._moved_another(world) and world.touched:
            self._succeed(f"touched the {wanted} cube")

    def _pick(self, world: TabletopWorld) -> None:
        wanted = self.task.colour
        rise = world.cube_position(wanted)[2] - world.rest[wanted][2]
        if not self._lifted_another(world) and rise >= LIFTED and world.held(wanted):
            self._succeed(f"lifted the {wanted} cube")

    def _push(self, world: TabletopWorld) -> None:
        wanted, direction = self.task.colour, np.array(DIRECTIONS[self.task.direction])
        if self._moved_another(world):
            return
        way = (world.cube_position(wanted) - world.rest[wanted])[:2]
        along = float(way @ direction)
        astray = float(np.linalg.norm(way - along * direction))
        if astray > ASTRAY or along < -ASTRAY:
            self._fail(f"pushed the {wanted} cube another way")
        elif along >= PUSHED:
            self._succeed(f"pushed the {wanted} cube {self.task.direction}")

    def _place(self, world: TabletopWorld) -> None:
        wanted = self.task.colour
        if world.tray is None:
            return self._fail("there is no tray")
        if self._moved_another(world):
            return
        cube = world.cube_position(wanted)
        inside = bool(np.all(np.abs(cube[:2] - world.tray) < IN_TRAY)) and cube[2] < LYING
        if inside and not world.touching(wanted) and world.gripper < RELEASED:
            self._succeed(f"put the {wanted} cube in the tray")


def success(world: TabletopWorld, task: Task) -> bool:
    """Return whether the world, as it is since its last reset, fulfils the task."""
    monitor = TaskMonitor(task)
    monitor.update(world)
    return monitor.succeeded
