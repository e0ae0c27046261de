"""What the arm's side costs and how well it follows: numbers without a policy, a simulator or ROS.

A made-up policy wanders between random goals in steps at 10 Hz, its chunks arriving ``latency`` after what they
were computed from. Three ways of joining its chunks are compared by the jerk at their seams, in the command and
in an arm that follows it with a lag: this package's and two careless ones (:mod:`udvla_ros.proving.bench.seams`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from udvla_ros.motion.action_space import TcpDeltaSpace
from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.errors import UnreachableTarget
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.proving.bench.seams import TICK, Trace, careless, followed, seam_jerk

DT, STEPS = 0.1, 8  # s between points, points of a chunk
PACE = 0.3  # part of the TCP speed limit at which the policy goes, if not told otherwise
DELAYS = np.arange(0.0, 0.6, 0.01)  # s tried for the delay
MOVING = 0.05  # rad/s
TICKS_HZ = 100.0
AREA = ((0.35, -0.25, 0.08), (0.60, 0.25, 0.35))  # goals, m


@dataclass(frozen=True)
class SafetyReport:
    """Results of one run.

    Attributes:
        messages: chunks offered.
        refused, interventions: counts by class.
        offer_ms, offer_cpu_ms, tick_ms, brake_ms: p50, p95, p99 of the wall or process time of one call.
        tracking_mm: p50, p95, p99 over chunks of the greatest distance from a target, after the blend, at its
            due time plus the chunk's delay.
        delay_ms: p50, p95, p99 of that delay: a start from rest begins when its chunk arrives.
        rest_s: p50, p95, p99 of the time to rest after a stop at a random moment of motion.
        core: parts of a core that ticks at 100 Hz and the offered messages take.
        worst: greatest velocity, acceleration and jerk sent, as parts of their limits.
        seams: by way of joining: RMS jerk of the command at seams, inside chunks and in all, rad/s^3, and the
            first by the second; and the same of the arm.
        step: m of a full step of the policy.
        stitch: the options of joining.
        offers: ms of each call of offer.
        traces: what was commanded, by way of joining.
    """

    messages: int
    refused: dict[str, int]
    interventions: dict[str, int]
    offer_ms: dict[str, float]
    offer_cpu_ms: dict[str, float]
    tick_ms: dict[str, float]
    brake_ms: dict[str, float]
    tracking_mm: dict[str, float]
    delay_ms: dict[str, float]
    rest_s: dict[str, float]
    core: float
    worst: dict[str, float]
    seams: dict[str, dict[str, float | None]]
    arm_seams: dict[str, dict[str, float | None]]
    step: float
    stitch: StitchOptions
    offers: list[float] = field(repr=False, default_factory=list)
    traces: dict[str, Trace] = field(repr=False, default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the report for JSON, without the single calls and commands."""
        return {name: value for name, value in asdict(self).items() if name not in ("offers", "traces")}


class Wanderer:
    """The made-up policy: steps of ``step`` m straight to a goal, shorter near it, then to the next."""

    def __init__(self, robot: RobotDescription, rng: np.random.Generator, step: float) -> None:
        self._robot, self._rng, self._step, self._space = robot, rng, step, TcpDeltaSpace(robot)
        self._goal = self._rng.uniform(*AREA)

    def chunk(self, q: np.ndarray) -> np.ndarray:
        """Return the joint targets [STEPS, d] of the chunk computed from command ``q`` [d]."""
        at = self._robot.kinematics.forward(q)[:3, 3]
        if np.linalg.norm(self._goal - at) < 0.02:
            self._goal = self._rng.uniform(*AREA)
        actions = np.zeros((STEPS, 7))
        for action in actions:
            way = self._goal - at
            left = float(np.linalg.norm(way))
            action[:3] = way / max(left, 1e-9) * min(self._step, 0.5 * left)
            at = at + action[:3]
        try:
            return self._space.targets(actions, q).q
        except UnreachableTarget:
            self._goal = self._rng.uniform(*AREA)
            return np.repeat(q[None], STEPS, axis=0)


