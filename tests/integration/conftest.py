"""One graph of real processes for all tests of a module: the simulated arm and its arbiter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from harness import Probe, environment, ros
from robot_probe import RobotProbe

from udvla_ros import graph
from udvla_ros.bringup import Bringup


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts processes."""
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    """A node of the tests' own."""
    with ros() as made:
        yield made


@pytest.fixture(scope="module")
def bringup() -> Iterator[Bringup]:
    """The sim graph, with the scripted policy in place of the real one and not yet started."""
    nodes = graph.resolve("sim", {"seed": "3", "task": "touch/red", "bundle": "scripted"})
    nodes = [replace(n, module="scripted_policy") if n.name == "policy_node" else n for n in nodes]
    made = Bringup(nodes, environment(), write=lambda line: None)
    made.start(["sim_node", "arbiter_node"])
    try:
        made.wait_ready(60.0)
        yield made
    finally:
        made.stop()


@pytest.fixture
def robot(bringup: Bringup, probe: Probe) -> RobotProbe:
    """The running arm, in HOLD, at rest, in a fresh episode."""
    made = RobotProbe.of(probe)
    made.fresh_episode()
    return made
