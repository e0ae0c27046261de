"""Whatever is sent, what leaves the arbiter keeps every limit, never steps, and comes to rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import Rig, boxed, examples

from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.modes import Mode
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory

DEFECTS = (
    *["none"] * 8, "permuted", "nan", "inf", "missing", "duplicate", "unknown", "reversed times",
    "zero time", "stale", "ahead", "empty", "far", "ragged", "no gripper", "with velocities", "dense",
    "same stamp", "older stamp",
)  # fmt: skip

offers = st.tuples(
    st.just("offer"),
    st.sampled_from(["policy", "policy", "teleop"]),
    st.sampled_from(DEFECTS),
    st.integers(0, 2**16),
    st.sampled_from([0.002, 0.03, 0.1, 0.3, 1.0]),  # rad per step
    st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.45]),  # age of the observation, s
    st.sampled_from([True, True, True, False]),  # whether its source is engaged first where need be
)
bursts = st.tuples(
    st.just("burst"),
    st.sampled_from(["policy", "teleop"]),
    st.integers(2, 12),  # messages
    st.integers(0, 2**16),
    st.sampled_from([0.003, 0.03, 0.3]),
    st.sampled_from([0.0, 0.005, 0.02]),  # s between two of them
)
waits = st.tuples(st.just("wait"), st.sampled_from([0.0, 0.003, 0.013, 0.02, 0.1, 0.26, 0.7]))
controls = st.sampled_from(
    [
        ("engage", "policy"),
        ("engage", "teleop"),
        ("hold",),
        ("stop", "button"),
        ("reset",),
        ("blind",),
        ("wait", 3.0),
        ("lock", True),
        ("lock", False),
        ("contest", "policy"),
        ("speed", 0.1),
        ("speed", 1.0),
    ]
)
mishaps = st.sampled_from(
    [("clock", 40.0, True), ("clock", 0.4, True), ("clock", -0.3, True), ("clock", 5.0, False), ("clock", -2.0, False),
     ("stall", 0.4), ("stall", 1.7), ("scaling", 2, 0.1), ("scaling", 4, 0.5), ("scaling", 10, 0.02)]
)  # fmt: skip
LEAD = 0.02  # s
# Cycles per second of the controller; part of the lead, less two of its cycles, that its messages take; lag of the arm.
links = st.tuples(st.sampled_from([100.0, 125.0, 200.0, 500.0, 1000.0]), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
                  st.sampled_from([0.0, 0.0, 0.02, 0.06]))  # fmt: skip
AT_REST = 1.0  # s after whatever is the last
streams = st.lists(
    st.one_of(offers, offers, offers, bursts, waits, waits, controls, mishaps), min_size=6, max_size=30
)


def trajectory(rig: Rig, source: str, defect: str, seed: int, size: float, age: float) -> Trajectory:
    """Return a random walk from the command at the observation, with one defect."""
    rng, robot = np.random.default_rng(seed), rig.robot
    joints, count = len(robot.joints), int(rng.integers(1, 9))
    past = rig.arbiter.past(rig.now - age)
    start = past[0].q if past else rig.q
    drift = rng.normal(size=joints) * size
    q = start + np.cumsum(drift + rng.normal(size=(count, joints)) * size * rng.choice([0.0, 0.3, 1.0]), axis=0)
    times = np.cumsum(rng.uniform(0.02, 0.15, count)) if rng.random() < 0.3 else 0.1 * np.arange(1, count + 1)
    positions = np.column_stack([q, robot.gripper.position(rng.uniform(0.0, 1.0, count))])
    names, stamp, velocities = list(robot.command_names), rig.now - age, None
    last = rig.arbiter.heard[source].stamp
    if defect == "permuted":
        order = rng.permutation(joints + 1)
        names, positions = [names[i] for i in order], positions[:, order]
    elif defect in ("nan", "inf"):
        positions[rng.integers(count), rng.integers(joints + 1)] = np.nan if defect == "nan" else -np.inf
    elif defect == "missing":
        names, positions = names[1:], positions[:, 1:]
    elif defect == "duplicate":
        names[0] = names[1]
    elif defect == "unknown":
        names[2] = "elbow"
    elif defect == "reversed times":
        times = times[::-1] if count > 1 else -times
    elif defect == "zero time":
        times = times - times[0]
    elif defect == "stale":
        stamp -= 5.0
    elif defect == "ahead":
        stamp += 1.0
    elif defect == "empty":
        times, positions = times[:0], positions[:0]
    elif defect == "far":
        positions = positions + 20.0
    elif defect == "ragged":
        positions = positions[:, :4]
    elif defect == "no gripper":
        names, positions = names[:joints], positions[:, :joints]
    elif defect == "with velocities":
        velocities = rng.normal(size=positions.shape) * size * 5
    elif defect == "dense":
        times = 0.004 * np.arange(1, count + 1)
    elif defect == "same stamp" and np.isfinite(last):
        stamp = last
    elif defect == "older stamp" and np.isfinite(last):
        stamp = last - float(rng.uniform(0.001, 0.5))
    return Trajectory(names, times, positions, velocities, stamp)


REFUSED = {
    "nan": "non_finite", "inf": "non_finite", "missing": "missing_joint", "duplicate": "duplicate_joint",
    "unknown": "unknown_joint", "reversed times": "times", "zero time": "times", "stale": "stale",
    "ahead": "future", "empty": "empty", "far": "out_of_limits", "ragged": "malformed",
}  # fmt: skip


def offer(rig: Rig, source: str, defect: str, seed: int, size: float, age: float) -> None:
    """Send one trajectory and check the answer."""
    before, mode, last = rig.arbiter.plan, rig.arbiter.mode, rig.arbiter.heard[source].stamp
    verdict = rig.offer(source, trajectory(rig, source, defect, seed, size, age))
    assert not (verdict.accepted and defect in REFUSED), defect
    if not verdict.accepted:
        assert verdict.kind and verdict.reason
        takeover = mode is not rig.arbiter.mode
        assert rig.arbiter.plan is before or takeover, "a refused command must change nothing"
        contested = verdict.kind == "two_writers"
        if rig.arbiter.mode.value.lower() == source and defect in REFUSED and not contested:
            assert verdict.kind == REFUSED[defect]
    elif defect == "older stamp":
        assert not np.isfinite(last), "older than what was accepted before it"


def run(rig: Rig, stream: list) -> None:
    for step in stream:
        moved = (rig.arbiter.mode, rig.arbiter.plan)
        if step[0] == "wait":
            rig.wait(step[1])
        elif step[0] == "blind":
            rig.blind = not rig.blind
        elif step[0] == "offer":
            _, source, defect, seed, size, age, engaged = step
            if engaged and rig.arbiter.mode.value.lower() != source:
                rig.act("reset")
                rig.act("engage", source)
                age = 0.0
            offer(rig, source, defect, seed, size, age)
        elif step[0] == "burst":
            _, source, count, seed, size, pause = step
            for k in range(count):
                offer(rig, source, "none", seed + k, size, 0.0)
                rig.wait(pause)
        elif step[0] == "clock":
            rig.set_clock(*step[1:])
            assert rig.arbiter.mode is Mode.STOPPED
        elif step[0] == "stall":
            rig.stall(step[1])
            assert rig.arbiter.mode is Mode.STOPPED
        elif step[0] == "scaling":  # the robot plays that many times slower for a while
            # It says so at once, and nothing is on its way: what comes before it is heard makes the arm catch up.
            _, times, seconds = step
            rig.controller.deliver()
            rig.controller.arm.scaling = 1.0 / times
            rig.act("impede", "scaling", f"the robot plays {times} times slower")
            assert rig.arbiter.mode not in (Mode.POLICY, Mode.TELEOP) or rig.arbiter.options.dry_run
            rig.wait(seconds)
            rig.controller.arm.scaling = 1.0
            rig.wait(0.01)
            rig.act("impede", "scaling", "")
        elif step[0] == "lock":
            rig.arbiter.lock("emergency stop", step[1], rig.now)
            rig.send()
            assert not step[1] or rig.arbiter.mode is Mode.STOPPED
        elif step[0] == "contest":
            rig.arbiter.contest(step[1], "two writers", rig.now)
            rig.send()
            assert rig.arbiter.mode is not Mode.POLICY
        elif step[0] == "speed":
            rig.arbiter.set_speed(step[1], rig.now)
        else:
            rig.act(*step)
        # Nothing but an engagement, or teleop's own hand, gives anybody the arm.
        active = rig.arbiter.mode in (Mode.POLICY, Mode.TELEOP) and rig.arbiter.mode is not moved[0]
        assert not active or step[0] in ("offer", "burst", "engage")
    source = {Mode.POLICY: "policy", Mode.TELEOP: "teleop"}.get(rig.arbiter.mode)
    if source:  # silence is an input as well: it ends in HOLD
        rig.wait(rig.arbiter.sources[source].timeout + 0.02)
    if rig.blind:  # whose time a clock that was set is, cannot be known: the plan plays out
        rig.wait(max(rig.arbiter.plan.end - rig.now, 0.0) + 0.3)
    assert rig.rest_within(AT_REST) is not None, f"it still moves in {rig.arbiter.mode.value}"
    rig.wait(1.0)
    rig.judge_rest()
    rig.judge()
    assert rig.arbiter.mode in (Mode.HOLD, Mode.STOPPED), "silence must end in HOLD"


def rigged(robot, link, **options) -> Rig:
    """Return a rig with such a controller in its loop, the policy engaged."""
    rate, part, lag = link
    rig = Rig(robot, lag=lag, controller={"rate": rate, "delay": part * (LEAD - 2 / rate)}, **options)
    rig.act("engage", "policy")
    return rig


@examples(60)
@given(streams, links, st.sampled_from([StitchOptions(lead=LEAD), StitchOptions(lead=LEAD, frozen=0.1)]))
def test_any_stream_keeps_the_envelope(ur5e, stream, link, stitch):
    run(rigged(ur5e, link, stitch=stitch), stream)


@examples(40)
@given(streams, links)
def test_any_stream_keeps_the_envelope_of_a_real_arm(real, stream, link):
    options = replace(ArbiterOptions.of(real), following_error=1.0, servo_lag=0.15)
    run(rigged(real, link, stitch=StitchOptions(lead=LEAD), options=options), stream)


@examples(30)
@given(streams, links)
def test_any_stream_stays_in_a_tight_workspace(ur5e, stream, link):
    tcp = ur5e.kinematics.forward(ur5e.home)[:3, 3]
    around = np.array([[-0.08, -0.1, -0.05], [0.1, 0.08, 0.1]])
    pillar = np.array([[0.02, -0.02, -0.02], [0.06, 0.02, 0.02]])
    robot = boxed(ur5e, tcp + around, [tcp + pillar])
    # Times since the epoch, where a double resolves only 0.2 microseconds.
    run(rigged(robot, link, stitch=StitchOptions(lead=LEAD), now=1.7e9 + 0.123), stream)


@examples(20)
@given(st.integers(0, 5), st.booleans(), streams)
def test_any_stream_from_a_joint_bound_stays_within_it(ur5e, joint, high, stream):
    robot = boxed(ur5e, [[-2, -2, -2], [2, 2, 2]])
    q = ur5e.home.copy()
    q[joint] = ur5e.limits.upper[joint] - 0.02 if high else ur5e.limits.lower[joint] + 0.02
    rig = Rig(robot, q=q, stitch=StitchOptions(lead=LEAD))
    rig.act("engage", "policy")
    run(rig, stream)


@examples(15)
@given(streams, links, st.sampled_from([None, 0.3]))
def test_any_stream_keeps_the_envelope_of_another_arm(panda, stream, link, ensemble):
    run(rigged(panda, link, stitch=StitchOptions(lead=LEAD, frozen=0.1, ensemble=ensemble)), stream)


@examples(10)
@given(streams)
def test_any_stream_moves_nothing_in_a_dry_run(ur5e, stream):
    rig = Rig(ur5e, options=ArbiterOptions(dry_run=True))
    rig.act("engage", "policy")
    run(rig, stream)
    assert rig.controller.switches == 0
