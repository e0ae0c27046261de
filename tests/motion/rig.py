"""An arbiter with an honest controller in its loop, and the judgement of what that controller wrote.

The controller is the look-alike that writes what the real joint_trajectory_controller wrote. What it wrote is judged by
finite differences, from cycle to cycle, with no code shared with the package's filter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.plan import Points
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.nodes.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected

THOROUGH = 80  # times the examples under --hypothesis-profile=thorough


def examples(count: int):
    """Return hypothesis settings for ``count`` examples, many times that in the profile ``thorough``."""
    scale = THOROUGH if settings.get_current_profile_name() == "thorough" else 1
    return settings(
        max_examples=count * scale, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


class Controller:
    """The controllers of arm and hand on one clock; remembers what they wrote in every cycle.

    Args:
        rate: cycles per second.
        delay: s that a message takes.
        now: on the arbiter's clock; the controllers reckon from a whole second before it.
    """

    def __init__(
        self, robot: RobotDescription, q: np.ndarray, gripper: float, now: float, rate: float = 200.0,
        delay: float = 0.0, from_desired: bool = True, path_tolerance: float = 0.0,
    ) -> None:  # fmt: skip
        self.robot, self.period, self.delay = robot, 1.0 / rate, delay
        self._base = float(np.floor(now)) - 1.0
        self._next = now - self._base  # of its cycles
        options = {"period": self.period, "interpolate_from_desired_state": from_desired}
        self.arm = JointTrajectoryController(robot.joints, q, path_tolerance=path_tolerance, **options)
        self.hand = JointTrajectoryController(["hand"], np.array([gripper]), **options)
        self.times, self.q, self.gripper = [np.array([now])], [np.array(q)[None]], [np.array([gripper])]
        self.switches = self.rejected = self.halts = 0
        self.lose = lambda: False  # whether a message is lost
        self._on_their_way: list[tuple[float, Points]] = []

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What was last written to the arm: position, velocity, acceleration."""
        return self.arm.command.position, self.arm.command.velocity, self.arm.command.acceleration

    def put(self, q: np.ndarray) -> None:
        """Let it hold another position, as when it is started anew."""
        self.arm.activate(q)
        self.q[-1] = np.array(q)[None]

    def shift(self, seconds: float) -> None:
        """Set its clock while it stands."""
        self._next += seconds
        self.arm.activate(self.state[0])
        self.hand.activate(self.hand.command.position)

    def receive(self, points: Points, now: float) -> None:
        """Take a message that is sent at ``now``."""
        assert points.times[0] >= 0.0 and (np.diff(points.times) > 0).all()
        assert not points.qd[-1].any() and not points.qdd[-1].any(), "a message must end at rest"
        self.halts += points.stamp == 0.0
        if not self.lose():
            self._on_their_way.append((now - self._base + self.delay, points))

    def _arrive(self, points: Points, now: float) -> None:
        stamp = points.stamp - self._base if points.stamp else 0.0
        arm = TrajectoryCommand(self.robot.joints, points.times, points.q, points.qd, points.qdd, stamp)
        try:
            self.arm.accept(arm, now)
            if points.gripper.size:
                self.hand.accept(TrajectoryCommand(("hand",), points.times, points.gripper[:, None], stamp=stamp), now)
            self.switches += 1
        except TrajectoryRejected:
            self.rejected += 1

    def play(self, until: float) -> None:
        """Run every cycle before ``until``."""
        end = until - self._base
        while self._next < end - 1e-9:
            waiting = [m for m in self._on_their_way if m[0] > self._next]
            for due, points in self._on_their_way:
                if due <= self._next:
                    self._arrive(points, due)
            self._on_their_way = waiting
            stop = min([end, *(due for due, _ in waiting)])
            cycles = max(1, int(np.ceil((stop - self._next) / self.period - 1e-6)))
            self.times.append(self._base + self._next + self.period * np.arange(1, cycles + 1))
            self.q.append(self.arm.play(self._next, cycles))
            self.gripper.append(self.hand.play(self._next, cycles)[:, 0])
            self._next += self.period * cycles

    def written(self, since: float = -np.inf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return when what was written is to be reached [n], the arm [n, d] and the hand [n]."""
        times = np.concatenate(self.times)
        keep = times >= since
        return times[keep], np.concatenate(self.q)[keep], np.concatenate(self.gripper)[keep]


class Rig:
    """An arbiter, the controller it writes to, and joint states at 50 Hz."""

    def __init__(
        self, robot: RobotDescription, q: np.ndarray | None = None, now: float = 1000.0, controller: dict | None = None,
        **options,
    ) -> None:  # fmt: skip
        self.robot, self.now = robot, now
        self.skew = 0.0  # s by which the clock was set since the start; the controller's own time goes on
        q = robot.home if q is None else q
        self.arbiter = Arbiter(robot, **options)
        gripper = robot.gripper.open if robot.gripper else 0.0
        self.controller = Controller(robot, q, gripper, now, **(controller or {}))
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
        values, speeds = [*q, self.controller.hand.command.position[0]], [*qd, 0.0]
        order = np.argsort(names)
        self.arbiter.observe(
            [names[i] for i in order], [values[i] for i in order], [speeds[i] for i in order], self.now,
            self.now - self.skew,
        )

    def send(self) -> None:
        """Hand the controller what the arbiter wants sent."""
        points = self.arbiter.take(self.now)
        if points is not None:
            self.controller.receive(points, self.now - self.skew)

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
        """Assert that all that was written kept every limit and had no step.

        Where the controller was halted it had to make its own way from a motion, and it sets out one period too far
        along. That shows in one cycle's speed and in what is made of it, and is left out of them; and from a motion
        that is not known its way exceeds the acceleration by up to 15 %.
        """
        halts = self.controller.halts
        _, q, gripper = self.controller.written()
        limits, dt = self.robot.limits, self.controller.period
        assert np.isfinite(q).all()
        assert (q >= limits.lower - 1e-6).all() and (q <= limits.upper + 1e-6).all(), "position"
        change = np.diff(q, axis=0) / dt
        if halts:
            jerk = np.abs(np.diff(change, 2, axis=0) / dt**2 / limits.jerk).max(axis=1)
            for _ in range(halts):
                at = int(jerk.argmax()) + 1
                change[at] = (change[at - 1] + change[at + 1]) / 2 if jerk[at - 1] > 1.0 else change[at]
                jerk = np.abs(np.diff(change, 2, axis=0) / dt**2 / limits.jerk).max(axis=1)
        within(np.abs(change), limits.velocity, tolerance, "velocity")
        change = np.diff(change, axis=0) / dt
        # Stamps near today's date are known to 0.2 microseconds.
        within(np.abs(change), limits.acceleration, 0.15 if halts else 0.05, "acceleration")
        within(np.abs(np.diff(change, axis=0)) / dt, limits.jerk, 0.5 if halts else 0.1, "jerk")
        if self.robot.gripper:
            within(np.abs(np.diff(gripper)) / dt, self.robot.gripper.max_velocity, 0.01, "gripper")
        every = max(1, round(0.01 / dt))
        tcp = self.robot.kinematics.positions(q[::every])
        assert self.robot.workspace.depth(tcp).max() < 5e-3, "workspace"
        speed = np.linalg.norm(np.diff(tcp, axis=0), axis=1) / (every * dt)
        within(speed, limits.tcp_speed, 0.55 if halts else 0.02, "tcp speed")  # one of two cycles counts twice

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
