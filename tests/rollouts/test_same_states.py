"""The same messages give the same joint states, live and from a bag, however they are cut, ordered and named."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_bag import BEGIN, NAMES, ROBOT, Recording, joint_state

from udvla_ros.motion.measured import Measured
from udvla_ros.rollouts.bags.episode import RecordedEpisode
from udvla_ros.rollouts.bags.reader import Bag

KIND = "sensor_msgs/msg/JointState"
ARM = len(ROBOT.joints)


@st.composite
def streams(draw):
    """Return messages (s, names, positions, velocities): the arm's in one or two, the gripper's with them or apart."""
    order = draw(st.permutations(range(ARM)))
    cut = draw(st.sampled_from([ARM, ARM // 2]))
    parts = [list(order[:cut]), list(order[cut:])] if cut < ARM else [list(order)]
    if draw(st.booleans()):
        parts.append([ARM])
    else:
        parts[draw(st.integers(0, len(parts) - 1))].insert(0, ARM)
    speeds, foreign = draw(st.booleans()), draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    messages = []
    for k in range(draw(st.integers(3, 12))):
        q, qd = random.normal(size=ARM + 1), random.normal(size=ARM + 1)
        for number, part in enumerate(parts):
            names = [NAMES[i] for i in part] + (["wheel_left_joint"] if foreign else [])
            position, velocity = [*q[part], *([1e3] if foreign else [])], [*qd[part], *([0.0] if foreign else [])]
            if random.random() < 0.1:
                position[0] = np.nan
            messages.append((0.02 * k + 0.002 * number, names, position, velocity if speeds else []))
    return messages


@given(streams())
@settings(max_examples=20)
def test_the_same_messages_are_the_same_states(tmp_path_factory, messages):
    recording = Recording()
    for at, names, position, velocity in messages:
        recording.add(at, "joint_states", KIND, joint_state(BEGIN + at, tuple(names), position, velocity))
    folder = tmp_path_factory.mktemp("bag") / "episode"
    recording.write(folder)
    with Bag(folder) as bag:
        found = RecordedEpisode(bag, ROBOT).measured

    live, rows = Measured(ROBOT), {}
    for at, names, position, velocity in messages:
        live.update(names, position, velocity or None, BEGIN + at)
        rows[round(at, 4)] = np.append(live.q, live.gripper)
    assert len(found.received), "nothing was read"
    for received, state in zip(found.received, found.position, strict=True):
        np.testing.assert_array_equal(state, rows[round(received - BEGIN, 4)])
