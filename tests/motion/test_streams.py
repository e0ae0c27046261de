"""Whatever is sent, what leaves the arbiter keeps every limit, never steps, and comes to rest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import Rig, boxed, examples

from udvla_ros.motion.modes import Mode
from udvla_ros.motion.trajectory import Trajectory

DEFECTS = (
    *["none"] * 8, "permuted", "nan", "inf", "missing", "duplicate", "unknown", "reversed times",
    "zero time", "stale", "ahead", "empty", "far", "ragged", "no gripper", "with velocities", "dense",
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
    ]
)
streams = st.lists(st.one_of(offers, offers, offers, waits, waits, controls), min_size=6, max_size=30)


def trajectory(rig: Rig, defect: str, seed: int, size: float, age: float) -> Trajectory:
    """Return a random walk from the command at the observation, with one defect."""
    rng, robot = np.random.default_rng(seed), rig.robot
    count = int(rng.integers(1, 9))
    past = rig.arbiter.past(rig.now - age)
    start = past[0].q if past else rig.q
    drift = rng.normal(size=6) * size
    q = start + np.cumsum(drift + rng.normal(size=(count, 6)) * size * rng.choice([0.0, 0.3, 1.0]), axis=0)
    times = np.cumsum(rng.uniform(0.02, 0.15, count)) if rng.random() < 0.3 else 0.1 * np.arange(1, count + 1)
    positions = np.column_stack([q, rng.uniform(0.0, 0.8, count)])
    names, stamp, velocities = list(robot.command_names), rig.now - age, None
    if defect == "permuted":
        order = rng.permutation(7)
        names, positions = [names[i] for i in order], positions[:, order]
    elif defect in ("nan", "inf"):
        positions[rng.integers(count), rng.integers(7)] = np.nan if defect == "nan" else -np.inf
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
        names, positions = names[:6], positions[:, :6]
    elif defect == "with velocities":
        velocities = rng.normal(size=positions.shape) * size * 5
    elif defect == "dense":
        times = 0.004 * np.arange(1, count + 1)
    return Trajectory(names, times, positions, velocities, stamp)


REFUSED = {
    "nan": "non_finite", "inf": "non_finite", "missing": "missing_joint", "duplicate": "duplicate_joint",
    "unknown": "unknown_joint", "reversed times": "times", "zero time": "times", "stale": "stale",
    "ahead": "future", "empty": "empty", "far": "out_of_limits", "ragged": "malformed",
}  # fmt: skip


def run(rig: Rig, stream: list) -> None:
    for step in stream:
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
            before, mode = rig.arbiter.plan, rig.arbiter.mode
            verdict = rig.offer(source, trajectory(rig, defect, seed, size, age))
            assert not (verdict.accepted and defect in REFUSED), defect
            if not verdict.accepted:
                assert verdict.kind and verdict.reason
                takeover = mode is not rig.arbiter.mode
                assert rig.arbiter.plan is before or takeover, "a refused command must change nothing"
                if rig.arbiter.mode.value.lower() == source and defect in REFUSED:
                    assert verdict.kind == REFUSED[defect]
        else:
            rig.act(*step)
    rig.settle()
    rig.judge_rest()
    rig.judge()


@examples(60)
@given(streams)
def test_any_stream_keeps_the_envelope(ur5e, stream):
    rig = Rig(ur5e)
    rig.act("engage", "policy")
    run(rig, stream)
    assert rig.arbiter.mode in (Mode.HOLD, Mode.STOPPED), "silence must end in HOLD"


@examples(30)
@given(streams)
def test_any_stream_stays_in_a_tight_workspace(ur5e, stream):
    tcp = ur5e.kinematics.forward(ur5e.home)[:3, 3]
    around = np.array([[-0.08, -0.1, -0.05], [0.1, 0.08, 0.1]])
    pillar = np.array([[0.02, -0.02, -0.02], [0.06, 0.02, 0.02]])
    robot = boxed(ur5e, tcp + around, [tcp + pillar])
    rig = Rig(robot, now=1.7e9 + 0.123)  # times since the epoch, where a double resolves only 0.2 microseconds
    rig.act("engage", "policy")
    run(rig, stream)


@examples(20)
@given(st.integers(0, 5), st.booleans(), streams)
def test_any_stream_from_a_joint_bound_stays_within_it(ur5e, joint, high, stream):
    robot = boxed(ur5e, [[-2, -2, -2], [2, 2, 2]])
    q = ur5e.home.copy()
    q[joint] = ur5e.limits.upper[joint] - 0.02 if high else ur5e.limits.lower[joint] + 0.02
    rig = Rig(robot, q=q)
    rig.act("engage", "policy")
    run(rig, stream)
