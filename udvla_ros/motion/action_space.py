"""From a policy's actions to joint targets.

The published 7-D convention of LIBERO and CALVIN in physical units: dx, dy, dz in metres, a rotation vector
in radians, and the gripper as an absolute command, +1 close and -1 open. Each step is relative to the
previous *commanded* pose, the first to the command at the time of the observation.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import pinocchio as pin

from udvla_ros.errors import ConfigError
from udvla_ros.motion.errors import Unreachable, UnreachableTarget
from udvla_ros.motion.robot import RobotDescription

FRAMES = ("base", "tcp")
LARGEST_STEP = 0.5  # rad a joint may move in one step: more is a flip to another branch, not a step


class JointTargets(NamedTuple):
    """Targets of K steps: joint positions [K, d] rad and the gripper's closed fraction [K], 0 to 1."""

    q: np.ndarray
    gripper: np.ndarray


def closed_fraction(command: np.ndarray) -> np.ndarray:
    """Return closed fractions 0 to 1 of gripper commands -1 (open) to +1 (closed)."""
    return np.clip((np.asarray(command, float) + 1.0) / 2.0, 0.0, 1.0)


def gripper_of(robot: RobotDescription, actions: np.ndarray) -> np.ndarray:
    """Return the closed fractions [K] that actions [K, D] ask for; all 0 for an arm without a gripper."""
    return np.zeros(len(actions)) if robot.gripper is None else closed_fraction(actions[:, -1])


def _checked(actions: np.ndarray, width: int) -> np.ndarray:
    actions = np.asarray(actions, float)
    if actions.ndim != 2 or actions.shape[1] != width or not len(actions):
        raise UnreachableTarget(f"actions are {actions.shape} where (steps, {width}) is needed; check the action space")
    if not np.isfinite(actions).all():
        step = int(np.argwhere(~np.isfinite(actions))[0, 0])
        raise UnreachableTarget(f"step {step} of the actions is not finite; the chunk is dropped")
    return actions


class _JointSpace:
    """What the joint spaces share: width, bounds and the largest step."""

    def __init__(self, robot: RobotDescription, largest_step: float = LARGEST_STEP) -> None:
        self.robot, self.largest_step, self.joints = robot, largest_step, len(robot.joints)
        self.width = len(robot.joints) + (robot.gripper is not None)

    def _bounded(self, q: np.ndarray, q_command: np.ndarray, gripper: np.ndarray) -> JointTargets:
        limits = self.robot.limits
        beyond = np.maximum(limits.hard_lower - q, q - limits.hard_upper)
        if beyond.max() > 0:
            step, joint = np.unravel_index(beyond.argmax(), beyond.shape)
            raise UnreachableTarget(
                f"step {step} takes {self.robot.joints[joint]} {beyond[step, joint]:.3f} rad beyond its limit",
                int(np.flatnonzero((beyond > 0).any(1))[0]),
            )
        _refuse_jumps(self.robot, np.vstack([q_command, q]), self.largest_step)
        return JointTargets(q, gripper)


class JointAbsoluteSpace(_JointSpace):
    """Actions [K, d (+ 1)]: joint positions in rad and, where there is one, the gripper."""

    def targets(self, actions: np.ndarray, q_command: np.ndarray) -> JointTargets:
        """Return the targets of one chunk; ``q_command`` [d] is the command at the observation's stamp.

        Raises:
            UnreachableTarget: a step lies beyond the limits or jumps.
        """
        actions = _checked(actions, self.width)
        return self._bounded(actions[:, : self.joints], np.asarray(q_command, float), gripper_of(self.robot, actions))


class JointDeltaSpace(_JointSpace):
    """Actions [K, d (+ 1)]: joint steps in rad from the previous target and, where there is one, the gripper."""

    def targets(self, actions: np.ndarray, q_command: np.ndarray) -> JointTargets:
        """Return the targets of one chunk; arguments and errors as in :class:`JointAbsoluteSpace`."""
        actions = _checked(actions, self.width)
        q_command = np.asarray(q_command, float)
        steps = np.cumsum(actions[:, : self.joints], axis=0)
        return self._bounded(q_command + steps, q_command, gripper_of(self.robot, actions))


