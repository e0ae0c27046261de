"""Keys, pads and leader arms: what counts as a touch, what is wished, and what lets go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros import resources
from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.teleop.actions import ACTIONS, SERVICES
from udvla_ros.teleop.deadman import Deadman
from udvla_ros.teleop.gamepad import Gamepad, Mapping
from udvla_ros.teleop.jog import Jogger, Speeds
from udvla_ros.teleop.keyboard import DEADMAN, HELP, JOINTS, KEYS, TWISTS, Decoder, Keyboard
from udvla_ros.teleop.leader import Leader
from udvla_ros.teleop.status import Status, recorder_line

ROBOT = RobotDescription.load("ur5e_sim")
SPEEDS = Speeds(0.2, 0.8, 0.5)


# -- keyboard ----------------------------------------------------------------------------------------------
def keyboard() -> Keyboard:
    return Keyboard(6, SPEEDS, timeout=0.25)


@pytest.mark.parametrize("key", TWISTS)
def test_a_key_moves_its_axis_for_a_moment_and_repeating_it_goes_on(key):
    keys, (axis, sign) = keyboard(), TWISTS[key]
    assert not keys.held(0.0) and not keys.wish(0.0, 1.0, "base").moves
    keys.feed(key.encode(), 1.0)
    wish = keys.wish(1.1, 0.5, "tcp")
    expected = np.zeros(6)
    expected[axis] = sign * 0.5 * (0.2 if axis < 3 else 0.8)
    np.testing.assert_allclose(wish.twist, expected)
    assert wish.frame == "tcp" and keys.held(1.24) and not keys.held(1.25)
    for k in range(20):
        keys.feed(key.upper().encode(), 1.2 + 0.033 * k)
        assert keys.held(1.2 + 0.033 * k)
    assert not keys.held(1.2 + 0.033 * 19 + 0.26)


def test_numbers_choose_a_joint_and_arrows_move_it():
    keys = keyboard()
    keys.feed(b"3", 0.0)
    assert not keys.held(0.0)
    keys.feed(b"\x1b[D", 0.0)
    np.testing.assert_allclose(keys.wish(0.0, 0.5, "base").joints, [0, 0, -0.25, 0, 0, 0])
    keys.feed(b"7", 0.0)  # the arm has six
    assert keys.chosen == 2


def test_keys_have_one_meaning_each_and_the_help_names_them():
    used = [*TWISTS, *JOINTS, *KEYS, DEADMAN, *"123456789"]
    assert len(used) == len(set(used))
    assert set(KEYS.values()) <= set(ACTIONS)
    assert {"engage_policy", "hold", "stop", "reset", "episode_start", "episode_success", "episode_failure"} <= set(
        KEYS.values()
    )
    words = HELP.split()
    assert all(key in words for key in [*TWISTS, *(k for k in KEYS if k.isalpha() and len(k) == 1)])


@given(st.binary(max_size=60), st.integers(0, 59))
def test_bytes_of_any_kind_break_nothing_and_may_come_in_pieces(data, cut):
    whole = Decoder()
    keys = whole.feed(data)
    assert all(len(key) >= 1 for key in keys)
    pieces = Decoder()
    split = pieces.feed(data[:cut]) + pieces.feed(data[cut:])
    if data.isascii():
        assert split == keys or b"\x1b" in data


def test_an_arrow_cut_in_two_is_one_arrow():
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == [] and decoder.feed(b"[") == [] and decoder.feed(b"C") == ["right"]
    assert decoder.feed(b"\x1b[3~w\x1b[1;5Aq") == ["delete", "w", "q"]  # Ctrl-Up is no key of ours


def test_the_deadman_key_survives_the_pause_before_a_terminal_repeats():
    keys = keyboard()
    keys.feed(b"m", 0.0)
    assert keys.deadman(0.6)
    keys.feed(b"m", 0.66)
    assert keys.deadman(0.9) and not keys.deadman(0.92)
    keys.feed(b"m", 2.0)
    keys.distrust()
    keys.feed(b"m", 2.1)
    assert not keys.deadman(2.1), "it has not been let go"
    keys.feed(b"m", 5.0)
    assert keys.deadman(5.0)


# -- deadman and pad ---------------------------------------------------------------------------------------
def test_a_switch_that_comes_pressed_was_not_pressed():
    switch = Deadman(0.3)
    assert not switch.held(0.0)
    switch.feed(True, 0.0)
    assert not switch.held(0.0)
    switch.feed(False, 0.1)
    switch.feed(True, 0.2)
    assert switch.held(0.2) and switch.held(0.49) and not switch.held(0.51)
    switch.feed(True, 1.0)  # it was away, and comes back pressed
    assert not switch.held(1.0)


@pytest.mark.parametrize("name", ["xbox", "game_controller"])
def test_the_shipped_mappings_load_and_name_what_matters(name):
    mapping = Mapping.load(resources.find(f"config/teleop/{name}.yaml"))
    assert {"x", "y", "z", "yaw"} <= set(mapping.axes)
    assert {"gripper", "hold", "stop", "reset", "engage_policy"} <= set(mapping.buttons)


def pad() -> Gamepad:
    return Gamepad(Mapping(4, 0.1, {"x": (1, 1.0), "yaw": (3, -1.0)}, {"hold": 1, "engage_policy": 7}), SPEEDS)


def pressed(*which: int) -> list[int]:
    return [int(k in which) for k in range(11)]


def test_sticks_move_the_arm_only_while_the_button_is_held():
    device, axes = pad(), [0.0, 1.0, 0.0, 0.55, 0.0, 0.0, 0.0, 0.0]
    device.feed(axes, pressed(), 0.0)
    assert not device.held(0.0) and not device.wish(0.0, 1.0, "base").moves
    device.feed(axes, pressed(4), 0.05)
    np.testing.assert_allclose(device.wish(0.05, 0.5, "base").twist, [0.1, 0, 0, 0, 0, -0.2])
    device.feed([0.05] * 8, pressed(4), 0.1)
    assert device.held(0.1) and not device.wish(0.1, 1.0, "base").moves, "centred sticks hold the arm still"
    assert not device.held(0.45), "an unplugged pad has let go"
    device.feed(axes, pressed(4), 1.0)
    assert not device.held(1.0), "it came back held"


def test_a_button_acts_once_when_it_goes_down():
    device, axes = pad(), [0.0] * 8
    assert device.feed(axes, pressed(1), 0.0) == []  # held when it came
    assert device.feed(axes, pressed(), 0.1) == []
    assert device.feed(axes, pressed(1, 7), 0.2) == ["hold", "engage_policy"]
    assert device.feed(axes, pressed(1, 7), 0.3) == []


def test_a_pad_of_another_shape_is_named_and_moves_nothing():
    device = pad()
    device.feed([0.0] * 8, pressed(), 0.0)
    device.feed([1.0, 1.0], [1, 1, 1, 1, 1], 0.1)
    assert "another mapping" in device.fault and not device.held(0.1)
    device.feed([float("nan")] * 8, pressed(4), 0.2)
    assert "not finite" in device.fault and not device.held(0.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deadman: 4", "give deadman and axes"),
        ("deadman: x\naxes: {x: 1}", "deadman is 'x'"),
        ("deadman: 4\naxes: {up: 1}", "up is not one of"),
        ("deadman: 4\naxes: {x: {index: 1, sign: 3}}", "sign"),
        ("deadman: 4\naxes: {x: 1}\nbuttons: {jump: 1}", "jump is not one of"),
        ("deadman: 4\naxes: {x: 1}\nbuttons: {hold: 4}", "two meanings"),
        ("deadman: 4\naxes: {x: 1}\ndeadzone: 1.0", "deadzone"),
        ("- 1", "give deadman and axes"),
    ],
)
def test_a_bad_mapping_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "pad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Mapping.load(path)


# -- leader ------------------------------------------------------------------------------------------------
def leader(scale=1.0, gripper=None) -> Leader:
    names = {name: f"leader_{name}" for name in ROBOT.joints}
    return Leader(ROBOT, names, np.full(6, scale), gripper)


def say(device: Leader, q, now: float, **more: float) -> None:
    at = {f"leader_{name}": value for name, value in zip(ROBOT.joints, q, strict=True)} | more
    shuffled = dict(reversed(list(at.items())))
    device.feed(list(shuffled), list(shuffled.values()), now)


angle = st.floats(-3.0, 3.0)


@given(
    where=st.lists(angle, min_size=6, max_size=6), share=st.lists(st.floats(0.05, 0.95), min_size=6, max_size=6),
    scale=st.floats(-2.0, 2.0).filter(lambda s: abs(s) > 0.1),
)  # fmt: skip
def test_engaging_starts_at_exactly_the_command_wherever_the_leader_is(where, share, scale):
    command = ROBOT.limits.lower + np.array(share) * (ROBOT.limits.upper - ROBOT.limits.lower)
    device = leader(scale)
    say(device, where, 0.0)
    device.engage(command)
    wish = device.wish(0.0, 0.0)
    assert (wish.goal == command).all() and not wish.goal_velocity.any()
    motion = Jogger(ROBOT).motion(command, np.zeros(6), wish)
    np.testing.assert_allclose(motion.q, np.tile(command, (len(motion.q), 1)), atol=1e-12)


@given(st.lists(st.lists(st.floats(-0.25, 0.25), min_size=6, max_size=6), max_size=20), st.floats(-3.0, 3.0))
def test_the_goal_moves_with_the_leader_and_never_beyond_the_bounds(steps, scale):
    device, q = leader(scale if abs(scale) > 0.1 else 1.0), np.zeros(6)
    say(device, q, 0.0)
    device.engage(ROBOT.home)
    for k, step in enumerate(steps, 1):
        q = q + np.array(step)
        say(device, q, 0.02 * k)
        goal = device.wish(0.02 * k, 0.0).goal
        asked = ROBOT.home + device.scale * q
        np.testing.assert_allclose(goal, np.clip(asked, ROBOT.limits.lower, ROBOT.limits.upper))


def test_a_leader_that_jumps_goes_silent_or_lacks_a_joint_lets_go():
    device = leader()
    say(device, np.zeros(6), 0.0)
    device.engage(ROBOT.home)
    say(device, np.full(6, 0.5), 0.02)
    assert "jumped by 0.50 rad" in device.fault and not device.engaged and not device.ready(0.02)
    device.recover()
    say(device, np.full(6, 0.5), 0.04)
    assert device.ready(0.04) and not device.ready(0.3)
    device.feed(["leader_elbow_joint"], [0.0], 0.31)
    assert "does not say where leader_shoulder_pan_joint" in device.fault
    device.recover()
    say(device, [np.nan] * 6, 0.32)
    assert "not finite" in device.fault


@pytest.mark.parametrize("pose", [[12.0, -90.0, 85.0, -88.0, -90.0, 0.0], [-3.0, 100.0, -62.0, 41.0, 7.0, 99.0]])
def test_a_leader_in_other_units_is_refused_with_the_mend_and_works_with_it(pose):
    device = leader()
    say(device, pose, 0.0)
    assert "more than a turn: joint states are in rad" in device.fault and "scale: 0.01745" in device.fault
    assert not device.ready(0.0), "the arm never follows it"
    device = leader(scale=0.01745)
    say(device, pose, 0.0)
    device.engage(ROBOT.home)
    say(device, np.add(pose, 5.0), 0.02)  # degrees: no jump
    assert not device.fault
    np.testing.assert_allclose(device.wish(0.02, 0.0).goal, ROBOT.home + np.deg2rad(5.0), atol=1e-4)
    say(device, np.add(pose, 25.0), 0.04)
    assert "jumped by 0.35 rad" in device.fault


def test_the_gripper_counts_once_the_leaders_has_come_to_it():
    device = leader(gripper=("hand", 0.0, 2.0))
    say(device, np.zeros(6), 0.0, hand=0.0)
    device.engage(ROBOT.home)
    assert device.wish(0.0, 1.0).gripper is None, "it would drop what is held"
    say(device, np.zeros(6), 0.02, hand=1.9)
    assert device.wish(0.02, 1.0).gripper == pytest.approx(0.95)
    say(device, np.zeros(6), 0.04, hand=0.5)
    assert device.wish(0.04, 1.0).gripper == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scale: 0.0", "not 0"),
        ("scale: [1, 2]", "scale is a number or one per joint"),
        ("joints: {elbow_joint: j1}", "no joint of the leader moves shoulder_pan_joint"),
        ("gripper: {joint: hand}", "joint, open and closed"),
        ("gripper: {joint: hand, open: 1, closed: 1}", "two different"),
        ("speed: 3", "known keys"),
    ],
)
def test_a_bad_leader_file_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "leader.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Leader.load(path, ROBOT)


def test_the_shipped_leader_file_is_the_robots_own_names():
    device = Leader.load(resources.find("config/teleop/leader.yaml"), ROBOT)
    device.feed(list(ROBOT.joints), list(ROBOT.home), 0.0)
    assert device.ready(0.0)


# -- the line ----------------------------------------------------------------------------------------------
def test_the_status_line_tells_mode_reason_speed_and_recorder():
    line = Status("TELEOP", "teleop took over", "base axes", 0.4, "RECORDING 3 s", "gripper closes").line()
    assert line == "TELEOP (teleop took over)  base axes  speed 40%  rec RECORDING 3 s  | gripper closes"
    assert Status().line().startswith("no arbiter heard") and "rec -" in Status().line()


def test_the_recorders_status_in_a_few_words():
    assert recorder_line('{"state": "IDLE", "error": ""}') == "IDLE"
    assert recorder_line('{"state": "RECORDING", "seconds": 2.6, "dropped": 4}') == "RECORDING 3 s DROPPED 4"
    assert recorder_line('{"state": "IDLE", "error": "disk full"}') == "IDLE disk full"
    assert recorder_line("nonsense") == "?" and recorder_line("[]") == "?"


def test_every_service_belongs_to_a_node_of_the_graph():
    assert {service.split("/")[0] for service, _ in SERVICES.values()} == {"arbiter_node", "recorder_node"}
