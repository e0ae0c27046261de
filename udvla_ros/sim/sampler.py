"""Random scenes that fit a task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from udvla_ros.sim.scene import (
    COLOURS,
    CUBE_AREA,
    CUBE_SPACING,
    DISTRACTORS,
    HOME_TCP,
    START_JITTER,
    TRAY_HALF,
    CameraShift,
    Scene,
)
from udvla_ros.sim.tasks import DIRECTIONS, Task

TRAY_AREA = ((0.40, 0.58), (-0.16, 0.16))  # x and y ranges of the tray's centre, m
TRAY_SPACING = TRAY_HALF + 0.06  # m from the tray's centre to a cube's: a hand has room to grasp
PUSH_AREA = ((0.32, 0.66), (-0.22, 0.22))  # x and y ranges a cube is pushed within, m
PUSH_WAY = (-0.08, 0.09)  # m along the push, from the cube's start: hand and cube need this room
PUSH_ROOM = 0.06  # m between that way and another cube's centre
DISTRACTOR_SPACING = 0.085  # m
TRIES = 3_000


@dataclass(frozen=True)
class SceneSampler:
    """Ranges scenes are drawn from.

    Attributes:
        closed_start: probability that the gripper starts closed, as it is after a touch.
        tray: probability that a tray stands in a scene whose task needs none.
        distractors: probability that each of the distractors stands in a scene.
        light: half range of the light's factor about 1.
        camera_metres, camera_turn: standard deviations (m, rad) of the cameras' places, each axis.
    """

    area: tuple[tuple[float, float], tuple[float, float]] = CUBE_AREA
    spacing: float = CUBE_SPACING
    yaw: float = np.pi
    jitter: tuple[float, float, float] = START_JITTER
    closed_start: float = 0.15
    colours: tuple[str, ...] = field(default_factory=lambda: tuple(COLOURS))
    tray: float = 0.0
    distractors: float = 0.0
    light: float = 0.0
    camera_metres: float = 0.0
    camera_turn: float = 0.0

    def sample(self, rng: np.random.Generator, task: Task | None = None) -> Scene:
        """Return a random scene in which the task can be done; its cubes lie at least ``spacing`` apart.

        Raises:
            ValueError: the area is too small for that.
        """
        for _ in range(TRIES):
            scene = self._arrange(rng, task)
            if scene is not None:
                return self._vary(scene, rng)
        raise ValueError(
            f"{len(self.colours)} cubes {self.spacing} m apart do not fit into {self.area} for {task or 'any task'}"
        )

    def _arrange(self, rng: np.random.Generator, task: Task | None) -> Scene | None:
        """Return one try, or None where it does not fit."""
        centres = self._centres(rng)
        tray = None
        if (task is not None and task.kind == "place") or (self.tray > 0 and rng.random() < self.tray):
            low, high = np.array(TRAY_AREA).T
            tray = rng.uniform(low, high)
            if np.linalg.norm(centres - tray, axis=1).min() < TRAY_SPACING:
                return None
        if task is not None and task.kind == "push" and not self._room_to_push(centres, tray, task):
            return None
        yaws = rng.uniform(-self.yaw, self.yaw, size=len(self.colours))
        placed = np.column_stack([centres, yaws]).tolist()
        cubes = {colour: (x, y, yaw) for colour, (x, y, yaw) in zip(self.colours, placed, strict=True)}
        x, y, z = (np.array(HOME_TCP) + rng.uniform(-1.0, 1.0, 3) * np.array(self.jitter)).tolist()
        gripper = 1.0 if rng.random() < self.closed_start else 0.0
        return Scene(cubes, (x, y, z), gripper, None if tray is None else (float(tray[0]), float(tray[1])))

    def _centres(self, rng: np.random.Generator) -> np.ndarray:
        """Return the cubes' centres [n, 2], far enough apart.

        Raises:
            ValueError: see :meth:`sample`.
        """
        low, high = np.array(self.area).T
        for _ in range(TRIES):  # three cubes fit easily, so drawing all anew needs only a few tries
            centres = rng.uniform(low, high, size=(len(self.colours), 2))
            gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
            if gaps[np.triu_indices(len(centres), 1)].min(initial=np.inf) >= self.spacing:
                return centres
        raise ValueError(f"{len(self.colours)} cubes {self.spacing} m apart do not fit into {self.area}")

    def _room_to_push(self, centres: np.ndarray, tray: np.ndarray | None, task: Task) -> bool:
        cube = centres[self.colours.index(task.colour)]
        direction = np.array(DIRECTIONS[task.direction])
        others = np.delete(centres, self.colours.index(task.colour), axis=0)
        way = cube + np.linspace(*PUSH_WAY, 8)[:, None] * direction
        low, high = np.array(PUSH_AREA).T
        inside = bool(np.all((way[-1] >= low) & (way[-1] <= high)) and way[0, 0] >= low[0] - 0.02)
        clear = np.linalg.norm(way[:, None] - others[None], axis=-1).min(initial=np.inf) >= PUSH_ROOM
        off_tray = tray is None or np.linalg.norm(way - tray, axis=1).min() >= TRAY_SPACING
        return inside and bool(clear) and bool(off_tray)

    def _vary(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Return the scene with what the sampler adds beyond the arrangement itself."""
        changes: dict = {}
        if self.distractors > 0:
            changes["distractors"] = self._stand_about(scene, rng)
        if self.light > 0:
            changes["light"] = float(1.0 + rng.uniform(-self.light, self.light))
        if self.camera_metres > 0 or self.camera_turn > 0:
            changes["cameras"] = {
                name: CameraShift(
                    tuple((rng.normal(size=3) * self.camera_metres).tolist()),
                    tuple((rng.normal(size=3) * self.camera_turn).tolist()),
                )
                for name in ("front", "wrist")
            }
        return replace(scene, **changes) if changes else scene

    def _stand_about(self, scene: Scene, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        """Return places for distractors, clear of everything; one that finds none stays away."""
        taken = [np.array(cube[:2]) for cube in scene.cubes.values()]
        low, high = np.array(self.area).T
        placed: dict[str, tuple[float, float]] = {}
        for name in DISTRACTORS:
            if rng.random() >= self.distractors:
                continue
            for _ in range(20):
                x, y = rng.uniform(low, high).tolist()
                free = min(float(np.linalg.norm(np.array([x, y]) - other)) for other in taken)
                if free >= DISTRACTOR_SPACING and (
                    scene.tray is None or np.hypot(x - scene.tray[0], y - scene.tray[1]) >= TRAY_SPACING
                ):
                    placed[name] = (x, y)
                    taken.append(np.array([x, y]))
                    break
        return placed


# What a policy is tried under: the scenes of its demonstrations, and others.
CONDITIONS: dict[str, SceneSampler] = {
    "plain": SceneSampler(),
    "distractors": SceneSampler(distractors=0.7),
    "light": SceneSampler(light=0.25),
    "camera": SceneSampler(camera_metres=0.006, camera_turn=0.01),
}


def sample_scene(seed: int | np.random.Generator, task: Task | None = None, condition: str = "plain") -> Scene:
    """Return a random scene for a task; the same seed, task and condition give the same scene."""
    return CONDITIONS[condition].sample(np.random.default_rng(seed), task)
