"""Demonstrations of LIBERO's tasks, whose parts agree: what is labelled was carried out, and the future came of it.

Things stand where the task's own rules put them, drawn anew for each attempt; the published init states are never used.
As on the tabletop, noise knocks the arm off its way, and from there the expert does a stretch undisturbed, which is one
:class:`~udvla_ros.rollouts.episodes.Episode`. Actions are the benchmark's (0.05 m, 0.5 rad, 20 a second), images turned
as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from udvla_ros.rollouts.episodes import PER_FRAME, TURNED_AROUND, Episode
from udvla_ros.rollouts.frames import fitted, portion
from udvla_ros.rollouts.generate import ATTEMPTS, EVALUATION_SEEDS, GenerateError, Make, MakeDriver
from udvla_ros.sim.libero.expert import Expert, placing
from udvla_ros.sim.libero.suites import base_of, chosen
from udvla_ros.sim.libero.world import HZ, SCALE, LiberoWorld

CHUNK = 10  # steps of a label, as published
STRETCH = (14, 25)  # labelled steps between two disturbances
KICK = (1, 4)  # disturbed steps
NEAR = 0.05  # m of the hand's way to go within which a kick is weaker
STILL, TURNED = 0.03, 0.03  # of an action: a chunk that asks for less in every step, its gripper unchanged, says 'stay'
WORLDS = 4  # that a process keeps: more tasks in turn build scenes anew, seconds each
SHARD = 20  # episodes of a file: their frames are in memory together
# [x, y, width, height] of the turned front picture: the things, the basket and the way between them.
CROPS = {"libero_object": (0.03, 0.21, 0.80, 0.56)}
WHOLE = (0.0, 0.0, 1.0, 1.0)
FRONT = {"libero_object": (56, 80)}  # px, height and width
SQUARE, WRIST = (64, 64), (48, 48)


@dataclass(frozen=True)
class LiberoConfig:
    """What a data set is made from, see :class:`udvla_ros.rollouts.generate.Source`.

    Attributes:
        episodes, seed: as on the tabletop.
        suite, tasks: numbers of the tasks, taken in turn.
        noise: factor on the kicks.
    """

    episodes: int
    seed: int = 0
    suite: str = "libero_object"
    tasks: tuple[int, ...] = (0, 1, 2)
    noise: float = 1.0

    def check(self) -> None:
        """Refuse no episodes, a negative noise, seeds of evaluations, and what does not exist or has no expert."""
        for task in chosen(self.suite, ",".join(map(str, self.tasks))):
            placing(task)
        if self.episodes < 1 or self.noise < 0:
            raise GenerateError(f"--episodes {self.episodes} --noise {self.noise} makes no data; give 1 and 0 or more")
        if self.seed < 0 or self.seed + self.episodes > EVALUATION_SEEDS:
            raise GenerateError(f"seeds of data lie between 0 and {EVALUATION_SEEDS - 1}; choose a lower --seed")

    @property
    def views(self) -> dict[str, tuple[tuple[int, int], tuple[float, ...]]]:
        """Size and part of the picture of each camera."""
        base = base_of(self.suite)
        return {"front": (FRONT.get(base, SQUARE), CROPS.get(base, WHOLE)), "wrist": (WRIST, WHOLE)}

    def maker(self, make_driver: MakeDriver | None) -> Make:
        """Return what makes episodes; it keeps the worlds of the last :data:`WORLDS` tasks."""
        if make_driver is not None:
            raise GenerateError("--policy works on the tabletop alone; leave it out with --suite")
        tasks = chosen(self.suite, ",".join(map(str, self.tasks)))
        worlds: dict[int, LiberoWorld] = {}

        def make(index: int) -> list[Episode]:
            number = index % len(tasks)
            if number not in worlds:
                while len(worlds) >= WORLDS:
                    worlds.pop(next(iter(worlds))).close()
                worlds[number] = LiberoWorld(tasks[number])
            return make_episode(worlds[number], self, index)

        return make

    def facts(self) -> dict[str, Any]:
        """Return conventions, cameras and renderer."""
        return {
            "suite": self.suite,
            "control_hz": HZ,
            "action_space": "tcp_delta, base frame, LIBERO's units: dxyz, rotation vector, gripper +1 close -1 open",
            "action": {
                "space": "tcp_delta",
                "frame": "base",
                "chunk": CHUNK,
                "dimensions": 7,
                "gripper": 6,
                "control_hz": float(HZ),
                "scale": list(SCALE),
            },
            "intention_shape": [CHUNK, 7],
            "cameras": {name: list(size) for name, (size, _) in self.views.items()},
            "crops": {name: list(part) for name, (_, part) in self.views.items()},
            "images": TURNED_AROUND,
        }


def make_episode(world: LiberoWorld, config: LiberoConfig, index: int) -> list[Episode]:
    """Return the stretches of episode ``index``, the first success.

    Raises:
        GenerateError: none of many attempts succeeds.
    """
    seed = config.seed + index
    for attempt in range(ATTEMPTS):
        made = demonstrate(world, config, np.random.default_rng([seed, attempt]), seed, attempt)
        if made:
            return made
    raise GenerateError(f"the expert failed {ATTEMPTS} attempts of {world.task.suite} task {world.task.index}")


def demonstrate(
    world: LiberoWorld, config: LiberoConfig, rng: np.random.Generator, seed: int = 0, attempt: int = 0
) -> list[Episode]:
    """Return the stretches of one attempt, none where it failed; frames are the world's, if it renders."""
    world.reset(seed=int(rng.integers(2**31)))
    made: list[Episode] = []
    taken = 0
    while taken < world.task.limit and not world.succeeded():
        made.append(stretch(world, config, int(rng.integers(*STRETCH)), seed, attempt))
        taken += made[-1].labelled
        expert = Expert(world)
        for _ in range(int(rng.integers(*KICK, endpoint=True))):
            if config.noise == 0 or world.succeeded():
                break
            world.step(disturbed(expert.act(), world, config.noise, rng))
            taken += 1
    return made if world.succeeded() else []


