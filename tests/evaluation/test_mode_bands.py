"""Bands of modes: from changes to a picture."""

from __future__ import annotations

import pytest

from udvla_ros.evaluation.mode_bands import COLOURS, ModeChange, bands, picture, seconds_in, strip

CHANGES = [
    ModeChange(9.0, "HOLD", "reset"),
    ModeChange(10.0, "POLICY", "engaged"),
    ModeChange(12.0, "TELEOP", "took over"),
    ModeChange(13.5, "POLICY", "engaged"),
    ModeChange(15.0, "POLICY", "said again"),
    ModeChange(20.0, "STOPPED", "end"),
]


def test_bands_are_cut_to_the_episode_and_a_mode_said_twice_is_one():
    found = bands(CHANGES, 10.5, 18.0)
    assert [(b.mode, b.begin, b.end) for b in found] == [("POLICY", 0, 1.5), ("TELEOP", 1.5, 3.0), ("POLICY", 3.0, 7.5)]
    assert found[2].reason == "engaged" and seconds_in(found, "TELEOP") == pytest.approx(1.5)
    assert found[1].as_dict() == {"mode": "TELEOP", "from_s": 1.5, "to_s": 3.0, "reason": "took over"}
    assert bands([], 0.0, 1.0) == [] and bands(CHANGES, 10.0, 10.0) == []


def test_the_picture_shows_each_band_in_its_colour():
    found = bands(CHANGES, 10.5, 18.0)
    image = strip(found, 7.5, 600)
    for t, mode in ((0.2, "POLICY"), (2.2, "TELEOP"), (7.2, "POLICY")):
        assert tuple(image[1, round(t / 7.5 * 599)]) == COLOURS[mode]
    sheet = picture([("touch the red cube", found), ("lift it", found[:1])])
    assert sheet.shape[1] > 600 and sheet.shape[0] > 120
    with pytest.raises(ValueError, match="at least one"):
        picture([])
