"""`udvla doctor` beside the running graph: all is well, and each thing broken on purpose gets its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from harness import environment
from rclpy.qos import QoSProfile
from robot_probe import ROBOT
from sensor_msgs.msg import Image
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.nodes import doctor as looking
from udvla_ros.nodes.doctor import Doctor, joined
from udvla_ros.nodes.runtime import LATCHED_QOS

# Beside other work a graph is late now and then: that is worth a word to a person and none to this test.
LATE = ("rate ", "clock ")


def doctor(probe, robot: str | Path, *options: str) -> tuple[int, list[str], str]:
    """Run the command while the probe's nodes go on; return exit code, the lines of the findings, and the rest."""
    command = [sys.executable, "-m", "udvla_ros", "doctor", "--robot", str(robot), "--timeout", "3", *options]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        probe.until(lambda: process.poll() is not None, "the doctor", 90.0)
    finally:
        process.kill()
    out, errors = process.communicate()
    lines = out.splitlines()
    return process.returncode, [line for line in lines if line.split()[0] in ("ok", "warn", "fail")], errors


def test_a_graph_at_which_nothing_is_wrong(robot, probe, tmp_path):
    before = robot.commanded()
    report = tmp_path / "doctor.json"
    code, lines, errors = doctor(probe, "ur5e_sim", "--json", str(report))
    assert code == 0, "\n".join([*lines, errors])
    wrong = [line for line in lines if not line.startswith("ok")]
    assert not [line for line in wrong if not line.split(maxsplit=1)[1].startswith(LATE)], "\n".join(wrong)
    said = "\n".join(lines)
    assert "/joint_states from /sim_node" in said and "HOLD" in said and "inside joint limits and workspace" in said
    written = json.loads(report.read_text())
    assert len(written["findings"]) == len(lines) and "/arbiter_node" in written["nodes"]
    assert robot.mode == "HOLD" and abs(robot.commanded() - before).max() == 0.0


def test_it_has_nothing_to_publish_with(robot, probe):
    with joined(ROBOT) as made:
        made.look(0.5)
        mine = made.node.get_publisher_names_and_types_by_node("udvla_doctor", "/")
        offered = made.node.get_service_names_and_types_by_node("udvla_doctor", "/")
    assert {name for name, _ in mine} <= {"/parameter_events"}
    assert not [name for name, types in offered if "Get" not in types[0] and "TypeDescription" not in types[0]]


def test_an_arbiter_that_is_found_late_is_heard(monkeypatch):
    found, look_up = [], Doctor._topic
    monkeypatch.setattr(looking, "FINDING", 0.0)
    monkeypatch.setattr(Doctor, "_topic", lambda self, name: look_up(self, name if found else "not/found/yet"))
    with joined(ROBOT, namespace="late") as made:
        late = rclpy.create_node("late_arbiter", namespace="late", context=made.node.context)
        late.create_publisher(String, "arbiter/mode", LATCHED_QOS).publish(String(data="HOLD"))
        seen = made.look(0.5, lambda progress: found.append(progress) if progress.startswith("listening") else None)
        late.destroy_node()
    assert seen.arbiter.mode == "HOLD"


@pytest.fixture
def prefixed(tmp_path) -> Path:
    """A robot file whose joints carry a prefix that the driver does not know, and with a camera too many."""
    text = ROBOT.path.read_text().replace("wrist: {topic: wrist/image_raw", "side: {topic: side/image_raw")
    urdf = ROBOT.path.with_suffix(".urdf").read_text()
    for joint in ROBOT.joints:
        text, urdf = text.replace(joint, f"left_{joint}"), urdf.replace(f'"{joint}"', f'"left_{joint}"')
    (tmp_path / "ur5e_sim.urdf").write_text(urdf)
    (tmp_path / "left.yaml").write_text(text)
    return tmp_path / "left.yaml"


def test_each_thing_that_is_broken_gets_its_line(robot, probe, prefixed):
    command = ROBOT.topics["command"]
    listener = probe.node.create_subscription(Image, "front/image_raw", lambda m: None, QoSProfile(depth=1))
    writer = probe.node.create_publisher(JointTrajectory, command, 10)
    controller = rclpy.create_node("joint_trajectory_controller", context=probe.node.context)
    controller.declare_parameter("joints", ["a", "b"])
    controller.declare_parameter("interpolate_from_desired_state", False)
    probe._executor.add_node(controller)
    try:
        code, lines, errors = doctor(probe, prefixed)
    finally:
        probe._executor.remove_node(controller)
        controller.destroy_node()
        probe.node.destroy_publisher(writer)
        probe.node.destroy_subscription(listener)
    said = "\n".join(lines)
    assert code == 1, said + errors
    expected = {
        "joints": "leaves out 'left_'",
        "topic camera side": "nobody publishes /side/image_raw",
        "qos camera front": "reaches /probe from /sim_node: it is published best effort and asked for reliably",
        "topic command": "/probe also writes to",
        "controller joints": "moves a, b",
    }
    for check, text in expected.items():
        assert any(line.startswith(f"fail  {check}") and text in line for line in lines), f"{check}: {text}\n{said}"
    assert any(line.startswith("warn  controller splice") for line in lines), said
