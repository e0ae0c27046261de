"""The demo's client against a real graph with a scripted policy in it: two episodes, a report and pictures."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

from harness import environment

from udvla_ros import graph
from udvla_ros.cli import demo
from udvla_ros.evaluation.cases import demo_cases
from udvla_ros.proving.rigs.demo_client import GraphFailed


def scripted(cases, spoil=""):
    task = cases[0].task
    nodes = graph.resolve(
        "sim", {"seed": str(cases[0].seed), "task": f"{task.kind}/{task.colour}", "bundle": f"scripted{spoil}"}
    )
    return [replace(n, module="scripted_policy") if n.name == "policy_node" else n for n in nodes]


@pytest.fixture
def domain(monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    kept = dict(os.environ)
    yield 1 + (int(os.environ["ROS_DOMAIN_ID"]) + 50) % 100  # not that of the graph beside
    os.environ.clear()
    os.environ.update(kept)


def test_episodes_are_run_noted_and_drawn(tmp_path, domain, capsys):
    cases = [replace(case, limit=15) for case in demo_cases(2, 5)]
    records, report = demo.run_graph(scripted(cases), cases, tmp_path, domain=domain)
    written = {path.name for path in demo.write_results(records, report, tmp_path)}
    assert {"report.json", "contact_sheet.png"} <= written and written & {"demo.mp4", "demo.gif"}
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert [e["instruction"] for e in report["episodes"]] == [case.instruction for case in cases]
    assert [e["seed"] for e in report["episodes"]] == [case.seed for case in cases]
    assert all(e["chunks"] >= 2 for e in report["episodes"])
    assert report["limit_violations"] == 0 and report["control_hz"] == 10.0
    assert report["bundle"]["name"] == "scripted" and report["latency_ms"]["total"]["p50"] > 0
    assert (tmp_path / "logs" / "sim_node.log").stat().st_size > 0
    assert capsys.readouterr().out.count("seed 10000") == 2


def test_an_operator_takes_over_in_each_episode_and_gives_back(tmp_path, domain):
    script = tmp_path / "script.yaml"
    script.write_text("steps:\n - wait: 0.3\n - {jog: {z: 0.05}, for: 0.6}\n - rest: 0.2\n - hand_back\n")
    cases = [replace(case, limit=20) for case in demo_cases(2, 5)]
    nodes = [*scripted(cases), demo.operator(str(script))]
    records, report = demo.run_graph(nodes, cases, tmp_path, domain=domain)
    for record, episode in zip(records, report["episodes"], strict=True):
        modes = [band["mode"] for band in episode["modes"]]
        assert modes[:3] == ["POLICY", "TELEOP", "POLICY"], modes
        by_hand = next(band for band in record.bands() if band.mode == "TELEOP")
        assert 0.4 < by_hand.end - by_hand.begin < 2.5
        assert record.ended - record.began > 2.0 + 0.5, "the operator's time was taken from the policy's"
    assert report["limit_violations"] == 0
    assert (tmp_path / "modes.png") in demo.write_results(records, report, tmp_path)
    assert "given back in 2 episodes" in demo.table(report)
    log = (tmp_path / "logs" / "operator_node.log").read_text()
    assert log.count("takes over") == 2 and log.count("gave the arm back") == 2


def test_a_node_that_ends_fails_the_demo(tmp_path, domain, monkeypatch):
    from udvla_ros.proving.rigs.demo_client import DemoClient

    cases = demo_cases(1, 5)
    kill = {}
    run_episode = DemoClient.run_episode

    def with_a_death(self, case):
        kill["bringup"].kill("arbiter_node")
        return run_episode(self, case)

    from udvla_ros import bringup

    class Watched(bringup.Bringup):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            kill["bringup"] = self

    monkeypatch.setattr(bringup, "Bringup", Watched)
    monkeypatch.setattr(DemoClient, "run_episode", with_a_death)
    with pytest.raises(GraphFailed, match="arbiter_node ended"):
        demo.run_graph(scripted(cases), cases, tmp_path, domain=domain)
