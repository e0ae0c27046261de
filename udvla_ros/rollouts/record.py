"""Demonstrations whose parts agree: what is labelled was carried out, and the future is what came of it.

An attempt leads through states that the expert would not come to by itself: noise knocks it off its way
(:func:`demonstrate`), or a policy acts (:func:`correct`). From such a state the expert does a stretch undisturbed,
which is one :class:`Episode`: longer than its labelled steps, so that the end of each label is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy

import numpy as np

from udvla_ros.rollouts.episodes import PER_FRAME, Episode
from udvla_ros.rollouts.noise import LOWEST, Noise
from udvla_ros.sim.control import CONTROL_DT, DeltaControl, compose
from udvla_ros.sim.expert import Expert, Sight, goal
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.kinematics import UnreachablePose
from udvla_ros.sim.scene import Scene
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import TabletopWorld

CHUNK = 8  # steps of a label
LONGEST = 90  # steps after which an attempt is given up
STRETCH = (6, 11)  # labelled steps between two disturbances
KICK = (1, 3)  # disturbed steps
EXECUTE = 4  # control steps of a policy's chunk that are played, and labelled steps of each correction
LATEST = 2  # control steps by which its chunks come late at most

# (images, sentence, seed) -> actions [K, 7] of a policy, or None where it has none
Driver = Callable[[dict[str, np.ndarray], str, int], np.ndarray | None]


def demonstrate(
    world: TabletopWorld, scene: Scene, task: Task, rng: np.random.Generator, noise: Noise, seed: int = 0,
    attempt: int = 0,
) -> list[Episode]:
    """Return the stretches of one attempt, none where it failed.

    Args:
        world: is reset to ``scene`` first. Made with ``render=False`` it records images of no pixels.
        task: what the expert does, said in a random phrasing.
        rng: source of the noise, the phrasing and the stretches' lengths.
    """  # fmt: skip
    world.reset(scene)
    text = task.instruction(rng)
    expert, control, monitor = Expert(world, task), DeltaControl(world), TaskMonitor(task)
    made: list[Episode] = []
    taken = 0
    try:
        while taken < LONGEST and not (monitor.failed or monitor.succeeded):
            made.append(stretch(world, task, monitor, int(rng.integers(*STRETCH)), (text, seed, attempt)))
            taken += made[-1].labelled
            for _ in range(int(rng.integers(*KICK, endpoint=True))):
                if monitor.failed or monitor.succeeded:
                    break
                position, target = world.tcp_command()[:3, 3], goal(Sight.of(world, task), task)
                lowest = float(target[2]) - 0.001 if task.kind in ("touch", "push") else LOWEST
                control.apply(noise.disturb(expert.act(), position, target, world.held(task.colour), rng, lowest))
                monitor.update(world)
                taken += 1
    except UnreachablePose:
        return []
    return made if monitor.succeeded else []


def correct(
    world: TabletopWorld, scene: Scene, task: Task, rng: np.random.Generator, driver: Driver, seed: int = 0,
    attempt: int = 0,
) -> list[Episode]:
    """Return what the expert would do wherever a policy looks (DAgger, arXiv 1011.0686), whatever comes of it.

    The policy's chunks come 0 to :data:`LATEST` control steps late, as drawn for the attempt.
    """  # fmt: skip
    world.reset(scene)
    text, late = task.instruction(rng), int(rng.integers(LATEST, endpoint=True))
    monitor = TaskMonitor(task)
    made: list[Episode] = []
    plan: tuple[int, list[np.ndarray], np.ndarray] | None = None
    for step in range(0, LONGEST, EXECUTE):
        chunk = driver(world.look(), text, int(rng.integers(2**31)))
        coming = None if chunk is None else _targets(world, chunk)
        before = world.snapshot()
        with suppress(UnreachablePose):
            made.append(stretch(world, task, copy(monitor), EXECUTE, (text, seed, attempt)))
        world.restore(before)
        for index in range(EXECUTE):
            if index == late and coming is not None:
                plan = (step, *coming)
            q, gripper = world.q_command, world.gripper_command
            if plan is not None:
                due = min(step + index - plan[0], len(plan[1]) - 1)
                q, gripper = plan[1][due], float(plan[2][due])
            world.follow(q, gripper, CONTROL_DT)
            monitor.update(world)
            if monitor.failed or monitor.succeeded:
                return made
    return made


def _targets(world: TabletopWorld, chunk: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Return the joints [6] and closed fractions of a chunk's steps, None where the arm cannot follow."""
    pose, q, targets = world.tcp_command(), world.q_command, []
    try:
        for action in chunk:
            pose = compose(pose, action)
            q = world.kinematics.inverse(pose, q)
            targets.append(q)
    except UnreachablePose:
        return None
    return targets, (chunk[:, 6] > 0).astype(float)


def stretch(
    world: TabletopWorld, task: Task, monitor: TaskMonitor, labels: int, named: tuple[str, int, int]
) -> Episode:
    """Let the expert act undisturbed, and leave the world where the labelled steps end.

    Args:
        monitor: watches the labelled steps; they end before ``labels`` where the task is done or lost.
        named: sentence, seed and attempt.

    Raises:
        UnreachablePose: the arm cannot do what the expert wants.
    """
    expert, control = Expert(world, task), DeltaControl(world)
    frames: dict[str, list] = {name: [] for name in (*PER_FRAME, "executed")}
    views: dict[str, list] = {}
    left = world.snapshot()
    _look(world, frames, views)
    labelled, success, step = labels, -1, 0
    while step < labelled + CHUNK - 1:
        frames["executed"].append(action := expert.act())
        control.apply(action)
        _look(world, frames, views)
        step += 1
        if step > labelled:
            continue
        monitor.update(world)
        if monitor.failed or monitor.succeeded:
            labelled, success = step, step if monitor.succeeded else -1
        if step == labelled:
            left = world.snapshot()
    world.restore(left)
    arrays = {n: np.array(frames[n], np.float32) for n in PER_FRAME}
    images = {name: np.array(seen, np.uint8) for name, seen in views.items()}
    executed = np.array(frames["executed"], np.float32)
    padded = np.concatenate([executed, np.zeros((CHUNK - 1, 7), np.float32)])
    intention = np.lib.stride_tricks.sliding_window_view(padded, CHUNK, 0).transpose(0, 2, 1).copy()
    text, seed, attempt = named
    return Episode(
        images, **arrays, intention=intention, executed=executed, instruction=text, task=task.kind, colour=task.colour,
        seed=seed, attempt=attempt, success_step=success, labelled=labelled,
    )  # fmt: skip


def _look(world: TabletopWorld, frames: dict[str, list], views: dict[str, list]) -> None:
    for name, image in world.look().items():
        views.setdefault(name, []).append(image)
    frames["joints"].append(world.q)
    frames["q_command"].append(world.q_command)
    frames["gripper"].append(world.gripper)
    frames["gripper_command"].append(world.gripper_command)
    frames["tcp_command"].append(world.tcp_command())
    frames["cubes"].append(world.cube_poses())
