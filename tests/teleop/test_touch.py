"""A touch counts once, and no longer than the arbiter and the hands agree."""

from __future__ import annotations

import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.teleop.script import GRIPPER_TIME, Script
from udvla_ros.teleop.touch import ENGAGING, SETTLING, Phase, Touch


def test_a_touch_drives_and_letting_go_sends_one_rest():
    touch = Touch()
    assert touch.update(False, "HOLD", 0.0) is Phase.IDLE
    assert touch.update(True, "HOLD", 0.1) is Phase.DRIVES, "it must not wait for the mode it asks for"
    for k in range(100):
        assert touch.update(True, "TELEOP", 0.2 + 0.1 * k) is Phase.DRIVES
    assert touch.update(False, "TELEOP", 20.0) is Phase.RELEASED
    assert touch.update(False, "TELEOP", 20.01) is Phase.IDLE
    assert touch.update(True, "TELEOP", 20.1) is Phase.DRIVES


@pytest.mark.parametrize("taken", ["HOLD", "POLICY", "STOPPED"])
def test_an_arm_that_is_taken_away_is_not_pulled_back_until_the_hands_let_go(taken):
    touch = Touch()
    touch.update(True, "POLICY", 0.0)
    touch.update(True, "TELEOP", SETTLING + 0.01)
    assert touch.update(True, taken, 1.0) is Phase.SPENT and taken in touch.reason
    assert touch.update(True, taken, 9.0) is Phase.SPENT
    assert touch.update(False, taken, 9.1) is Phase.IDLE and not touch.reason
    again = touch.update(True, taken, 9.2)
    assert again is (Phase.SPENT if taken == "STOPPED" else Phase.DRIVES)


def test_a_mode_still_on_its_way_does_not_spend_a_touch():
    touch = Touch()
    touch.update(True, "TELEOP", 0.0)  # of the last touch, about to time out
    assert touch.update(True, "HOLD", 0.05) is Phase.DRIVES
    assert touch.update(True, "TELEOP", 0.1) is Phase.DRIVES


def test_a_touch_that_the_arbiter_refuses_ends():
    touch = Touch()
    touch.update(True, "HOLD", 0.0)
    assert touch.update(True, "HOLD", ENGAGING) is Phase.DRIVES
    assert touch.update(True, "HOLD", ENGAGING + 0.01) is Phase.SPENT


def test_what_is_asked_for_ends_a_touch_at_once():
    touch = Touch()
    touch.spend("nothing is touched")
    assert touch.phase is Phase.IDLE and not touch.reason
    touch.update(True, "TELEOP", 0.0)
    touch.spend("hold was asked for")
    assert touch.update(True, "TELEOP", 0.01) is Phase.SPENT and touch.reason == "hold was asked for"


def test_the_builtin_script_takes_over_and_hands_back():
    script = Script.load("builtin")
    kinds = ["back" if s.hand_back else "hands" if s.wish is not None else "off" for s in script.steps]
    assert kinds[0] == "off" and kinds[-1] == "back" and "hands" in kinds
    assert 0 < script.away < script.seconds
    assert script.at(0.0) is script.steps[0] and script.at(script.seconds) is None


def test_steps_follow_each_other(tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text("steps:\n - wait: 1\n - {jog: {x: 0.1, yaw: -0.2}, for: 0.5}\n - gripper: close\n - hand_back\n")
    wait, jog, close, back = Script.load(str(path)).steps
    assert (wait.begin, wait.end, wait.wish) == (0.0, 1.0, None)
    assert (jog.begin, jog.end) == (1.0, 1.5) and jog.wish.twist.tolist() == [0.1, 0, 0, 0, 0, -0.2]
    assert close.wish.gripper == 1.0 and close.end == pytest.approx(1.5 + GRIPPER_TIME)
    assert back.hand_back and back.wish is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []", "give 'steps'"),
        ("moves: [wait]", "give 'steps'"),
        ("steps: [dance]", "step 1 is 'dance'"),
        ("steps: [{wait: -1}]", "above 0"),
        ("steps: [{wait: true}]", "not a number"),
        ("steps: [{jog: {up: 1}, for: 1}]", "jog gives"),
        ("steps: [{jog: {x: 1}}]", "None is not a number"),
        ("steps: [{gripper: half}]", "open or close"),
        ("steps: [{wait: 1, rest: 1}]", "step 1 is"),
    ],
)
def test_a_bad_script_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Script.load(str(path))
