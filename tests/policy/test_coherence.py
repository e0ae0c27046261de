"""Of several chunks the one that goes on like the plan in force; and none of it where there is no such plan."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny

from udvla_ros.errors import ConfigError
from udvla_ros.policy import DecodeOptions, Observation, Policy
from udvla_ros.policy.coherence import ahead, nearest

FOUR = DecodeOptions(steps=3, temperature=2.0, samples=4)
DT = 0.1


def look(stamp: float, seed: int = 0) -> Observation:
    return Observation(tiny.images(seed), "touch the red cube", stamp)


@pytest.fixture(scope="module")
def policy():
    return Policy(tiny.bundle())


def test_nearest_compares_where_deltas_lead():
    plan = np.array([[1.0, 0.0], [1.0, 0.0]])
    early, late = [[2.0, 0.0], [0.0, 0.0], [9.0, 9.0]], [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    chunks = np.array([late, early])  # both sums of three steps do not matter: the plan has two
    assert nearest(chunks, plan, 1.0, "tcp_delta", None) == 1
    assert nearest(np.array([early, late]), plan, 1.0, "joint_delta", None) == 0
    # Absolute actions are compared as they are: `late` is nearer to standing still at 0.
    assert nearest(chunks, np.zeros((2, 2)), 1.0, "joint_absolute", None) == 0
    # The gripper's command is absolute in any space: one wrong step counts once, not from then on.
    once = np.zeros((1, 3, 2))
    once[0, 0, 1] = 2.0
    shifted = np.zeros((1, 3, 2))
    shifted[0, :, 1] = 1.0
    assert nearest(np.concatenate([shifted, once]), np.zeros((3, 2)), 1.0, "tcp_delta", 1) == 1
    with pytest.raises(ConfigError, match="give samples 1"):
        nearest(chunks, plan, 1.0, "torque", None)


@pytest.mark.parametrize(("elapsed", "first"), [(0, 0), (0.4, 0), (2.6, 3), (3.4, 3), (3.6, None), (-1, None)])
def test_steps_that_are_still_to_be_played(elapsed, first):
    assert ahead(elapsed, 4) == first


def test_the_chunk_nearest_to_the_plan_is_taken(policy):
    """Of the four that one batch draws, by the definition; the first where no plan is in force."""
    drawn = []
    decoder = policy._decoder("jd3p")

    class Spy:
        def __call__(self, *given):
            drawn.append(decoder(*given))
            return drawn[-1]

    first = policy.infer(look(5.0), dataclasses.replace(FOUR, samples=1))
    policy._decoders["jd3p"] = Spy()
    try:
        taken = set()
        for seed in range(6):
            chunk = policy.infer(look(5.1, 1), FOUR, seed, first)
            chunks = [policy._actions(codes) for codes in drawn[-1].actions]
            assert len(chunks) == 4
            scale = np.array([0.02, 0.04, 1.0])
            apart = [(c[:3] - first.actions[1:]) / scale for c in chunks]
            away = [np.concatenate([a[:, :2].cumsum(0), a[:, 2:]], 1) for a in apart]
            best = int(np.argmin([np.linalg.norm(a, axis=1).mean() for a in away]))
            np.testing.assert_array_equal(chunk.actions, chunks[best])
            assert chunk.codes[1] == drawn[-1].actions[best]
            assert chunk.statistics["continued"]
            taken.add(best)
            alone = policy.infer(look(5.1, 1), FOUR, seed)
            np.testing.assert_array_equal(alone.actions, chunks[0])
            assert not alone.statistics["continued"]
        assert len(taken) > 1
    finally:
        policy._decoders["jd3p"] = decoder


@pytest.mark.parametrize("stamp", [5.0 + tiny.CHUNK * DT, 9.0, 4.5])
def test_a_plan_with_nothing_left_or_of_the_future_has_no_say(policy, stamp):
    first = policy.infer(look(5.0), FOUR)
    with_it, without = (policy.infer(look(stamp), FOUR, 3, previous=p) for p in (first, None))
    assert (with_it.actions == without.actions).all()


def test_in_a_batch_each_row_has_its_own_past(policy):
    first = policy.infer(look(5.0), FOUR)
    chunks = policy.infer_batch([look(5.1, 1), look(5.2, 2), look(5.1, 3)], FOUR, 7, [first, None, first])
    assert [c.statistics["continued"] for c in chunks] == [True, False, True]
    assert [c.stamp for c in chunks] == [5.1, 5.2, 5.1]


def test_a_single_sample_asks_no_plan(policy):
    one = dataclasses.replace(FOUR, samples=1)
    first = policy.infer(look(5.0), one)
    with_it, without = (policy.infer(look(5.1), one, 3, previous=p) for p in (first, None))
    assert (with_it.actions == without.actions).all() and not with_it.statistics["continued"]
