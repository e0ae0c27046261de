"""A stand-in for joint_trajectory_controller and what it measures, with no code shared with the package.

It plays each message as the controller does: quintic cells through points that carry positions, velocities
and accelerations, from the state it is in. What it played is what is judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings
from scipy.interpolate import BPoly

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.trajectory import Trajectory

CYCLE = 0.005
THOROUGH = 80  # times the examples under --hypothesis-profile=thorough


def examples(count: int):
    """Return hypothesis settings for ``count`` examples, many times that in the profile ``thorough``."""
    scale = THOROUGH if settings.get_current_profile_name() == "thorough" else 1
    return settings(
        max_examples=count * scale, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


class Controller:
    """Plays messages; remembers the desired state of every cycle and the steps at switches."""

    def __init__(self, q: np.ndarray, gripper: float, now: float) -> None:
        self.now, self._start = now, now
        self._curve = None
        self.state = (np.array(q, float), np.zeros_like(q), np.zeros_like(q))
        self._grip = (np.array([0.0]), np.array([gripper]))
        self.log: list[tuple] = [(now, *self.state, gripper)]
        self.switches = 0

    def _at(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._curve is None:
            return tuple(np.repeat(x[None], len(t), axis=0) for x in self.state)
        u = np.minimum(t - self._start, self._curve.x[-1])
        return tuple(self._curve(u, k) for k in range(3))

    def receive(self, message: tuple[np.ndarray, ...]) -> None:
        """Replace the trajectory at the present instant, starting from the desired state."""
        times, q, qd, qdd, gripper = message
        assert times[0] > 0.0
        assert (np.diff(times) > 0).all()
        assert not qd[-1].any() and not qdd[-1].any(), "a message must end at rest"
        here = self.state
        grip = float(np.interp(self.now - self._start, *self._grip))
        knots = np.concatenate([[0.0], times])
        values = np.stack([np.vstack([a, b]) for a, b in zip(here, (q, qd, qdd), strict=True)], axis=1)
        self._curve = BPoly.from_derivatives(knots, values)
        self._start, self._grip = self.now, (knots, np.concatenate([[grip], gripper]))
        self.switches += 1

    def play(self, until: float) -> None:
        """Advance to ``until``, logging every cycle."""
        times = np.append(np.arange(self.now + CYCLE, until - CYCLE / 2, CYCLE), until)
        states = self._at(times)
        grips = np.interp(times - self._start, *self._grip)
        self.log += list(zip(times, *states, grips, strict=True))
        self.now, self.state = until, tuple(x[-1] for x in states)


class Rig:
    """An arbiter, the controller it writes to, and joint states at 50 Hz."""

    def __init__(self, robot: RobotDescription, q: np.ndarray | None = None, now: float = 1000.0, **options) -> None:
        self.robot, self.now = robot, now
        self.skew = 0.0  # s by which the clock was set since the start; the controller's own time goes on
        q = robot.home if q is None else q
        self.arbiter = Arbiter(robot, **options)
        gripper = robot.gripper.open if robot.gripper else 0.0
        self.controller = Controller(q, gripper, now)
        self.blind = False
        self.observe()
        self.arbiter.tick(now)

    @property
    def q(self) -> np.ndarray:
        return self.arbiter.plan.state(self.now).q

    def observe(self) -> None:
        """Report the played state, in an order that is not the kinematic one."""
        q, qd, _ = self.controller.state
        names = [*self.robot.joints, *([self.robot.gripper.joint] if self.robot.gripper else [])]
        values, speeds = [*q, self.controller.log[-1][-1]], [*qd, 0.0]
        order = np.argsort(names)
        self.arbiter.observe(
            [names[i] for i in order], [values[i] for i in order], [speeds[i] for i in order], self.now
        )

    def send(self) -> None:
        """Hand the controller what the arbiter wants sent."""
        plan = self.arbiter.take()
        if plan is not None:
            self.controller.receive(self.arbiter.points(plan, self.now))

    def settle(self) -> None:
        """Let time pass until the plan in force has ended and every source was silent for long."""
        self.wait(max(self.arbiter.plan.end - self.now, 0.0) + 2.5)

    def wait(self, seconds: float) -> list:
        """Let time pass in ticks of 20 ms."""
        events, end = [], self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + 0.02, end)
            self.controller.play(self.now - self.skew)
            if not self.blind:
                self.observe()
            events += self.arbiter.tick(self.now)
            self.send()
        return events

    def set_clock(self, seconds: float, told: bool) -> None:
        """Set the clock while no time passes; ``told`` says whether the node saw it, else the arbiter has to."""
        self.now += seconds
        self.skew += seconds
        if told:
            self.arbiter.clock_stepped(seconds, self.now)
        self.arbiter.tick(self.now)
        self.send()

    def stall(self, seconds: float) -> None:
        """Let time pass with nobody calling the arbiter."""
        self.now += seconds
        self.controller.play(self.now - self.skew)
        self.arbiter.stalled(seconds, self.now)
        self.send()

    def offer(self, source: str, trajectory: Trajectory):
        verdict = self.arbiter.offer(source, trajectory, self.now)
        self.send()
        return verdict

    def act(self, name: str, *args):
        """Call one of engage, hold, stop, reset at the present instant."""
        verdict = getattr(self.arbiter, name)(*args, now=self.now)
        self.send()
        return verdict

    def chunk(self, q: np.ndarray, dt: float = 0.1, gripper: float = 0.0, age: float = 0.0) -> Trajectory:
        """Return a chunk through joint targets [K, d]."""
        times = dt * np.arange(1, len(q) + 1)
        positions = np.column_stack([q, np.full(len(q), self.robot.gripper.position(gripper))])
        return Trajectory(self.robot.command_names, times, positions, None, self.now - age)

    def judge(self, tolerance: float = 1e-3) -> None:
        """Assert that all that was played kept every limit and had no step."""
        time, q, qd, qdd, gripper = (np.array(x) for x in zip(*self.controller.log, strict=True))
        limits, dt = self.robot.limits, np.diff(time)[:, None]
        assert np.isfinite(q).all()
        assert (q >= limits.lower - 1e-6).all() and (q <= limits.upper + 1e-6).all(), "position"
        within(np.abs(qd), limits.velocity, tolerance, "velocity")
        within(np.abs(qdd), limits.acceleration, tolerance, "acceleration")
        # By finite differences of what was sent, so that a step at a switch shows as well.
        within(np.abs(np.diff(q, axis=0)) / dt, limits.velocity, tolerance, "velocity between cycles")
        within(np.abs(np.diff(qd, axis=0)) / dt, limits.acceleration, tolerance, "acceleration between cycles")
        within(np.abs(np.diff(qdd, axis=0)) / dt, limits.jerk, 0.01, "jerk between cycles")
        if self.robot.gripper:
            within(np.abs(np.diff(gripper)) / dt[:, 0], self.robot.gripper.max_velocity, tolerance, "gripper")
        tcp = np.array([self.robot.kinematics.forward(x)[:3, 3] for x in q[::2]])
        assert self.robot.workspace.depth(tcp).max() < 5e-3, "workspace"
        speed = np.linalg.norm(np.diff(tcp, axis=0), axis=1) / np.diff(time[::2])
        within(speed, limits.tcp_speed, 0.02, "tcp speed")

    def judge_rest(self) -> None:
        """Assert that the arm stands still."""
        _, qd, qdd = self.controller.state
        assert np.abs(qd).max() < 1e-9 and np.abs(qdd).max() < 1e-9


def within(values: np.ndarray, bound, tolerance: float, name: str) -> None:
    worst = float((values / bound).max(initial=0.0))
    assert worst <= 1.0 + tolerance, f"{name}: {worst:.4f} of the limit"


def boxed(robot: RobotDescription, box, forbidden=()) -> RobotDescription:
    """Return the robot with another workspace."""
    workspace = type(robot.workspace)(np.array(box, float), np.array(forbidden, float).reshape(-1, 2, 3))
    return replace(robot, workspace=workspace)
