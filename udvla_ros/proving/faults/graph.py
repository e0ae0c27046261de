"""The sim graph with a relay between the simulated robot and everybody else, where cameras and joints can fail."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import yaml

from udvla_ros import graph
from udvla_ros.motion.robot import RobotDescription

TRUE = "true"  # prefix of the topics as the robot publishes them, before the relay
RELAY = graph.ResolvedNode("fault_relay", "udvla_ros.proving.rigs.fault_relay", "fault_relay")
FROZEN_AFTER = 0.5  # s; the relay gives the rendered pictures a sensor's noise, so that only a frozen one repeats
CLOCK_HZ = 250.0


def robot_file(folder: Path, name: str = "config/robots/ur5e_sim.yaml") -> Path:
    """Write the simulated robot's file as a real arm's would be: with a guard against frozen cameras."""
    robot = RobotDescription.load(name)
    data = yaml.safe_load(robot.path.read_text(encoding="utf-8"))
    data["urdf"] = str((robot.path.parent / data["urdf"]).resolve())
    data["observation"] = {**(data.get("observation") or {}), "frozen_after": FROZEN_AFTER}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def nodes(robot: Path, **arguments: str) -> list[graph.ResolvedNode]:
    """Return the nodes to start, the relay among them."""
    description = RobotDescription.load(robot)
    topics = [camera["topic"] for camera in description.cameras.values()]
    topics.append(description.topics.get("joint_states", "joint_states"))
    hidden = tuple((topic, f"{TRUE}/{topic}") for topic in topics)
    arguments = {"console": "true", "console_port": str(free_port()), **arguments}
    rows = graph.resolve("sim", {"robot": str(robot), **arguments})
    rows = [replace(row, remappings=hidden) if row.name == "sim_node" else row for row in rows]
    return [*rows, replace(RELAY, parameters={"robot": str(robot)})]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_relayed_clock(node: graph.ResolvedNode) -> graph.ResolvedNode:
    """Return a node that takes the time from the relay's /clock."""
    return replace(node, parameters={**node.parameters, "use_sim_time": True})
