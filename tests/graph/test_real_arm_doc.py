"""What docs/real_arm.md tells people to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from udvla_ros import graph
from udvla_ros.cli.main import COMMANDS
from udvla_ros.motion.robot import RobotDescription

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "real_arm.md").read_text()
NODES = "".join(path.read_text() for path in (REPOSITORY / "udvla_ros" / "nodes").rglob("*.py"))
MOTION = "".join(path.read_text() for path in (REPOSITORY / "udvla_ros" / "motion").rglob("*.py"))


def test_the_arguments_are_those_of_the_graph():
    table = TEXT.partition("| argument of `policy.launch.py`")[2].partition("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines()[2:]]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row[1])]
    assert sorted(told) == sorted(graph.GRAPHS["policy"].arguments)
    for row in rows:
        names, defaults = re.findall(r"`(\w+)`", row[1]), re.findall(r"`([^`]+)`", row[2])
        for name, default in zip(names, defaults if len(defaults) == len(names) else [], strict=False):
            assert graph.GRAPHS["policy"].arguments[name].default == default


def test_launch_lines_resolve():
    lines = re.findall(r"(?:ros2 launch udvla_ros (\w+)\.launch\.py|udvla_bringup (\w+)) ([^`\n]+)", TEXT)
    assert len(lines) >= 4
    for launched, brought, rest in lines:
        given = dict(pair.split(":=") for pair in rest.split() if ":=" in pair)
        graph.resolve(launched or brought, given)
        assert "/path" in given.get("robot", "/path") or RobotDescription.load(given["robot"])


def test_commands_and_their_options_exist():
    import argparse
    import importlib

    lines = re.findall(r"\budvla (\w+)((?: --?[\w-]+(?: [\w./:=]+)?)*)", TEXT)
    assert {"doctor", "teleop", "tune"} <= {name for name, _ in lines}
    for name, rest in lines:
        subparsers = argparse.ArgumentParser().add_subparsers()
        importlib.import_module(COMMANDS[name][0]).register(subparsers)
        known = subparsers.choices[name]._option_string_actions
        assert set(re.findall(r"--[\w-]+", rest)) <= set(known), f"udvla {name}{rest}"


def test_services_parameters_and_topics_exist():
    for service in set(re.findall(r"/arbiter_node/(\w+) ", TEXT)):
        assert f'"{service}"' in NODES, service
    for parameter in ("speed", "dry_run", "emergency_stop_timeout"):
        assert parameter in TEXT and re.search(rf'Entry\(\s*"{parameter}"', NODES), parameter
    assert 'LockTopic(self, "emergency_stop")' in NODES and 'kind: Any = Bool' in NODES
    assert '"~/dry_run/joint_trajectory"' in NODES


@pytest.mark.parametrize("kind", sorted(set(re.findall(r'Refused\(\s*"(\w+)"', MOTION)) - {"unknown_source"}))
def test_every_refusal_of_the_arbiter_is_explained(kind):
    table = TEXT.partition("| `refused` |")[2].partition("\n\n")[0]
    assert f"`{kind}`" in table


def test_every_refusal_of_an_observation_is_named():
    source = (REPOSITORY / "udvla_ros" / "policy" / "observe.py").read_text()
    kinds = set(re.findall(r'ObservationRefused\(\s*"(\w+)"', source)) | set(re.findall(r'return "(\w+)", f', source))
    assert {"frozen", "dark", "flat", "command"} <= kinds
    assert not [kind for kind in kinds if f"`{kind}`" not in TEXT]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config" / "controllers").glob("*.yaml")), ids=lambda p: p.stem)
def test_controllers_are_those_of_the_robot_files(path):
    robot, controllers = RobotDescription.load(path.stem), yaml.safe_load(path.read_text())
    arm, gripper = (topic.partition("/")[0] for topic in (robot.topics["command"], robot.gripper.command_topic))
    assert set(controllers) == {arm, gripper}
    settings = {name: entry["ros__parameters"] for name, entry in controllers.items()}
    assert all(values["interpolate_from_desired_state"] is True for values in settings.values())
    assert settings[gripper]["joints"] == [robot.gripper.joint]
    assert settings[arm].get("joints", list(robot.joints)) == list(robot.joints)
