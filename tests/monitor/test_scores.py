from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from udvla_ros.monitor.scores import Look, Scorer, excess, hardest

DT, STEPS, VIEWS = 0.1, 8, {"front": 3, "wrist": 2}
CODEBOOK = np.eye(4)
CODES = (0, 1, 2, 3, 0)


def look(stamp: float, start=(0.0, 0.0, 0.0), step=(0.01, 0.0, 0.0), seen=CODES, future=CODES, **more):
    way = np.array(start) + np.arange(STEPS + 1)[:, None] * np.array(step)
    return Look(stamp, DT, way, more.pop("closed", np.zeros(STEPS)), np.array(seen), np.array(future), **more)


def certain(codes, probability=0.97):
    """A prediction that holds each of these codes for that likely."""
    rest = (1.0 - probability) / 3
    return np.array(codes)[:, None], np.full((5, 1), np.log(probability)), np.full(5, np.log(rest))


@pytest.fixture
def scorer():
    return Scorer(VIEWS, CODEBOOK)


def test_a_future_is_held_against_what_comes_when_its_time_has_come(scorer):
    expected = certain((0, 1, 2, 3, 0))
    assert not any("/" in name and "gripper" not in name for name in scorer.update(look(0.0, foreseen=expected)))
    assert "picture/front" not in scorer.update(look(0.4, foreseen=expected))
    came = scorer.update(look(0.8))
    assert came["picture/front"] == came["picture/wrist"] == 0.0
    assert came["likelihood/front"] < 0.0
    other = scorer.update(look(1.2, seen=(0, 1, 3, 3, 0)))  # one code of the front camera is another
    assert other["picture/front"] > 0.0 == other["picture/wrist"]
    assert other["likelihood/front"] == pytest.approx(-np.log(0.01) - entropy(0.97, 3))
    assert other["likelihood/wrist"] < 0.0


def entropy(share: float, others: int) -> float:
    rest = (1.0 - share) / others
    return -share * np.log(share) - others * rest * np.log(rest)


def test_no_picture_is_judged_by_a_future_of_another_time(scorer):
    scorer.update(look(0.0))
    assert "picture/front" not in scorer.update(look(1.0))  # 0.2 s after what was foreseen
    assert "picture/front" not in scorer.update(look(0.3))  # the clock went back: a new attempt


def test_a_future_that_was_not_decoded_is_not_compared(scorer):
    scorer.update(look(0.0, future=(-1,) * 5))
    assert "picture/front" not in scorer.update(look(0.8))


@given(
    arrays(np.float64, (6, 4), elements=st.floats(-8, 8)),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_the_mean_excess_under_the_prediction_itself_is_nothing(logits, kept):
    """Observed codes that are drawn from the prediction surprise by nothing on average, whatever was kept of it."""
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    codes = np.argsort(-log_probs, axis=1)[:, :kept]
    top = np.take_along_axis(log_probs, codes, 1)
    rest = np.log((1.0 - np.exp(top).sum(1)).clip(1e-9) / max(4 - kept, 1))
    shares = np.where([[c in row for c in range(4)] for row in codes], np.exp(log_probs), np.exp(rest)[:, None])
    by_code = np.stack([excess(np.full(6, code), codes, top, rest) for code in range(4)], axis=1)
    np.testing.assert_allclose((shares * by_code).sum(axis=1), 0.0, atol=1e-6)


def test_chunks_that_contradict_each_other_disagree(scorer):
    scorer.update(look(0.0))
    same = scorer.update(look(0.4, start=(0.04, 0.0, 0.0)))
    assert same["disagreement"] == pytest.approx(0.0, abs=1e-12) and same["disagreement/gripper"] == 0.0
    back = scorer.update(look(0.8, start=(0.08, 0.0, 0.0), step=(-0.01, 0.0, 0.0), closed=np.ones(STEPS)))
    assert back["disagreement"] == pytest.approx(np.mean([0.02, 0.04, 0.06, 0.08]))
    assert back["disagreement/gripper"] == 1.0


def test_turning_back_and_forth_is_told_from_going_on(scorer):
    there_and_back = [(0.04 * (i % 2), 0.0, 0.0) for i in range(8)]
    straight = [(0.04 * i, 0.0, 0.0) for i in range(8)]
    told = {}
    for name, places in (("back", there_and_back), ("on", straight)):
        scorer.reset()
        for i, place in enumerate(places):
            step = (0.01, 0, 0) if name == "on" or i % 2 == 0 else (-0.01, 0, 0)
            told[name] = scorer.update(look(0.4 * i, start=place, step=step))
    assert told["on"]["reversals"] == 0.0 and told["on"]["stillness"] < 0.1
    assert told["back"]["reversals"] > 0.15 and told["back"]["stillness"] > 0.7


def test_an_arm_that_stands_still_is_still(scorer):
    for i in range(8):
        told = scorer.update(look(0.4 * i, step=(0.0, 0.0, 0.0)))
    assert told["stillness"] == 1.0 and told["reversals"] == 0.0


def test_hardest_is_a_mean_of_the_largest():
    assert hardest(np.array([4.0, 1.0, 3.0, 2.0]), 0.5) == 3.5
    assert hardest(np.array([1.0]), 0.1) == 1.0