def disturbed(action: np.ndarray, world: LiberoWorld, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return an action as a careless hand would do it; weaker where the expert goes slowly, which is near things."""
    slow = float(np.clip(np.abs(action[:3]).max() * SCALE[0] / NEAR, 0.15, 1.0))
    kicked = action.copy()
    kicked[:3] += rng.normal(size=3) * 0.7 * noise * slow
    kicked[2] = max(kicked[2], action[2])  # never into the table
    kicked[3:6] += rng.normal(size=3) * 0.1 * noise * slow
    return np.clip(kicked, -1, 1)


def stretch(world: LiberoWorld, config: LiberoConfig, labels: int, seed: int, attempt: int) -> Episode:
    """Let the expert act undisturbed, and leave the world where the labelled steps end, at success or before."""
    expert = Expert(world)
    frames: dict[str, list] = {name: [] for name in (*PER_FRAME, "executed")}
    views: dict[str, list] = {name: [] for name in config.views}
    _look(world, config, frames, views)
    left = world.snapshot()
    labelled, success, step = labels, -1, 0
    while step < labelled + CHUNK - 1:
        frames["executed"].append(np.clip(expert.act(), -1, 1))
        done = world.step(frames["executed"][-1])
        _look(world, config, frames, views)
        step += 1
        if step <= labelled and done:
            labelled, success = step, step
        if step == labelled:
            left = world.snapshot()
    world.restore(left)
    arrays = {n: np.array(frames[n], np.float32) for n in PER_FRAME}
    images = {name: np.array(seen, np.uint8) for name, seen in views.items()}
    executed = np.array(frames["executed"], np.float32)
    padded = np.concatenate([executed, np.zeros((CHUNK - 1, 7), np.float32)])
    intention = np.lib.stride_tricks.sliding_window_view(padded, CHUNK, 0).transpose(0, 2, 1).copy()
    return Episode(
        images, **arrays, intention=intention, executed=executed, instruction=world.task.sentence,
        task=f"{world.task.suite}/{world.task.index}", colour=expert.goal[0][1].rsplit("_", 1)[0], seed=seed,
        attempt=attempt, success_step=success, labelled=labelled,
    )  # fmt: skip


def stays(intention: np.ndarray, closed: float) -> bool:
    """Return whether a label [K, 7] asks for nothing: no way, no turn, and the gripper as it is (1: closed)."""
    still = np.abs(intention[:, :3]).max() < STILL and np.abs(intention[:, 3:6]).max() < TURNED
    return bool(still and np.all((intention[:, 6] > 0) == (closed > 0.5)))


def _look(world: LiberoWorld, config: LiberoConfig, frames: dict[str, list], views: dict[str, list]) -> None:
    for name, image in world.look().items():
        (height, width), part = config.views[name]
        views[name].append(fitted(portion(image, part), name, height, width) if image.size else image)
    frames["joints"].append(world.joints())
    frames["q_command"].append(np.full(7, np.nan))  # operational-space control commands no joints
    frames["gripper"].append(1.0 - world.opening() / 0.08)
    frames["gripper_command"].append(float(world.closing))
    frames["tcp_command"].append(world.tcp())  # deltas set out from where the hand is
    frames["cubes"].append(np.full((3, 7), np.nan))
