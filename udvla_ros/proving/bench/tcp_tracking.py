"""How well the commanded arm follows TCP deltas of LIBERO's kind: actions in, the played motion out.

Actions are those of robosuite's operational-space controller at 20 Hz, -1 to 1 for 5 cm and half a radian, as a
smooth random sequence. They go the whole way: chunks that overlap and arrive late, differential kinematics from
the command at their stamp, stitching and the safety filter. The reference is the plain sum of all actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from udvla_ros.motion.action_space import TcpDeltaSpace
from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.proving.bench.safety_bench import named

DT = 0.05  # s of a step
SCALE = np.array([0.05] * 3 + [0.5] * 3)  # m and rad of an action of 1
CHUNK, EVERY = 16, 8  # steps of a chunk, and from one chunk to the next
LATENCY = 0.1  # s until a chunk arrives
TICK = 0.01
STEADY = 0.9  # part of an action that is carried over to the next step, as by a hand on a space mouse
STRENGTH = 0.15  # RMS of the actions: 0.15 m/s along each axis
MIDDLE = (0.5, 0.0, 0.35)  # m, where a walk begins, with the hand as at home
PULL = 0.12  # of the way back to the beginning that a step asks for, so that the walk stays in free space
TURN = 0.05  # RMS of the turning, as a part of that of the shifts


@dataclass(frozen=True)
class Tracking:
    """Distances between the commanded TCP and the sum of the actions, at the due time of every step.

    Attributes:
        mm: distances [n].
        degrees: angles [n].
        fastest: greatest speed asked for, m/s.
        way: length of the way asked for, m.
        refused, interventions: of all chunks, by class.
    """

    mm: np.ndarray
    degrees: np.ndarray
    fastest: float
    way: float
    refused: dict[str, int]
    interventions: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "median_mm": float(np.median(self.mm)),
            "worst_mm": float(self.mm.max()),
            "worst_degrees": float(self.degrees.max()),
            "fastest_m_s": self.fastest,
            "way_m": self.way,
            "steps": len(self.mm),
            "refused": self.refused,
            "interventions": self.interventions,
        }


def smooth_actions(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Return actions [steps, 7] of -1 to 1: noise smoothed twice, pulled back to where it began."""
    noise = rng.normal(size=(steps, 6)) * (STRENGTH * np.array([1.0] * 3 + [TURN] * 3))
    actions, fast, slow, away = np.zeros((steps, 7)), np.zeros(6), np.zeros(6), np.zeros(6)
    gain = np.sqrt((1 - STEADY**2) ** 3 / (1 + STEADY**2))  # so that the strength is that of the noise
    for action, kick in zip(actions, noise, strict=True):
        fast = STEADY * fast + kick
        slow = STEADY * slow + gain * fast
        action[:6] = np.clip(slow - PULL * away, -1.0, 1.0)
        away = away + action[:6]
    return actions


def track(robot: RobotDescription, steps: int = 400, seed: int = 0, frame: str = "base") -> Tracking:
    """Return how the arm follows one sequence from the middle of its workspace.

    Args:
        frame: of the actions, as :class:`udvla_ros.motion.action_space.TcpDeltaSpace` takes it.
    """
    rng = np.random.default_rng(seed)
    space = TcpDeltaSpace(robot, frame, scale=SCALE)
    actions = smooth_actions(rng, steps + CHUNK)
    pose = robot.kinematics.forward(robot.home)
    pose[:3, 3] = MIDDLE
    start = robot.kinematics.inverse(pose, robot.home, robot.limits.lower, robot.limits.upper)
    wanted = space.poses(actions, start)
    arbiter, now = Arbiter(robot, stitch=StitchOptions()), 1000.0
    rest = np.append(start, [] if robot.gripper is None else [robot.gripper.open])
    arbiter.observe(robot.command_names, rest, np.zeros_like(rest), now)
    arbiter.engage("policy", now)
    begin, reached = now, list[np.ndarray]()
    for first in range(0, steps, EVERY):
        stamp = now
        targets = space.targets(actions[first : first + CHUNK], _plan(arbiter).state(stamp).q).q
        message = Trajectory(robot.joints, DT * np.arange(1, CHUNK + 1), targets, None, stamp)
        sent = False
        for _ in range(round(EVERY * DT / TICK)):
            if not sent and (first == 0 or now - stamp >= LATENCY - 1e-9):  # the first starts when it arrives
                arbiter.offer("policy", message, now)
                sent = True
            now += TICK
            state = _plan(arbiter).state(now)
            arbiter.observe(robot.joints, state.q, state.qd, now)
            arbiter.tick(now)
            due = (now - begin) / DT
            if abs(due - round(due)) < 1e-6:
                reached.append(robot.kinematics.forward(state.q))
    poses, wanted = np.array(reached), wanted[: len(reached)]
    turn = np.einsum("nij,nij->n", poses[:, :3, :3], wanted[:, :3, :3])
    shifts = np.linalg.norm(np.diff(wanted[:, :3, 3], axis=0), axis=1)
    return Tracking(
        mm=1e3 * np.linalg.norm(poses[:, :3, 3] - wanted[:, :3, 3], axis=1),
        degrees=np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1))),
        fastest=float(shifts.max() / DT),
        way=float(shifts.sum()),
        refused=named(arbiter.counts, "refused/"),
        interventions=named(arbiter.counts, "intervention/"),
    )


def _plan(arbiter: Arbiter) -> Plan:
    assert arbiter.plan is not None
    return arbiter.plan