def measure(
    robot: RobotDescription,
    messages: int = 300,
    latency: float = 0.3,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
    options: StitchOptions | None = None,
    step: float | None = None,
) -> SafetyReport:
    """Return costs, tracking and continuity over ``messages`` chunks.

    Args:
        latency: s from the observation to the arrival of its chunk; the next observation follows at once.
        progress: called after each message.
        options: how chunks are joined.
        step: m of a full step of the policy; by default in proportion to the robot's TCP speed.
    """
    options = options or StitchOptions()
    step = PACE * robot.limits.tcp_speed * DT if step is None else step
    rng = np.random.default_rng(seed)
    policy, arbiter, clock = Wanderer(robot, rng, step), started(robot, options), Clock()
    names, forward = robot.command_names, robot.kinematics.positions
    offers, offers_cpu, ticks, brakes, apart, late, rests = (list[float]() for _ in range(7))
    worst, trace = np.zeros(3), Trace()
    for _ in range(messages):
        stamp, targets = clock.now, policy.chunk(in_force(arbiter).state(clock.now).q)
        for _ in range(round(latency / TICK)):  # the policy thinks, the arm goes on
            clock.now += TICK
            feed(arbiter, clock.now)
            begin = time.perf_counter()
            arbiter.tick(clock.now)
            ticks.append(time.perf_counter() - begin)
            trace.commands.append(in_force(arbiter).state(clock.now).q)
        message = Trajectory(names[: len(robot.joints)], DT * np.arange(1, STEPS + 1), targets, None, stamp)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        verdict = arbiter.offer("policy", message, clock.now)
        offers.append(time.perf_counter() - begin)
        offers_cpu.append(time.process_time() - begin_cpu)
        trace.switches.append(len(trace.commands) + round(options.frozen / TICK))
        if verdict.accepted:
            plan = in_force(arbiter)
            worst = np.maximum(worst, arbiter.safety.envelope(plan, clock.now).effort(plan).max(axis=1))
            due = stamp + DT * np.arange(1, STEPS + 1)
            kept = due > clock.now + arbiter.stitch.blend
            if np.ptp(forward(targets[kept]), axis=0).max(initial=0.0) > step / 3:
                moved = [forward(np.stack([plan.state(t + shift).q for t in due[kept]])) for shift in DELAYS]
                error = np.linalg.norm(np.stack(moved) - forward(targets[kept]), axis=2).max(axis=1)
                late.append(float(DELAYS[error.argmin()]) * 1e3)
                apart.append(float(error.min()) * 1e3)
        when = clock.now + rng.uniform(0.0, latency)
        begin = time.perf_counter()
        stop = arbiter.safety.brake(in_force(arbiter), when)
        brakes.append(time.perf_counter() - begin)
        if np.abs(in_force(arbiter).state(when).qd).max() > MOVING:
            rests.append(stop.start + stop.rest_time - when)
        progress()
    traces = {"stitched": trace}
    for name, measured in (("chunk_after_chunk", False), ("reanchored", True)):
        again = Wanderer(robot, np.random.default_rng(seed), step)
        traces[name] = careless(again.chunk, robot.home, messages, latency, DT, measured)
    counts = arbiter.counts
    return SafetyReport(
        messages=messages,
        refused=named(counts, "refused/"),
        interventions=named(counts, "intervention/"),
        offer_ms=spread(offers, 1e3),
        offer_cpu_ms=spread(offers_cpu, 1e3),
        tick_ms=spread(ticks, 1e3),
        brake_ms=spread(brakes, 1e3),
        tracking_mm=spread(apart),
        delay_ms=spread(late),
        rest_s=spread(rests),
        core=float(np.mean(ticks) * TICKS_HZ + np.mean(offers_cpu) / latency),
        worst=dict(zip(("velocity", "acceleration", "jerk"), map(float, worst), strict=True)),
        seams={name: seam_jerk(each.curve, each.switches) for name, each in traces.items()},
        arm_seams={name: seam_jerk(followed(each.curve), each.switches) for name, each in traces.items()},
        step=step,
        stitch=options,
        offers=[x * 1e3 for x in offers],
        traces=traces,
    )


@dataclass
class Clock:
    """Made-up time, s."""

    now: float = 1000.0


def started(robot: RobotDescription, options: StitchOptions | None = None) -> Arbiter:
    """Return an arbiter at home with the policy engaged, at the clock's start."""
    arbiter = Arbiter(robot, stitch=options)
    begin = Clock().now
    gripper = [] if robot.gripper is None else [robot.gripper.open]
    rest = np.append(robot.home, gripper)
    arbiter.observe(robot.command_names, rest, np.zeros_like(rest), begin)
    arbiter.engage("policy", begin)
    return arbiter


def in_force(arbiter: Arbiter) -> Plan:
    """Return the plan in force of an arbiter that has started."""
    assert arbiter.plan is not None
    return arbiter.plan


def feed(arbiter: Arbiter, now: float) -> None:
    """Report an arm that is where it is commanded."""
    state = in_force(arbiter).state(now)
    arbiter.observe(arbiter.robot.joints, state.q, state.qd, now)


def spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if not values:
        return {}
    return {f"p{p}": float(np.percentile(values, p)) * scale for p in (50, 95, 99)}


def named(counts: dict[str, int], prefix: str) -> dict[str, int]:
    """Return the counts whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): n for name, n in sorted(counts.items()) if name.startswith(prefix)}
