from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from motion.conftest import ROBOTS

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_files_load_and_start_inside_their_envelope(path):
    robot = RobotDescription.load(path)
    assert robot.name == path.stem
    assert (robot.limits.lower < robot.home).all() and (robot.home < robot.limits.upper).all()
    assert robot.workspace.depth(robot.kinematics.forward(robot.home)[None, :3, 3]).max() < -0.02
    assert robot.command_names == (*robot.joints, robot.gripper.joint)


def test_gripper_fraction_and_position_are_inverse_also_where_closed_is_the_smaller(panda, ur5e):
    for gripper in (panda.gripper, ur5e.gripper):
        assert gripper.position(0.0) == gripper.open and gripper.position(1.0) == gripper.closed
        np.testing.assert_allclose(gripper.fraction(gripper.position(np.array([0.0, 0.3, 1.0]))), [0.0, 0.3, 1.0])


def test_so101_is_the_arm_of_its_makers_export():
    """TCP positions by the chain of TheRobotStudio's so101_new_calib.urdf, base turned by 90 degrees about z."""
    forward = RobotDescription.load("so101").kinematics.forward
    for q, tcp in {
        (0.0, 0.0, 0.0, 0.0, 0.0): (0.3525, -0.0004, 0.2590),
        (0.5, 0.3, -0.4, 0.6, 1.0): (0.3143, -0.1796, 0.1871),
        (-1.0, -0.8, 0.9, 1.2, -0.7): (0.0719, 0.1208, 0.0842),
    }.items():
        np.testing.assert_allclose(forward(np.array(q))[:3, 3], tcp, atol=3e-4)


@pytest.mark.parametrize("name", ["ur5e", "panda", "so101"])
def test_real_arms_watch_for_dead_cameras_and_say_how_their_driver_starts(name):
    robot = RobotDescription.load(name)
    assert robot.observation["frozen_after"] > 0 and robot.observation["flat_below"] > 0
    assert robot.driver["start"] and robot.driver["joint_states_hz"] > 1.0 / robot.arbiter["joint_state_timeout"]
    assert all(camera["hz"] > 1.0 / robot.observation["max_age"] for camera in robot.cameras.values())