class TcpDeltaSpace:
    """Actions [K, 7]: TCP steps and the gripper; [K, 6] for an arm without one.

    Args:
        robot: its kinematics and limits.
        frame: ``base``: translation and rotation vector in base axes, ``R_next = Exp(w) R``;
            ``tcp``: both in the axes of the TCP before the step, ``R_next = R Exp(w)``.
        largest_step: rad a joint may move in one step.
        scale: physical units per unit of action, [6] (metres then radians); 1 for actions in m and rad.
    """

    def __init__(
        self,
        robot: RobotDescription,
        frame: str = "base",
        largest_step: float = LARGEST_STEP,
        scale: np.ndarray | float = 1.0,
    ) -> None:
        if frame not in FRAMES:
            raise ConfigError(f"action frame {frame!r} is not one of {', '.join(FRAMES)}")
        if len(robot.joints) < 6:
            raise ConfigError(
                f"robot '{robot.name}' has {len(robot.joints)} joints and cannot follow a TCP pose; "
                "use joint_delta or joint_absolute"
            )
        self.robot, self.frame, self.largest_step = robot, frame, largest_step
        self.width = 6 + (robot.gripper is not None)
        self.scale = np.broadcast_to(np.asarray(scale, float), (6,))

    def poses(self, actions: np.ndarray, q_command: np.ndarray) -> np.ndarray:
        """Return the integrated TCP targets [K, 4, 4] in the base frame."""
        pose = self.robot.kinematics.forward(q_command)
        poses = np.empty((len(actions), 4, 4))
        for k, step in enumerate(np.asarray(actions, float)[:, :6] * self.scale):
            turn = pin.exp3(step[3:])
            pose = pose.copy()
            if self.frame == "base":
                pose[:3, 3] += step[:3]
                pose[:3, :3] = turn @ pose[:3, :3]
            else:
                pose[:3, 3] += pose[:3, :3] @ step[:3]
                pose[:3, :3] = pose[:3, :3] @ turn
            poses[k] = pose
        return poses

    def targets(self, actions: np.ndarray, q_command: np.ndarray) -> JointTargets:
        """Return the joint targets of one chunk.

        Args:
            actions: [K, 7], [K, 6] without a gripper.
            q_command: [d] joints commanded at the observation's stamp.

        Raises:
            UnreachableTarget: a step is out of reach or needs a joint to jump; the message names the step.
        """
        actions = _checked(actions, self.width)
        robot, q = self.robot, np.asarray(q_command, float)
        lower = np.minimum(robot.limits.lower, q)  # an arm found beyond a soft bound may still come back
        upper = np.maximum(robot.limits.upper, q)
        found = [q]
        for k, pose in enumerate(self.poses(actions, q)):
            try:
                found.append(robot.kinematics.inverse(pose, found[-1], lower, upper))
            except Unreachable as error:
                raise UnreachableTarget(f"step {k}: {error}", k) from None
        _refuse_jumps(robot, np.stack(found), self.largest_step)
        return JointTargets(np.stack(found[1:]), gripper_of(robot, actions))


def _refuse_jumps(robot: RobotDescription, q: np.ndarray, largest: float) -> None:
    steps = np.abs(np.diff(q, axis=0))
    if steps.max() > largest:
        step, joint = np.unravel_index(steps.argmax(), steps.shape)
        raise UnreachableTarget(
            f"step {step} would turn {robot.joints[joint]} by {steps[step, joint]:.2f} rad, at most {largest:g} "
            "is allowed: the pose is near a singularity or a limit; move around it",
            int(np.flatnonzero((steps > largest).any(1))[0]),
        )


class ActionSpace(Protocol):
    """What turns the actions of a chunk into joint targets."""

    def targets(self, actions: np.ndarray, q_command: np.ndarray) -> JointTargets:
        """Return the targets of one chunk; raises UnreachableTarget."""
        ...


def reachable(space: ActionSpace, actions: np.ndarray, q_command: np.ndarray, least: int) -> JointTargets:
    """Return the targets of the steps before the first one that the arm cannot make.

    Most chunks are replaced before their last steps are due, so that what is wrong with those need not stop the arm.

    Raises:
        UnreachableTarget: fewer than ``least`` steps can be made; the chunk is refused whole.
    """
    try:
        return space.targets(actions, q_command)
    except UnreachableTarget as error:
        if error.step is None or error.step < max(least, 1):
            raise
        return reachable(space, actions[: error.step], q_command, least)


SPACES = {"tcp_delta": TcpDeltaSpace, "joint_absolute": JointAbsoluteSpace, "joint_delta": JointDeltaSpace}


def make_action_space(kind: str, robot: RobotDescription, **options: object) -> object:
    """Return the action space called ``kind``; ``options`` as its class takes them.

    Raises:
        ConfigError: there is none of that name, or an option does not belong to it.
    """
    if kind not in SPACES:
        raise ConfigError(f"action space {kind!r} is not one of {', '.join(SPACES)}")
    try:
        return SPACES[kind](robot, **options)
    except TypeError as error:
        raise ConfigError(f"action space {kind}: {error}") from None
