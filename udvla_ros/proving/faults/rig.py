"""An arbiter with an honest controller in its loop, in simulated time, and the audit of what that controller wrote.

The controller is the look-alike that writes what the real joint_trajectory_controller wrote. Messages take time and may
be lost, joint states may lag, the driver's clock may be another one, and the robot may play slower than time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from udvla_ros.motion.arbiter import Arbiter, Verdict
from udvla_ros.motion.exchange import Event
from udvla_ros.motion.plan import Points
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.sim.audit import CommandAudit
from udvla_ros.sim.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected

TICK = 0.02  # s between two looks of the arbiter
AT_REST = 1e-9  # rad/s and rad/s^2


class Controller:
    """The controllers of arm and hand on one clock; remembers what they wrote in every cycle.

    Args:
        rate: cycles per second.
        delay: s that a message takes.
        now: on the arbiter's clock; the controllers reckon from a whole second before it.

    Attributes:
        switches, rejected: messages taken and refused.
        halts: messages that left it to make its own way.
        lose: whether the next message is lost.
    """

    def __init__(
        self, robot: RobotDescription, q: np.ndarray, gripper: float, now: float, rate: float = 200.0,
        delay: float = 0.0, from_desired: bool = True, path_tolerance: float = 0.0,
    ) -> None:  # fmt: skip
        self.robot, self.period, self.delay = robot, 1.0 / rate, delay
        self._base = float(np.floor(now)) - 1.0
        self._next = now - self._base  # of its cycles
        options: dict[str, Any] = {"period": self.period, "interpolate_from_desired_state": from_desired}
        self.arm = JointTrajectoryController(robot.joints, q, path_tolerance=path_tolerance, **options)
        self.hand = JointTrajectoryController(["hand"], np.array([gripper]), **options)
        self.times, self.q, self.gripper = [np.array([now])], [np.array(q)[None]], [np.array([gripper])]
        # Blocks of q at which something was passed over or the speed factor changed; the cycles' length in the
        # trajectory's time, which a robot that plays slower than time stretches by its own means.
        self._parts: list[tuple[int, np.ndarray | None, float]] = [(0, None, self.period)]
        self._hand = [np.array([gripper])]  # what it wrote, and what it passed over
        self.switches = self.rejected = self.halts = 0
        self.lose: Callable[[], bool] = lambda: False
        self._on_their_way: list[tuple[float, Points]] = []

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What was last written to the arm: position, velocity, acceleration."""
        return self.arm.command.position, self.arm.command.velocity, self.arm.command.acceleration

    @property
    def at_rest(self) -> bool:
        """Whether what it writes stands still."""
        _, qd, qdd = self.state
        return bool(np.abs(qd).max() < AT_REST and np.abs(qdd).max() < AT_REST)

    def put(self, q: np.ndarray) -> None:
        """Let it hold another position, as when it is started anew."""
        self.arm.activate(q)
        self.q[-1] = np.array(q)[None]

    def shift(self, seconds: float) -> None:
        """Set its clock while it stands."""
        self._next += seconds
        self.arm.activate(self.state[0])
        self.hand.activate(self.hand.command.position)

    def ahead(self, seconds: float) -> None:
        """Let its clock be ahead by this much more; what it plays goes on."""
        self._base += seconds

    def receive(self, points: Points, now: float) -> None:
        """Take a message that is sent at ``now``."""
        self.halts += points.stamp == 0.0
        if not self.lose():
            self._on_their_way.append((now - self._base + self.delay, points))

    def restarted(self) -> None:
        """Note that it was started anew: what it writes from here on has nothing to do with what it wrote."""
        self._parts.append((len(self.q), None, 0.0))

    def deliver(self) -> None:
        """Let every message that is on its way arrive at once."""
        self._on_their_way = [(self._next, points) for _, points in self._on_their_way]

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
            length = self.period * self.arm.scaling
            if self.arm.skipped is not None or length != self._parts[-1][2]:
                self._parts.append((len(self.q) - 1, self.arm.skipped, length))
            self.gripper.append(self.hand.play(self._next, cycles)[:, 0])
            passed = [] if self.hand.skipped is None else [self.hand.skipped[:, 0]]
            self._hand += [*passed, self.gripper[-1]]
            self._next += self.period * cycles

    def written(self, since: float = -np.inf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return when what was written is to be reached [n], the arm [n, d] and the hand [n]."""
        times = np.concatenate(self.times)
        keep = times >= since
        return times[keep], np.concatenate(self.q)[keep], np.concatenate(self.gripper)[keep]

    @property
    def hand_speed(self) -> float:
        """Greatest speed of the hand, but for what its controller passed over, rad/s."""
        return float(np.abs(np.diff(np.concatenate(self._hand))).max(initial=0.0)) / self.period

    def audit(self) -> CommandAudit:
        """Return the audit of all that was written to the arm."""
        audit, before = CommandAudit(self.robot), self.period
        ends = [*(block for block, *_ in self._parts[1:]), len(self.q)]
        for (block, skipped, length), end in zip(self._parts, ends, strict=True):
            if length != before:
                audit.restart()
            if end > block:
                audit.look(np.concatenate(self.q[block:end]), length, skipped)
            before = length
        return audit


class Rig:
    """An arbiter, the controller it writes to, and joint states at 50 Hz.

    Args:
        lag: s by which the measured arm is behind what the controller writes.
        controller: arguments of :class:`Controller`.
        options: of the arbiter.

    Attributes:
        modes: since when each mode was in force.
    """

    make = Controller

    def __init__(
        self, robot: RobotDescription, q: np.ndarray | None = None, now: float = 1000.0, lag: float = 0.0,
        controller: dict[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.robot, self.now, self.lag = robot, now, lag
        self.skew = 0.0  # s by which the clock was set since the start; the controller's own time goes on
        self.sag = np.zeros(len(robot.joints))  # rad by which the arm is not where its controller holds it
        q = robot.home if q is None else q
        self.arbiter = Arbiter(robot, **options)
        gripper = robot.gripper.open if robot.gripper else 0.0
        self.controller = self.make(robot, q, gripper, now, **(controller or {}))
        self._seen: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.blind = False
        self.modes: list[tuple[float, str]] = [(now, self.arbiter.mode.value)]
        self.observe()
        self.arbiter.tick(now)

    @property
    def q(self) -> np.ndarray:
        """What is commanded now."""
        assert self.arbiter.plan is not None
        return self.arbiter.plan.state(self.now).q

    def observe(self) -> None:
        """Report the played state, in an order that is not the kinematic one."""
        q, qd, _ = self.controller.state
        time = self.now - self.skew
        self._seen.append((time, q, qd * self.controller.arm.scaling))
        while len(self._seen) > 1 and self._seen[1][0] <= time - self.lag + 1e-9:
            self._seen.pop(0)
        _, q, qd = self._seen[0]
        names = [*self.robot.joints, *([self.robot.gripper.joint] if self.robot.gripper else [])]
        values, speeds = [*(q + self.sag), self.controller.hand.command.position[0]], [*qd, 0.0]
        order = np.argsort(names)
        self.arbiter.observe(
            [names[i] for i in order], [values[i] for i in order], [speeds[i] for i in order], self.now, time
        )

    def send(self) -> None:
        """Hand the controller what the arbiter wants sent."""
        if self.arbiter.mode.value != self.modes[-1][1]:
            self.modes.append((self.now, self.arbiter.mode.value))
        points = self.arbiter.take(self.now)
        if points is not None:
            self.controller.receive(points, self.now - self.skew)

    def wait(self, seconds: float) -> list[Event]:
        """Let time pass, tick by tick."""
        events, end = [], self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(self.now + TICK, end)
            self.controller.play(self.now - self.skew)
            if not self.blind:
                self.observe()
            events += self.arbiter.tick(self.now)
            self.send()
        return events

    def rest_within(self, most: float) -> float | None:
        """Let time pass until the controller's command stands still; returns the seconds, None where it never did."""
        begin = self.now
        while not self.controller.at_rest:
            if self.now - begin > most:
                return None
            self.wait(TICK)
        return self.now - begin

    def set_clock(self, seconds: float, told: bool) -> None:
        """Set the clock while no time passes; ``told`` says whether the node saw it, else the arbiter has to."""
        self.now += seconds
        self.skew += seconds
        if told:
            self.arbiter.clock_stepped(seconds, self.now)
        self.arbiter.tick(self.now)
        self.send()

    def driver_ahead(self, seconds: float) -> None:
        """Let the driver's clock be ahead of the arbiter's by this much more; what its controller plays goes on."""
        self.skew -= seconds
        self.controller.ahead(seconds)

    def stall(self, seconds: float) -> None:
        """Let time pass with nobody calling the arbiter."""
        self.now += seconds
        self.controller.play(self.now - self.skew)
        self.arbiter.stalled(seconds, self.now)
        self.send()

    def offer(self, source: str, trajectory: Trajectory) -> Verdict:
        """Send a command."""
        verdict = self.arbiter.offer(source, trajectory, self.now)
        self.send()
        return verdict

    def act(self, name: str, *args: Any) -> Any:
        """Call one of engage, hold, stop, reset, impede, intruded, lock, contest at the present instant."""
        verdict = getattr(self.arbiter, name)(*args, now=self.now)
        self.send()
        return verdict

    def chunk(self, q: np.ndarray, dt: float = 0.1, gripper: float = 0.0, age: float = 0.0) -> Trajectory:
        """Return a chunk through joint targets [K, d]."""
        times = dt * np.arange(1, len(q) + 1)
        hand = np.full(len(q), self.robot.gripper.position(gripper)) if self.robot.gripper else np.zeros((len(q), 0))
        return Trajectory(self.robot.command_names, times, np.column_stack([q, hand]), None, self.now - age)
