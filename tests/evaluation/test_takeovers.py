"""The numbers of a takeover: what following, smoothness and failure mean."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.takeovers import (
    ALLOWED_MS,
    Takeover,
    departure,
    draw,
    first_beyond,
    strain,
    summarise,
    table,
)

LIMITS = RobotDescription.load("ur5e_sim").limits


def plan(rate: float = 0.5):
    """A plan whose velocity rises: going along with it is not following anybody."""
    times = np.array([0.0, 0.5, 1.0])
    qd = np.zeros((3, 6))
    qd[:, 0] = rate * times
    qdd = np.zeros((3, 6))
    qdd[:, 0] = rate
    return times, qd, qdd


def test_going_on_with_the_plan_is_not_following():
    times = np.linspace(0.0, 0.6, 61)
    qd = np.zeros((61, 6))
    qd[:, 0] = 0.5 * times
    asked = np.array([0.5, 0.4, 0, 0, 0, 0])
    share = departure(times, qd, plan(), asked)
    np.testing.assert_allclose(share, 0.0, atol=1e-9)
    assert first_beyond(times, share, 0.0, 0.05) is None


def test_the_first_sample_on_the_way_to_what_was_asked_counts():
    times = np.linspace(0.0, 0.6, 61)
    old = np.zeros((61, 6))
    old[:, 0] = 0.5 * times
    asked = np.array([-0.2, 0.4, 0, 0, 0, 0])
    ramp = np.clip((times - 0.2) / 0.1, 0.0, 1.0)[:, None]
    share = departure(times, old + ramp * (asked - old), plan(), asked)
    np.testing.assert_allclose(share, ramp[:, 0], atol=1e-9)
    assert first_beyond(times, share, 0.15, 0.02) == pytest.approx(60.0)  # 0.21 s is 10% of the way
    assert first_beyond(times, share, 0.355, 0.02) == pytest.approx(5.0), "only what comes after counts"


def test_where_both_want_the_same_nothing_can_be_told():
    times = np.linspace(0.0, 0.1, 11)
    share = departure(times, np.zeros((11, 6)), plan(0.0), np.full(6, 0.01))
    assert np.isnan(share).all() and first_beyond(times, share, 0.0, 0.05) is None


def test_a_motion_within_the_limits_shows_no_strain_however_it_is_sampled():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0.0, 2.0, 300))
    amplitude, rate = 0.5 * LIMITS.velocity, 3.0
    found = strain(times, amplitude * np.sin(rate * times)[:, None], LIMITS)
    assert found["velocity"] == pytest.approx(0.5, rel=0.01)
    assert found["acceleration"] <= (amplitude * rate / LIMITS.acceleration).max() * 1.001
    assert found["jerk"] <= (amplitude * rate**2 / LIMITS.jerk).max() * 1.01


def test_a_step_of_the_velocity_is_far_beyond():
    times = 0.01 * np.arange(20)
    qd = np.zeros((20, 6))
    qd[10:, 2] = 0.5
    found = strain(times, qd, LIMITS)
    assert found["acceleration"] > 2 and found["jerk"] > 1.5


def good(follow: float = 20.0) -> Takeover:
    return Takeover(follow, 80.0, ([0.0, 50.0], [0.0, 1.0]), {"touch": {"velocity": 0.5, "jerk": 0.9}}, 0.51)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"follow_ms": None}, "1 touches were not followed"),
        ({"follow_ms": ALLOWED_MS + 30}, "50 ms are allowed"),
        ({"silence_s": 0.7}, "HOLD came 0.70 s"),
        ({"strain": {"touch": {"jerk": 1.3}}}, "jerk 1.30 of its limit at touch"),
        ({"faults": ["after HOLD the mode became POLICY by itself"]}, "POLICY by itself"),
    ],
)
def test_each_thing_that_must_not_be_fails_the_whole(spoil, said):
    fine = summarise([good() for _ in range(10)], 0.5, 0)
    assert fine["passed"] and fine["takeovers"] == 10 and fine["follow_ms"]["p99"] == 20.0
    bad = good()
    for name, value in spoil.items():
        setattr(bad, name, value)
    report = summarise([*(good() for _ in range(10)), bad], 0.5, 0)
    assert not report["passed"] and any(said in failure for failure in report["failures"])
    assert f"FAILED: {report['failures'][0]}" in table(report)


def test_violations_at_the_controller_fail_it_too_and_deaths_are_told_apart(tmp_path):
    dead = Takeover(died=True, silence_s=0.52, strain={"death": {"velocity": 0.2}})
    report = summarise([good(), dead], 0.5, 3)
    assert report["takeovers"] == 1 and report["deaths"]["count"] == 1 and not report["not_followed"]
    assert report["failures"] == ["3 limit violations at the controller"]
    assert draw([good(), dead], tmp_path / "picture.png").stat().st_size > 5000
