"""Which images the policy may look at, and what it is told otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.policy.observe import CommandHistory, Guards, ObservationBuffer, ObservationRefused

GREY = np.full((4, 6, 3), 90, np.uint8)


def picture(k: int = 0) -> np.ndarray:
    return np.full((4, 6, 3), 50 + k % 200, np.uint8)


def kind_of(buffer: ObservationBuffer, now: float) -> str:
    with pytest.raises(ObservationRefused) as error:
        buffer.take(now)
    assert "\n" not in str(error.value)
    return error.value.kind


@given(
    st.lists(st.floats(0.03, 0.2), min_size=1, max_size=20),
    st.lists(st.floats(-0.04, 0.04), min_size=20, max_size=20),
    st.integers(1, 20),
)
def test_hands_out_the_newest_images_that_belong_together(steps, skews, behind):
    buffer = ObservationBuffer(["front", "wrist"], Guards(max_age=100.0, max_skew=0.09))
    front = 10.0 + np.cumsum(steps)
    wrist = front[: max(1, len(front) - behind % 3)] + np.array(skews)[: max(1, len(front) - behind % 3)]
    for k, t in enumerate(front):
        buffer.add("front", picture(k), float(t))
    for k, t in enumerate(wrist):
        buffer.add("wrist", picture(k), float(t))
    try:
        frames = buffer.take(float(front[-1]) + 0.2)
    except ObservationRefused as error:
        assert error.kind == "skew"
        return
    times = {"front": front, "wrist": wrist}
    chosen = {}
    for name, image in frames.images.items():
        chosen[name] = times[name][int(image[0, 0, 0]) - 50]
    assert max(chosen.values()) - min(chosen.values()) <= 0.09
    assert frames.stamp == pytest.approx(min(chosen.values()))
    assert frames.skew == pytest.approx(max(chosen.values()) - min(chosen.values()))


def test_nothing_is_filled_in_for_a_camera_that_never_came():
    buffer = ObservationBuffer(["front", "wrist"])
    buffer.add("front", GREY, 1.0)
    assert buffer.newest() is None
    assert kind_of(buffer, 1.0) == "missing"


@pytest.mark.parametrize(("stamp", "kind"), [(9.4, "stale"), (10.2, "future"), (float("nan"), "stale")])
def test_stamps_that_are_not_now(stamp, kind):
    buffer = ObservationBuffer(["front"], Guards(max_age=0.5, max_skew=0.1))
    buffer.add("front", GREY, stamp)
    assert kind_of(buffer, 10.0) == kind


def test_cameras_out_of_step():
    buffer = ObservationBuffer(["front", "wrist"], Guards(max_age=1.0, max_skew=0.05))
    buffer.add("front", GREY, 10.0)
    buffer.add("wrist", GREY, 10.06)
    assert kind_of(buffer, 10.1) == "skew"
    buffer.add("front", picture(1), 10.05)
    assert buffer.take(10.1).stamp == 10.05


def test_frozen_camera_is_noticed_only_where_it_is_asked_for():
    buffer = ObservationBuffer(["front"], Guards(frozen_after=1.0))
    off = ObservationBuffer(["front"], Guards())
    for k in range(15):
        for each in (buffer, off):
            each.add("front", GREY, 10.0 + 0.1 * k)
    assert kind_of(buffer, 11.4) == "frozen"
    off.take(11.4)
    buffer.add("front", picture(1), 11.5)
    buffer.take(11.5)


def test_black_picture():
    buffer = ObservationBuffer(["front"], Guards(dark_below=2.0))
    buffer.add("front", np.zeros((4, 4, 3), np.uint8), 1.0)
    assert kind_of(buffer, 1.0) == "dark"


def test_washed_out_and_featureless_pictures():
    white = ObservationBuffer(["front"])
    white.add("front", np.full((4, 4, 3), 255, np.uint8), 1.0)
    assert kind_of(white, 1.0) == "bright"
    covered = ObservationBuffer(["front"], Guards(flat_below=2.0))
    covered.add("front", np.full((4, 4, 3), 90, np.uint8), 1.0)
    assert kind_of(covered, 1.0) == "flat"
    covered.add("front", np.random.default_rng(0).integers(80, 100, (4, 4, 3), dtype=np.uint8), 1.1)
    covered.take(1.1)


def test_guards_at_zero_are_off():
    buffer = ObservationBuffer(["front"], Guards(dark_below=0.0, bright_above=0.0, flat_below=0.0))
    for k, level in enumerate((0, 255, 90)):
        buffer.add("front", np.full((4, 4, 3), level, np.uint8), 1.0 + 0.1 * k)
        buffer.take(1.0 + 0.1 * k)


def test_images_without_a_time_are_refused_with_the_mend():
    buffer = ObservationBuffer(["front"])
    buffer.add("front", GREY, 0.0)
    with pytest.raises(ObservationRefused, match=r"header.stamp") as error:
        buffer.take(100.0)
    assert error.value.kind == "unstamped"


def test_a_camera_that_repeats_one_message_goes_stale():
    buffer = ObservationBuffer(["front"], Guards(max_age=0.3))
    for _ in range(20):
        buffer.add("front", GREY, 10.0)
    buffer.take(10.2)
    assert kind_of(buffer, 10.4) == "stale"


def test_one_camera_frozen_or_gone_stops_all_and_is_named():
    guards = Guards(max_age=0.5, frozen_after=1.0)
    buffer = ObservationBuffer(["front", "wrist"], guards)
    for k in range(15):
        buffer.add("front", picture(k), 10.0 + 0.1 * k)
        buffer.add("wrist", GREY, 10.0 + 0.1 * k)
    with pytest.raises(ObservationRefused, match=r"'wrist'.*very same picture"):
        buffer.take(11.4)
    for k in range(15, 25):
        buffer.add("front", picture(k), 10.0 + 0.1 * k)
    with pytest.raises(ObservationRefused, match=r"'wrist' is 1.00 s old"):
        buffer.take(12.4)


def test_a_clock_that_jumps_ahead_and_back_is_refused_meanwhile_and_recovers():
    buffer = ObservationBuffer(["front"])
    buffer.add("front", picture(1), 10.0)
    buffer.add("front", picture(2), 500.0)
    assert kind_of(buffer, 10.1) == "future"
    buffer.add("front", picture(3), 10.2)
    assert buffer.take(10.2).stamp == 10.2


def test_unreadable_camera_is_told_until_a_good_image_comes():
    buffer = ObservationBuffer(["front"])
    buffer.add("front", GREY, 1.0)
    buffer.spoil("front", "front/image_raw: encoding 'yuv' is not supported")
    with pytest.raises(ObservationRefused, match="yuv"):
        buffer.take(1.0)
    buffer.add("front", GREY, 1.1)
    buffer.take(1.1)


def test_late_images_are_dropped_and_a_clock_that_went_back_starts_anew():
    buffer = ObservationBuffer(["front"], Guards(max_age=10.0))
    buffer.add("front", picture(1), 100.0)
    buffer.add("front", picture(2), 99.9)
    assert buffer.newest() == 100.0
    buffer.add("front", picture(3), 50.0)
    assert buffer.newest() == 50.0
    assert buffer.take(50.0).images["front"][0, 0, 0] == 53


def history(*times: float) -> CommandHistory:
    made = CommandHistory(2)
    for t in times:
        made.add(t, np.array([t, -t]))
    return made


@given(st.floats(10.0, 10.19))
def test_commanded_joints_are_linear_between_samples(t):
    made = history(*np.arange(10.0, 10.2, 0.01))
    np.testing.assert_allclose(made.at(t), [t, -t], atol=1e-9)


@pytest.mark.parametrize(
    ("times", "at"), [((), 10.0), ((10.0, 10.1), 9.9), ((10.0, 10.1), 10.4), ((10.0, 10.5), 10.2)]
)
def test_commanded_joints_that_are_not_known_are_refused(times, at):
    with pytest.raises(ObservationRefused) as error:
        history(*times).at(at)
    assert error.value.kind == "command"


def test_history_forgets_what_is_old_and_what_a_clock_jump_made_wrong():
    made = history(*np.arange(10.0, 14.0, 0.1))
    with pytest.raises(ObservationRefused):
        made.at(11.0)
    made.add(5.0, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(made.at(5.0), [1.0, 2.0])
    with pytest.raises(ValueError, match="2 joints"):
        made.add(5.1, np.zeros(3))
