"""A few faults of the suite on a real graph, with a scripted policy in place of the shipped one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

from harness import environment, skip_where_time_is_not_real

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.faults import graph
from udvla_ros.proving.faults.scenarios import SCENARIOS
from udvla_ros.proving.rigs import fault_runner

pytestmark = pytest.mark.integration
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    domain = str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 30) % 100)  # not that of other graphs beside
    kept, os.environ["ROS_DOMAIN_ID"] = os.environ["ROS_DOMAIN_ID"], domain
    file = graph.robot_file(folder)
    nodes = [
        replace(node, module="scripted_policy", niceness=0) if node.name == "policy_node" else node
        for node in graph.nodes(file, bundle="scripted", seed="3")
    ]
    robot = RobotDescription.load(file)
    try:
        with fault_runner.running(nodes, environment(), robot, folder / "logs", quick=True, seed=1) as made:
            yield made
    finally:
        os.environ["ROS_DOMAIN_ID"] = kept


@pytest.mark.parametrize(
    "name", ["policy killed", "one camera gone", "stop at a random moment", "two writers on the policy topic",
             "console killed", "console flooded"]
)  # fmt: skip
def test_the_arm_comes_to_rest_within_limits_and_nothing_resumes(running, name):
    skip_where_time_is_not_real()
    runner, _ = running
    outcome = runner.run(replace(BY_NAME[name], watch=min(BY_NAME[name].watch, 3.0)))
    assert outcome.faults() == [], outcome.row()
    assert outcome.curve[1].max() > 0.05, "it never moved"


def test_the_arbiters_cpu_share_is_told(running):
    _, operator = running
    values = operator.values("arbiter_node")
    assert 0.0 < float(values["cpu_percent"]) < 100.0 and values["dry_run"] == "False"
