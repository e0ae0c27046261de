"""The simulated robot as its drivers would show it: controllers, joint states and an episode's outcome.

Everything of ``sim_node`` that is not ROS, so that it can be tested without a graph.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.sim.audit import CommandAudit
from udvla_ros.sim.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected
from udvla_ros.sim.judge import TaskMonitor
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.tasks import Task, all_tasks
from udvla_ros.sim.world import TabletopWorld

CONTROLLER_HZ = 100  # by default
CONTROL_HZ = 10.0


@dataclass
class Episode:
    """What ``~/episode`` says: the scene, the sentence and how it is going.

    ``steps`` are control steps (10 Hz) since the first command; ``state`` is waiting, running, succeeded or
    failed. ``limit_violations`` counts commands that reached the controller beyond the robot file's limits.
    """

    number: int
    seed: int
    task: str
    instruction: str
    state: str = "waiting"
    success: bool = False
    reason: str = ""
    steps: int = 0
    seconds: float = 0.0
    limit_violations: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def choose_task(seed: int, task: str, instruction: str) -> tuple[Task, str]:
    """Return the task to judge and the sentence to show.

    Args:
        seed: draws what is left open.
        task: ``kind/colour`` (``push/colour/direction``), any part of it, several with commas, or empty for any.
        instruction: a sentence; empty for the task's plainest one. With an empty ``task`` it must name one.

    Raises:
        ConfigError: there is no such task, or the sentence names none.
    """
    rng = np.random.default_rng((seed, 1))
    wanted = [set(choice.replace("/", " ").split()) for choice in task.lower().split(",") if choice.strip()]
    if instruction and not wanted:
        parsed = Task.parse(instruction)
        if parsed is None:
            raise ConfigError(
                f"instruction '{instruction}' names no single task and colour; set the parameter task, "
                "such as touch/red, to say what counts as success"
            )
        return parsed, instruction
    fitting = [
        t for t in all_tasks() if not wanted or any(w <= {t.kind, t.colour, t.direction} for w in wanted)
    ]
    if not fitting:
        names = ", ".join(str(t) for t in all_tasks())
        raise ConfigError(f"no task '{task}'; there are: {names}")
    chosen = fitting[int(rng.integers(len(fitting)))]
    return chosen, instruction or chosen.instruction()


class SimulatedRobot:
    """A tabletop world behind two trajectory controllers, stepped one controller period at a time."""

    def __init__(
        self, world: TabletopWorld, robot: RobotDescription, interpolate_from_desired_state: bool = True,
        controller_hz: int = CONTROLLER_HZ,
    ) -> None:  # fmt: skip
        if robot.gripper is None or tuple(robot.joints) != tuple(world.joint_names):
            raise ConfigError(
                f"robot file '{robot.name}' is not the simulated arm: it needs joints "
                f"{', '.join(world.joint_names)} and a gripper"
            )
        self.world, self.robot, self.gripper = world, robot, robot.gripper
        if world.physics_hz % controller_hz or controller_hz % CONTROL_HZ:
            raise ConfigError(f"controller_hz is {controller_hz}; give 100, 250 or {world.physics_hz}")
        self.period, self._per_step = 1.0 / controller_hz, round(controller_hz / CONTROL_HZ)
        options: dict[str, Any] = {
            "interpolate_from_desired_state": interpolate_from_desired_state,
            "period": self.period,
        }
        self.arm = JointTrajectoryController(robot.joints, world.q, **options)
        self.fingers = JointTrajectoryController([self.gripper.joint], self._finger_position(), **options)
        self.audit = CommandAudit(robot)
        self.names = (*robot.joints, self.gripper.joint)
        self._number = -1  # episode 0 is the world before the first reset
        self.reset(0, "", "")

    def reset(self, seed: int, task: str, instruction: str, now: float = 0.0) -> Episode:
        """Put everything where the seed says, at rest; the controllers hold.

        Commands stamped before ``now`` belong to the arm as it was and are rejected from here on.

        Raises:
            ConfigError: there is no such task.
        """
        chosen, sentence = choose_task(seed, task, instruction)
        self.world.reset(sample_scene(seed, chosen))
        self.arm.activate(self.world.q_command)
        self.fingers.activate(np.array([self.gripper.position(self.world.gripper_command)]))
        self.audit.restart()
        self._began = now
        self.monitor = TaskMonitor(chosen)
        self._violations_before = self.audit.violations
        self._ticks = 0
        self._number += 1
        self._finger_speed = 0.0
        self.episode = Episode(self._number, seed, f"{chosen.kind}/{chosen.colour}", sentence)
        return self.episode

    def accept(self, command: TrajectoryCommand, now: float, *, gripper: bool = False) -> None:
        """Give a trajectory to the arm's or the gripper's controller.

        Raises:
            TrajectoryRejected: by the controller's rules.
        """
        if 0.0 < command.stamp < self._began:
            raise TrajectoryRejected("it was stamped before the episode was reset")
        (self.fingers if gripper else self.arm).accept(command, now)
        if self.episode.state == "waiting" and not gripper:
            self.episode.state = "running"

    def tick(self, now: float) -> bool:
        """Advance one controller period that begins at ``now``; returns whether the episode's state changed."""
        world, episode = self.world, self.episode
        arm = self.arm.update(now, world.q, world.qd).position
        finger = self.fingers.update(now, self._finger_position(), np.zeros(1)).position
        if self.audit.look(arm, self.period, self.arm.skipped) and np.isfinite(finger).all():
            world.command(arm, float(self.gripper.fraction(finger[0])))
        episode.limit_violations = self.audit.violations - self._violations_before
        before = self._finger_position()[0]
        world.step(self.period)
        self._finger_speed = float(self._finger_position()[0] - before) / self.period
        if episode.state not in ("running", "succeeded", "failed"):
            return False
        self._ticks += 1
        if self._ticks % self._per_step or episode.state != "running":
            return False
        self.monitor.update(world)
        episode.steps = self._ticks // self._per_step
        episode.seconds = self._ticks * self.period
        if not (self.monitor.succeeded or self.monitor.failed):
            return False
        episode.success = self.monitor.succeeded
        episode.state = "succeeded" if episode.success else "failed"
        episode.reason = self.monitor.reason
        return True

    def joint_state(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Return names, measured positions and velocities of the arm and the gripper [7]."""
        position = np.append(self.world.q, self._finger_position())
        return self.names, position, np.append(self.world.qd, self._finger_speed)

    def _finger_position(self) -> np.ndarray:
        return np.array([self.gripper.position(self.world.gripper)])
