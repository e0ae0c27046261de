"""Let the expert do one task, disturbed, and record what it saw, intended and did."""

from __future__ import annotations

import numpy as np

from udvla_ros.rollouts.episodes import CAMERAS, PER_ACTION, PER_FRAME, Episode
from udvla_ros.rollouts.noise import LOWEST, Noise
from udvla_ros.sim.control import DeltaControl
from udvla_ros.sim.expert import Expert, Sight, goal
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.kinematics import UnreachablePose
from udvla_ros.sim.scene import Scene
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import TabletopWorld

CHUNK = 8  # steps of intention kept at each frame
LONGEST = 60  # actions after which an attempt is given up
AFTER = 3  # actions recorded after success, so that the ending is in the data


def record(
    world: TabletopWorld,
    scene: Scene,
    task: Task,
    rng: np.random.Generator,
    noise: Noise,
    seed: int = 0,
    attempt: int = 0,
    instruction: str | None = None,
) -> Episode:
    """Return one episode; look at ``success`` before keeping it.

    Args:
        world: is reset to ``scene`` first. Made with ``render=False`` it records images of no pixels.
        task: what the expert does; ``instruction`` defaults to a random phrasing of it.
        rng: source of the noise and the phrasing.
    """
    world.reset(scene)
    expert, control, monitor = Expert(world, task), DeltaControl(world), TaskMonitor(task)
    text = instruction or task.instruction(rng)
    frames: dict[str, list] = {name: [] for name in PER_FRAME + PER_ACTION}
    _look(world, frames)
    success_step = -1
    for step in range(LONGEST + AFTER):
        intention = expert.plan(CHUNK)
        position, target = world.tcp_command()[:3, 3], goal(Sight.of(world, task), task)
        lowest = float(target[2]) - 0.001 if task.kind in ("touch", "push") else LOWEST
        executed = noise.disturb(intention[0], position, target, world.held(task.colour), rng, lowest)
        try:
            control.apply(executed)
        except UnreachablePose:
            break
        frames["intention"].append(intention)
        frames["executed"].append(executed)
        _look(world, frames)
        monitor.update(world)
        if monitor.failed:
            break
        if monitor.succeeded and success_step < 0:
            success_step = step + 1
        if step + 1 >= (success_step + AFTER if success_step >= 0 else LONGEST):
            break
    arrays = {n: np.array(frames[n], np.uint8 if n in CAMERAS else np.float32) for n in PER_FRAME}
    arrays["intention"] = np.array(frames["intention"], np.float32).reshape(-1, CHUNK, 7)
    arrays["executed"] = np.array(frames["executed"], np.float32).reshape(-1, 7)
    return Episode(
        **arrays,
        instruction=text,
        task=task.kind,
        colour=task.colour,
        seed=seed,
        attempt=attempt,
        success_step=success_step,
    )


def _look(world: TabletopWorld, frames: dict[str, list]) -> None:
    for name, image in world.look().items():
        frames[name].append(image)
    frames["joints"].append(world.q)
    frames["q_command"].append(world.q_command)
    frames["gripper"].append(world.gripper)
    frames["gripper_command"].append(world.gripper_command)
    frames["tcp_command"].append(world.tcp_command())
    frames["cubes"].append(world.cube_poses())