def edited(tmp_path, change) -> RobotDescription:
    data = yaml.safe_load((ROBOTS / "ur5e_sim.yaml").read_text())
    change(data)
    shutil.copy(ROBOTS / "ur5e_sim.urdf", tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    return RobotDescription.load(tmp_path / "mine.yaml")


def limits(**values):
    return lambda data: data["limits"].update(values)


def put(key, value):
    return lambda data: data.update({key: value})


CONTRADICTIONS = [
    ("limits.velocity", limits(velocity=[0.0] * 6)),
    ("limits.velocity needs 6 numbers", limits(velocity=[1.0, 2.0])),
    ("above the URDF", limits(velocity=4.0)),
    ("limits.acceleration is missing", lambda data: data["limits"].pop("acceleration")),
    ("needs .* rad to stop", limits(acceleration=0.5)),
    ("limits.jerk", limits(jerk=[-1.0] * 6)),
    ("limits.tcp_speed", limits(tcp_speed=0.0)),
    ("limits.position_margin", limits(position_margin=7.0)),
    ("limits.position_margin is -0.1; give a number of at least 0", limits(position_margin=-0.1)),
    ("goes beyond the URDF", limits(position={"lower": [-9.0] * 6, "upper": [9.0] * 6})),
    ("is not below upper", limits(position={"lower": [1.0] * 6, "upper": [-1.0] * 6})),
    ("limits.speed is not a key", limits(speed=1.0)),
    ("workspace.box", lambda data: data["workspace"].update(box=[[1, 1, 1], [0, 0, 0]])),
    ("covers the whole box", lambda data: data["workspace"].update(forbidden=[[[-9] * 3, [9] * 3]])),
    ("each box is two corners", lambda data: data["workspace"].update(box=[1, 2])),
    ("home puts the TCP", lambda data: data["workspace"].update(box=[[0.6, -0.1, 0.5], [0.8, 0.1, 0.7]])),
    ("home of elbow_joint", put("home", [0.0, -1.5, 4.0, 0.0, 0.0, 0.0])),
    ("joints: each joint", put("joints", ["elbow_joint"] * 6)),
    ("joints: elbow is not in", lambda data: data["joints"].__setitem__(2, "elbow")),
    ("tcp_frame: hand", put("tcp_frame", "hand")),
    ("base_frame: tool0 moves", put("base_frame", "tool0")),
    ("urdf: .* does not exist", put("urdf", "other.urdf")),
    ("urdf is missing", lambda data: data.pop("urdf")),
    ("controller.type", put("controller", {"type": "magic"})),
    ("gripper: open and closed", lambda data: data["gripper"].update(closed=0.0)),
    ("gripper.max_velocity", lambda data: data["gripper"].update(max_velocity=0)),
    ("gripper.type", lambda data: data["gripper"].update(type="magnet")),
    ("also one of the arm", lambda data: data["gripper"].update(joint="elbow_joint")),
    ("driver.rate is not a key", put("driver", {"rate": 5})),
    ("colour is not a key", put("colour", "blue")),
    ("arbiter.policy_timeout: '5e-1' is text to YAML.*write 0.5", put("arbiter", {"policy_timeout": "5e-1"})),
    ("arbiter.joint_state_timeout is nan", put("arbiter", {"joint_state_timeout": float("nan")})),
    ("arbiter.following_error is -0.2", put("arbiter", {"following_error": -0.2})),
    ("arbiter.lag is None", put("arbiter", {"lag": None})),
    ("arbiter.dry_run is 'false'; give true or false", put("arbiter", {"dry_run": "false"})),
    ("arbiter.polcy_timeout is not a key; did you mean policy_timeout", put("arbiter", {"polcy_timeout": 1.0})),
    ("observation.max_age is 0", put("observation", {"max_age": 0})),
    ("gripper.max_velocity: '14e-1' is text", lambda data: data["gripper"].update(max_velocity="14e-1")),
    ("controller is 'joint_trajectory_controller'; give a mapping", put("controller", "joint_trajectory_controller")),
    ("topics.jointstates is not a key; did you mean joint_states", put("topics", {"jointstates": "j"})),
    ("topics.command .* is no ROS name", put("topics", {"command": "a b"})),
    ("cameras.front.topik is not a key", put("cameras", {"front": {"topik": "front/image_raw"}})),
    ("cameras.front.topic is missing", put("cameras", {"front": {"encoding": "rgb8"}})),
    ("cameras.a.encoding yuv422 is not one of rgb8", put("cameras", {"a": {"topic": "a", "encoding": "yuv422"}})),
    ("two of them have one topic", put("cameras", {"a": {"topic": "c"}, "b": {"topic": "c"}})),
    ("a name under cameras is 'front camera'", put("cameras", {"front camera": {"topic": "c"}})),
]


@pytest.mark.parametrize(("message", "change"), CONTRADICTIONS, ids=[m for m, _ in CONTRADICTIONS])
def test_what_contradicts_itself_is_refused_in_one_line_that_names_it(tmp_path, message, change):
    with pytest.raises(ConfigError, match=message) as refusal:
        edited(tmp_path, change)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("mine.yaml: ")


def test_an_unedited_copy_loads(tmp_path):
    assert edited(tmp_path, lambda data: None).joints[0] == "shoulder_pan_joint"


URDFS = [
    ("shoulder_pan_joint is continuous.*make it revolute", 'type="revolute"', 'type="continuous"'),
    ("shoulder_pan_joint has no limit lower, upper, velocity", "<limit", "<no_limit"),
    ("shoulder_pan_joint has no limit velocity", 'velocity="', 'speed="'),
    ("is a xacro; make a URDF of it: xacro", "</robot>", '<x:y xmlns:x="http://www.ros.org/wiki/xacro"/></robot>'),
    ("begins with <mujoco>", "robot", "mujoco"),
    ("is not XML", "</robot>", ""),
]


@pytest.mark.parametrize(("message", "old", "new"), URDFS, ids=[m for m, *_ in URDFS])
def test_a_urdf_that_says_too_little_is_refused_with_the_mend(tmp_path, message, old, new):
    urdf = (ROBOTS / "ur5e_sim.urdf").read_text()
    assert old in urdf
    (tmp_path / "ur5e_sim.urdf").write_text(urdf.replace(old, new))
    shutil.copy(ROBOTS / "ur5e_sim.yaml", tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=message) as refusal:
        RobotDescription.load(tmp_path / "mine.yaml")
    assert "\n" not in str(refusal.value)


def test_a_key_that_stands_twice_and_a_file_that_is_not_utf8_are_refused(tmp_path):
    text = (ROBOTS / "ur5e_sim.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text + "\nhome: [0, 0, 0, 0, 0, 0]\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: line \d+: not valid YAML \(home stands twice\)"):
        RobotDescription.load(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_bytes(text.encode().replace(b"udvla_bringup sim", b"d\xe9mo"))
    with pytest.raises(ConfigError, match=r"line \d+ is not UTF-8"):
        RobotDescription.load(tmp_path / "mine.yaml")


def test_broken_yaml_and_a_missing_file_are_configuration_errors(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        RobotDescription.load(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        RobotDescription.load("no_such_robot")
