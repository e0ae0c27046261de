"""The table of nodes is complete and resolves; nothing here needs ROS."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from udvla_ros import graph, resources
from udvla_ros.errors import ConfigError

ROWS = [(name, row) for name, table in graph.GRAPHS.items() for row in table.nodes]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_row_starts_a_module_that_exists_and_has_a_console_script(name, row, repository):
    spec = importlib.util.find_spec(row.module)
    assert spec is not None and spec.origin is not None
    functions = {n.name for n in ast.parse(Path(spec.origin).read_text()).body if isinstance(n, ast.FunctionDef)}
    assert "main" in functions
    assert f'"{row.executable} = {row.module}:main"' in (repository / "setup.py").read_text()


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_row_names_only_arguments_of_its_graph(name, row):
    texts = [row.namespace, *row.parameter_files, *(text for _, text, _ in row.parameters)]
    texts += [text for pair in row.remappings for text in pair]
    named = {match for text in texts for match in re.findall(r"\{(\w+)\}", text)}
    named |= {row.condition} - {None}
    assert named <= set(graph.GRAPHS[name].arguments)


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_every_argument_is_used(name):
    table = graph.GRAPHS[name]
    used = repr(table.nodes)
    for argument in table.arguments:
        assert "{" + argument + "}" in used or f"condition='{argument}'" in used or argument == "respawn", argument


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_parameter_files_are_for_the_nodes_of_the_table(name):
    for node in graph.resolve(name):
        for path in node.parameter_files:
            content = yaml.safe_load(Path(path).read_text())
            assert set(content) == {f"/**/{node.name}"}, f"{path} would not reach {node.name} in a namespace"
            assert set(content[f"/**/{node.name}"]) == {"ros__parameters"}


def test_a_parameter_file_beats_defaults_and_loses_to_what_is_given(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "/**/arbiter_node: {ros__parameters: {speed: 0.77}}\n"
        "policy_node: {ros__parameters: {bundle: other, device: cuda}}\n"
        "/right/*: {ros__parameters: {robot: elsewhere.yaml}}\n"
    )
    rows = {n.name: n for n in graph.resolve("policy", {"params_file": str(mine), "device": "cpu"})}
    assert "speed" not in rows["arbiter_node"].parameters and "robot" in rows["arbiter_node"].parameters
    assert "bundle" not in rows["policy_node"].parameters and rows["policy_node"].parameters["device"] == "cpu"
    right = {n.name: n for n in graph.resolve("policy", {"params_file": str(mine), "namespace": "right"})}
    assert "robot" not in right["arbiter_node"].parameters and "robot" not in right["policy_node"].parameters


@pytest.mark.parametrize(
    "text", ["speed: 1\n", "- a\n", "a: {ros__parameters: 3}\n", "a: [\n", "a: {ros__parameters: {b: \xff}}\n"]
)
def test_a_parameter_file_that_is_none_is_one_line(tmp_path, text):
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mine\.yaml: ") as error:
        graph.resolve("sim", {"params_file": str(mine)})
    assert "\n" not in str(error.value)


def test_condition_drops_the_policy():
    names = [node.name for node in graph.resolve("sim", {"policy": "false"})]
    assert names == ["sim_node", "arbiter_node"]
    assert [node.name for node in graph.resolve("sim")] == ["sim_node", "arbiter_node", "policy_node"]


def test_only_the_policy_may_die_alone():
    assert {node.name for node in graph.resolve("sim") if not node.essential} == {"policy_node"}


def test_arguments_reach_the_parameters_with_their_types():
    nodes = {n.name: n for n in graph.resolve("sim", {"seed": "7", "instruction": "12", "autostart": "no"})}
    assert nodes["sim_node"].parameters["seed"] == 7
    assert nodes["sim_node"].parameters["instruction"] == "12"
    assert nodes["policy_node"].parameters["autostart"] is False


def test_a_real_arm_starts_slow_and_the_simulated_one_does_not():
    for name, speed in {"policy": 0.1, "sim": 1.0}.items():
        assert {n.name: n for n in graph.resolve(name)}["arbiter_node"].parameters["speed"] == speed
    dry = {n.name: n for n in graph.resolve("policy", {"dry_run": "true", "speed": "1"})}["arbiter_node"]
    assert dry.parameters["dry_run"] is True and dry.parameters["speed"] == 1.0
    assert "speed:=1.0" in graph.command_line(dry, "python")


@pytest.mark.parametrize("name", ["policy", "sim"])
def test_cameras_by_other_names_reach_every_node_that_uses_them(name):
    rows = graph.resolve(name, {"front_image": "/camera/color/image_raw"})
    for row in rows:
        if row.name in ("sim_node", "policy_node", "recorder_node"):
            assert ("front/image_raw", "/camera/color/image_raw") in row.remappings, row.name
            assert ("wrist/image_raw", "wrist/image_raw") in row.remappings


def test_own_parameter_file_is_read_last(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("{}")
    for node in graph.resolve("sim", {"params_file": str(mine)}):
        assert node.parameter_files[-1] == str(mine)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("nothing", {}, "no graph 'nothing'"),
        ("sim", {"sed": "1"}, "no argument sed; did you mean seed?"),
        ("policy", {"dryrun": "true"}, "no argument dryrun; did you mean dry_run?"),
        ("sim", {"seed": "one"}, "not a number"),
        ("sim", {"policy": "perhaps"}, "neither true nor false"),
        ("sim", {"params_file": "absent.yaml"}, "absent.yaml"),
    ],
)
def test_wrong_use_is_named(name, arguments, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        graph.resolve(name, arguments)


def test_command_line_quotes_what_yaml_would_misread():
    node = graph.ResolvedNode(
        "x", "some.module", "n", namespace="left", remappings=(("a", "b"),),
        parameters={"text": 'say "yes": no', "flag": True, "empty": ""},
    )  # fmt: skip
    command = graph.command_line(node, "python")
    assert command[:4] == ["python", "-m", "some.module", "--ros-args"]
    assert "__ns:=/left" in command and "a:=b" in command
    values = dict(text.split(":=", 1) for text in command if ":=" in text)
    assert yaml.safe_load(values["text"]) == 'say "yes": no'
    assert yaml.safe_load(values["flag"]) is True
    assert yaml.safe_load(values["empty"]) == ""


def test_loopback_profile_is_shipped():
    text = resources.find("config/fastdds_loopback.xml").read_text()
    assert "16777216" in text and "127.0.0.1" in text and "<useBuiltinTransports>false" in text


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_the_robot_file_of_each_graph_names_every_topic_the_nodes_use(name):
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.policy.contract import guards_of

    robot = RobotDescription.load(graph.GRAPHS[name].arguments["robot"].default)
    assert robot.topics["command"] and robot.gripper is not None and robot.gripper.type == "joint_trajectory"
    assert set(robot.cameras) == {"front", "wrist"} and all(c["topic"] for c in robot.cameras.values())
    assert guards_of(robot).max_age > 0


def test_teleop_starts_its_node_for_a_device_that_needs_no_terminal():
    for name in ("sim", "policy"):
        assert "teleop_node" not in [node.name for node in graph.resolve(name)]
        nodes = {node.name: node for node in graph.resolve(name, {"teleop": "leader"})}
        assert nodes["teleop_node"].parameters["source"] == "leader" and not nodes["teleop_node"].essential
    for name in ("sim", "policy", "teleop"):
        with pytest.raises(ConfigError, match=r"keyboard needs a terminal of its own.*udvla teleop"):
            graph.resolve(name, {"teleop": "keyboard"})
        with pytest.raises(ConfigError, match="teleop:=mouse is not one of none, joy, leader"):
            graph.resolve(name, {"teleop": "mouse"})
