"""A robot file from a URDF: it loads, holds the arm's joints, and says what is left to look at."""

from __future__ import annotations

import pytest

from udvla_ros import resources
from udvla_ros.cli.main import main
from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.robots.arm_of import arm_of
from udvla_ros.robots.check import look_over
from udvla_ros.robots.new import Seen, write_robot_file

LINK = '<link name="{0}"/>'
JOINT = (
    '<joint name="{0}" type="{1}"><parent link="{2}"/><child link="{3}"/><origin xyz="0 0 0.15"/><axis xyz="{4}"/>'
    "{5}</joint>"
)
LIMIT = '<limit lower="-2.9" upper="2.9" velocity="3.14" effort="10"/>'


def xarm(joints: int = 6, kind: str = "revolute", limit: str = LIMIT, gripper: str = "drive_joint") -> bytes:
    """A URDF like those of xArm: link_base to link_eef and a gripper whose knuckles mimic one driven joint."""
    links = ["world", "link_base", *(f"link{k}" for k in range(1, joints + 1)), "link_eef", "finger", "finger2"]
    parts = [JOINT.format("world_joint", "fixed", "world", "link_base", "0 0 1", "")]
    for k in range(1, joints + 1):
        parent = "link_base" if k == 1 else f"link{k - 1}"
        axis = "0 0 1" if k % 2 else "0 1 0"
        parts.append(JOINT.format(f"joint{k}", kind, parent, f"link{k}", axis, limit))
    parts.append(JOINT.format("eef_joint", "fixed", f"link{joints}", "link_eef", "0 0 1", ""))
    if gripper:
        closing = '<limit lower="0" upper="0.85" velocity="2" effort="1"/>'
        parts.append(JOINT.format(gripper, "revolute", "link_eef", "finger", "1 0 0", closing))
        mimic = f'{closing}<mimic joint="{gripper}"/>'
        parts.append(JOINT.format("left_finger_joint", "revolute", "finger", "finger2", "1 0 0", mimic))
    body = "".join(LINK.format(name) for name in links) + "".join(parts)
    return f'<robot name="xarm">{body}</robot>'.encode()


@pytest.mark.parametrize("joints", [5, 6, 7])
def test_an_arm_nobody_has_shipped(tmp_path, joints):
    seen = Seen(
        xarm(joints), "xarm/joint_states", {f"joint{k}": 0.1 * k for k in range(1, joints + 1)},
        {"left_eye": "camera/color/image_raw"}, ["xarm_traj_controller/joint_trajectory"],
    )  # fmt: skip
    robot = write_robot_file(tmp_path / "mine.yaml", seen)
    assert robot.joints == tuple(f"joint{k}" for k in range(1, joints + 1)) and robot.tcp_frame == "link_eef"
    assert robot.gripper.joint == "drive_joint" and list(robot.cameras) == ["left_eye"]
    assert robot.topics["command"] == "xarm_traj_controller/joint_trajectory"
    assert robot.home.tolist() == pytest.approx([0.1 * k for k in range(1, joints + 1)])
    levels = {level for level, _ in look_over(robot)}
    assert "fail" not in levels and "warn" in levels, "lines marked LOOK are told"


@pytest.mark.parametrize("name", ["ur5e", "panda", "so101"])
def test_the_shipped_arms_are_found_again(tmp_path, name):
    shipped = RobotDescription.load(name)
    robot = write_robot_file(tmp_path / "mine.yaml", Seen(shipped.kinematics.urdf.read_bytes()))
    assert (robot.joints, robot.tcp_frame) == (shipped.joints, shipped.tcp_frame)


def test_joints_that_turn_for_ever_get_a_range(tmp_path):
    robot = write_robot_file(tmp_path / "mine.yaml", Seen(xarm(kind="continuous", limit="")))
    assert (robot.limits.hard_upper == 3.1).all()


@pytest.mark.parametrize(
    ("urdf", "said"),
    [
        (b"<robot", "is not XML"), (b"<sdf/>", "begins with <sdf>"),
        (b'<robot xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:arm/></robot>', "is a xacro"),
        (xarm(0, gripper=""), "no joint of the URDF turns"),
    ],
)  # fmt: skip
def test_what_is_no_arm_is_one_line(tmp_path, urdf, said):
    with pytest.raises(ConfigError, match=said) as error:
        write_robot_file(tmp_path / "mine.yaml", Seen(urdf))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir()), "nothing half-made is left"


def test_a_link_that_is_not_there():
    with pytest.raises(ConfigError, match="--tcp hand is no link"):
        arm_of(xarm(), tcp="hand")


def test_the_command(tmp_path, capsys):
    urdf = resources.find("config/robots/so101.urdf")
    made = tmp_path / "mine.yaml"
    assert main(["robot", "new", str(made), "--urdf", str(urdf), "--camera", "side=side/image_raw"]) == 0
    assert "LOOK" in capsys.readouterr().out
    assert main(["robot", "new", str(made), "--urdf", str(urdf)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["robot", "check", str(made)]) == 0
    assert main(["robot", "check", str(made), "--bundle", "models/udvla-nano-ur5e"]) == 1
    told = capsys.readouterr().out
    assert "fail bundle 'udvla-nano-ur5e'" in told and "name front, wrist under cameras" in told
    assert main(["robot", "check", "ur5e_sim", "--bundle", "models/udvla-nano-ur5e"]) == 0
