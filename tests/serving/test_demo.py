"""`udvla demo --server`: policy_node is told the server, and the report says what the way there cost."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from udvla_ros.cli import demo, main


class Started(Exception):
    """The graph would start here."""


def test_the_policy_node_asks_the_server(monkeypatch, tmp_path):
    seen = {}

    def started(nodes, *args, **more):
        seen.update({node.name: node.parameters for node in nodes})
        raise Started

    monkeypatch.setattr(demo, "run_graph", started)
    with pytest.raises(Started):
        main.main(["demo", "--server", "ws://127.0.0.1:9", "--episodes", "1", "--out", str(tmp_path / "run")])
    assert seen["policy_node"]["server"] == "ws://127.0.0.1:9"


def test_the_way_to_the_server_is_told():
    spread = {"p50": 4.26, "p95": 9.0, "p99": 10.0}
    report = {
        "episodes": [{"success": True}], "bundle": {"name": "x"}, "chunks": 3, "control_hz": 10.0,
        "latency_ms": {"total": spread, "network": spread}, "limit_violations": 0,
    }  # fmt: skip
    assert "of it the way to the server p50 4.3 ms, p95 9.0 ms" in demo.table(report)
