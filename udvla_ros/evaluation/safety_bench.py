"""What the arm's side costs and how well it follows: numbers without a policy, a simulator or ROS.

A made-up policy wanders between random goals in 3 cm steps at 10 Hz, its chunks arriving ``latency`` after
what they were computed from. Three ways of joining its chunks are compared by the jerk at their seams: this
package's, chunk after chunk from their first step, and chunks re-anchored to a measured pose that lags.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from udvla_ros.motion.action_space import TcpDeltaSpace
from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.errors import UnreachableTarget
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions, node_velocities
from udvla_ros.motion.trajectory import Trajectory

DT, STEPS, STEP = 0.1, 8, 0.03  # s between points, points of a chunk, m of a full step
TICK = 0.01
LAG = 0.033  # s by which the measured arm follows its command
SEAM = 0.1  # s after a switch that count as its seam
DELAYS = np.arange(0.0, 0.6, 0.01)  # s tried for the delay
MOVING = 0.05  # rad/s
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
        worst: greatest velocity, acceleration and jerk sent, as parts of their limits.
        seams: by way of joining: RMS jerk at seams and inside chunks, rad/s^3, and their ratio.
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
    worst: dict[str, float]
    seams: dict[str, dict[str, float | None]]

    def as_dict(self) -> dict[str, object]:
        """Return the report for JSON."""
        return asdict(self)


class Wanderer:
    """The made-up policy: steps straight to a goal, slower near it, then to the next."""

    def __init__(self, robot: RobotDescription, rng: np.random.Generator) -> None:
        self._robot, self._rng, self._space = robot, rng, TcpDeltaSpace(robot)
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
            action[:3] = way / max(left, 1e-9) * min(STEP, 0.5 * left)
            at = at + action[:3]
        try:
            return self._space.targets(actions, q).q
        except UnreachableTarget:
            self._goal = self._rng.uniform(*AREA)
            return np.repeat(q[None], STEPS, axis=0)


def measure(
    robot: RobotDescription, messages: int = 300, latency: float = 0.3, seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> SafetyReport:  # fmt: skip
    """Return costs, tracking and continuity over ``messages`` chunks.

    Args:
        latency: s from the observation to the arrival of its chunk; the next observation follows at once.
        progress: called after each message.
    """
    rng = np.random.default_rng(seed)
    policy, arbiter, clock = Wanderer(robot, rng), started(robot), Clock()
    names, forward = robot.command_names, robot.kinematics.positions
    offers, offers_cpu, ticks, brakes, apart, late, rests = (list[float]() for _ in range(7))
    worst, track, seams = np.zeros(3), list[np.ndarray](), list[int]()
    for _ in range(messages):
        stamp, targets = clock.now, policy.chunk(in_force(arbiter).state(clock.now).q)
        for _ in range(round(latency / TICK)):  # the policy thinks, the arm goes on
            clock.now += TICK
            feed(arbiter, clock.now)
            begin = time.perf_counter()
            arbiter.tick(clock.now)
            ticks.append(time.perf_counter() - begin)
            track.append(in_force(arbiter).state(clock.now).q)
        message = Trajectory(names[: len(robot.joints)], DT * np.arange(1, STEPS + 1), targets, None, stamp)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        verdict = arbiter.offer("policy", message, clock.now)
        offers.append(time.perf_counter() - begin)
        offers_cpu.append(time.process_time() - begin_cpu)
        seams.append(len(track))
        if verdict.accepted:
            plan = in_force(arbiter)
            worst = np.maximum(worst, arbiter.safety.envelope(plan, clock.now).effort(plan).max(axis=1))
            due = stamp + DT * np.arange(1, STEPS + 1)
            kept = due > clock.now + arbiter.stitch.blend
            if np.ptp(forward(targets[kept]), axis=0).max(initial=0.0) > STEP / 3:
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
    counts = arbiter.counts
    return SafetyReport(
        messages=messages,
        refused=named(counts, "refused/"), interventions=named(counts, "intervention/"),
        offer_ms=spread(offers, 1e3), offer_cpu_ms=spread(offers_cpu, 1e3), tick_ms=spread(ticks, 1e3),
        brake_ms=spread(brakes, 1e3), tracking_mm=spread(apart), delay_ms=spread(late), rest_s=spread(rests),
        worst=dict(zip(("velocity", "acceleration", "jerk"), map(float, worst), strict=True)),
        seams={
            "stitched": seam_jerk(np.array(track), seams),
            "chunk_after_chunk": seam_jerk(*naive(robot, messages, latency, seed, anchor="command")),
            "reanchored": seam_jerk(*naive(robot, messages, latency, seed, anchor="measured")),
        },
    )  # fmt: skip


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


def naive(
    robot: RobotDescription, messages: int, latency: float, seed: int, anchor: str
) -> tuple[np.ndarray, list[int]]:
    """Return the commands [n, d] of joining chunks without care, and the indices of the switches.

    ``anchor``: ``command`` plays each chunk from its first step when it arrives; ``measured`` drops elapsed
    steps and moves the rest to where the lagging arm is.
    """
    policy = Wanderer(robot, np.random.default_rng(seed))
    here = measured = robot.home.copy()
    times, curve, begin = np.array([0.0, 1.0]), np.repeat(here[None], 2, axis=0), 0.0
    track, seams, now = list[np.ndarray](), list[int](), 0.0
    for _ in range(messages):
        seen = policy.chunk(here)
        for _ in range(round(latency / TICK)):
            now += TICK
            here = hermite(times, curve, now - begin)
            measured = measured + (here - measured) * (TICK / LAG)
            track.append(here)
        seams.append(len(track))
        if anchor == "measured":
            elapsed = min(round(latency / DT), STEPS - 1)
            seen = seen[elapsed:] - seen[elapsed - 1] + measured if elapsed else seen
            here = measured
        curve = np.vstack([here, seen])
        times, begin = DT * np.arange(len(curve)), now
    return np.array(track), seams


def hermite(times: np.ndarray, q: np.ndarray, t: float) -> np.ndarray:
    """Return the smooth cubic spline through ``q`` [m, d] at ``times`` [m], at rest before and after, at ``t``."""
    zero = np.zeros(q.shape[1])
    slope = (q[1] - q[0]) / (times[1] - times[0])
    v = node_velocities(times, q, slope, zero)
    t = min(max(t, 0.0), times[-1])
    k = min(int(np.searchsorted(times, t, "right")) - 1, len(times) - 2)
    h = times[k + 1] - times[k]
    x = (t - times[k]) / h
    a, b = x * x * (3 - 2 * x), x * (1 - x)
    return (1 - a) * q[k] + a * q[k + 1] + h * b * ((1 - x) * v[k] - x * v[k + 1])


def seam_jerk(track: np.ndarray, seams: list[int]) -> dict[str, float | None]:
    """Return RMS jerk, rad/s^3, of commands [n, d] every ``TICK`` near the switches and elsewhere.

    There is no ratio where all is near a switch: let chunks arrive further apart than ``SEAM``.
    """
    jerk = np.linalg.norm(np.diff(track, n=3, axis=0), axis=1) / TICK**3
    near = np.zeros(len(jerk), bool)
    for seam in seams:
        near[max(seam - 3, 0) : seam + round(SEAM / TICK)] = True
    at, inside = (float(np.sqrt(np.mean(jerk[x] ** 2))) if x.any() else 0.0 for x in (near, ~near))
    return {"at_seams": at, "inside": inside, "ratio": at / inside if inside > 1e-6 else None}


def spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if not values:
        return {}
    return {f"p{p}": float(np.percentile(values, p)) * scale for p in (50, 95, 99)}


def named(counts: dict[str, int], prefix: str) -> dict[str, int]:
    """Return the counts whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): n for name, n in sorted(counts.items()) if name.startswith(prefix)}
