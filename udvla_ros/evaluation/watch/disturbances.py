"""What goes wrong in an episode: the scene, what a camera shows, or what was said, changed as a hand would.

Each kind is drawn by the case's seed and can be undone, as the operator who comes to help does first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, sin

import numpy as np

from udvla_ros.evaluation.cases import Case
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.scene import COLOURS, CUBE_HALF, CameraShift, Scene
from udvla_ros.sim.tasks import all_tasks
from udvla_ros.sim.world import TabletopWorld

KINDS = {
    "plain": "nothing is disturbed",
    "moved": "the named cube is moved 6 to 9 cm by a hand in mid-motion",
    "taken": "the named cube is taken away in mid-motion",
    "twin": "something else of the named colour stands on the table",
    "camera": "both cameras stand 3 cm off their places",
    "light": "the light is halved in mid-motion",
    "frozen": "one camera shows the same picture for 3 s, below the guard",
    "slips": "the gripper loses its friction in mid-motion",
    "mistold": "another task is said than is meant",
}
STARTS = (6, 22)  # control steps, drawn from, at which what happens in mid-motion happens
MOVED = (0.06, 0.09)  # m
CAMERA_SHIFT = 0.03  # m
FROZEN = 30  # control steps
SLIPPERY = 0.03  # coefficient of friction
TWIN = "purple_box"
TWIN_AWAY = 0.09  # m from every cube


@dataclass(frozen=True)
class Draw:
    """The chance of one episode: when it happens, where to, which camera."""

    step: int
    angle: float
    distance: float
    camera: str
    direction: tuple[float, float, float]

    @staticmethod
    def of(case: Case) -> Draw:
        rng = np.random.default_rng((case.seed, 3))
        way = rng.normal(size=3)
        way *= CAMERA_SHIFT / np.linalg.norm(way)
        return Draw(
            int(rng.integers(*STARTS)), float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(*MOVED)),
            ("front", "wrist")[int(rng.integers(2))], (float(way[0]), float(way[1]), float(way[2])),
        )  # fmt: skip


class Disturbance:
    """What happens to one world in one episode.

    Args:
        kind: one of :data:`KINDS`.
        case: the episode.
    """

    def __init__(self, kind: str, case: Case) -> None:
        self.kind, self.case, self.draw = kind, case, Draw.of(case)
        self.scene = self._scene(sample_scene(case.seed, case.task, case.condition))
        self._shown: dict[str, np.ndarray] = {}
        self._done = self._undone = False

    def _scene(self, scene: Scene) -> Scene:
        if self.kind == "camera":
            shift = CameraShift(metres=self.draw.direction)
            return replace(scene, cameras={"front": shift, "wrist": shift})
        if self.kind == "twin":
            return replace(scene, distractors={TWIN: _free_place(scene, self.case.seed)})
        return scene

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        if self.kind != "mistold" or self._undone:
            return self.case.instruction
        others = [t for t in all_tasks() if t != self.case.task and (t.kind != "place" or self.scene.tray is not None)]
        rng = np.random.default_rng((self.case.seed, 4))
        return others[int(rng.integers(len(others)))].instruction(rng)

    def begin(self, world: TabletopWorld) -> None:
        """Put the world as the episode has it."""
        self._built = (world.model.geom_friction.copy(), world.model.geom_rgba.copy())
        world.reset(self.scene)
        if self.kind == "twin":
            geom = world.model.geom(TWIN).id
            world.model.geom_rgba[geom] = (*COLOURS[self.case.task.colour], 1.0)

    def before(self, world: TabletopWorld, step: int) -> None:
        """Do what happens before a control step."""
        if self._done or self._undone or step < self.draw.step:
            return
        named = self.case.task.colour
        if self.kind == "moved":
            if world.held(named):
                return  # a hand waits until the arm has let go
            x, y = world.cube_position(named)[:2]
            for turn in range(12):  # the nearest way that leads to a free place
                at = self.draw.angle + turn * np.pi / 6
                place = np.array([x + self.draw.distance * cos(at), y + self.draw.distance * sin(at)])
                if _clear(world, named, place):
                    _put(world, named, place)
                    break
        elif self.kind == "taken":
            _put(world, named, np.array([0.2, 1.0]))
        elif self.kind == "light":
            world.appearance.show(replace(self.scene, light=0.5))
        elif self.kind == "slips":
            _slippery(world, SLIPPERY)
        self._done = True

    def seen(self, images: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
        """Return what the cameras show of what is there."""
        name = self.draw.camera
        if self.kind != "frozen" or self._undone or not self.draw.step <= step < self.draw.step + FROZEN:
            self._shown = images
            return images
        return {**images, name: self._shown.get(name, images[name])}

    def undo(self, world: TabletopWorld) -> None:
        """Put right what can be put right, as a person would who was called."""
        named = self.case.task.colour
        if self.kind == "taken" and self._done and not self._undone:
            x, y, _ = self.scene.cubes[named]
            if _clear(world, named, np.array([x, y])):
                _put(world, named, np.array([x, y]))
        if self.kind == "twin":
            world.data.mocap_pos[world.loose[TWIN]] = (0.0, 0.0, -1.0)
        world.appearance.show(replace(self.scene, cameras={}))
        self.end(world)
        self._undone = True

    def end(self, world: TabletopWorld) -> None:
        """Leave the world as it was built, for the next episode."""
        world.model.geom_friction[:], world.model.geom_rgba[:] = self._built


def _put(world: TabletopWorld, colour: str, place: np.ndarray) -> None:
    """Lay a cube down at (x, y), from where its way is judged anew."""
    at, dof = world.cubes[colour].qposadr[0], world.cubes[colour].dofadr[0]
    world.data.qpos[at : at + 3] = [*place, CUBE_HALF]
    world.data.qvel[dof : dof + 6] = 0.0
    world.rest[colour] = np.array([*place, CUBE_HALF])


def _clear(world: TabletopWorld, colour: str, place: np.ndarray) -> bool:
    """Return whether a cube can lie at (x, y): within reach, off the other cubes, the hand and the tray."""
    others = [world.cube_position(c)[:2] for c in COLOURS if c != colour] + [world.tcp_pose()[:2, 3]]
    gaps = [float(np.linalg.norm(place - other)) for other in others]
    off_tray = world.tray is None or float(np.linalg.norm(place - world.tray)) > 0.09
    return min(gaps) > 0.06 and off_tray and 0.36 < place[0] < 0.62 and abs(place[1]) < 0.19


def _free_place(scene: Scene, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng((seed, 5))
    taken = [np.array(cube[:2]) for cube in scene.cubes.values()]
    if scene.tray is not None:
        taken.append(np.array(scene.tray))
    places = rng.uniform((0.38, -0.17), (0.60, 0.17), size=(200, 2))
    gaps = np.min([np.linalg.norm(places - other, axis=1) for other in taken], axis=0)
    fitting = np.flatnonzero(gaps > TWIN_AWAY)
    x, y = places[int(fitting[0]) if len(fitting) else int(gaps.argmax())].tolist()
    return x, y


def _slippery(world: TabletopWorld, sliding: float) -> None:
    """Give the pads of the fingers that coefficient of friction: theirs stands above the cubes'."""
    for geom in range(world.model.ngeom):
        if world.model.body(world.model.geom_bodyid[geom]).name.endswith("_pad"):
            world.model.geom_friction[geom, 0] = sliding
