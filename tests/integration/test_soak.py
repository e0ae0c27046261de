"""A few seconds of ``udvla bench soak`` on a real graph with a scripted policy in it: what is noted, and judged."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

from harness import environment

from udvla_ros import graph
from udvla_ros.cli import bench_soak
from udvla_ros.cli import main as cli
from udvla_ros.evaluation import cases


@pytest.fixture
def domain(monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    kept = dict(os.environ)
    yield 1 + (int(os.environ["ROS_DOMAIN_ID"]) + 37) % 100  # not that of a graph beside
    os.environ.clear()
    os.environ.update(kept)


def test_memory_chunks_and_commands_are_watched(tmp_path, domain, monkeypatch, capsys):
    nodes = [
        replace(n, module="scripted_policy") if n.name == "policy_node" else n
        for n in graph.resolve("sim", {"bundle": "scripted"})
    ]
    monkeypatch.setattr(graph, "resolve", lambda *_: nodes)
    monkeypatch.setattr(cases, "CONTROL_STEPS", dict.fromkeys(cases.CONTROL_STEPS, 25))
    noted = []
    watch = bench_soak._watch
    monkeypatch.setattr(bench_soak, "_watch", lambda *a: noted.append(watch(*a)) or noted[0])
    code = cli.main([
        "bench", "soak", "--minutes", "0.1", "--bundle", "models/udvla-nano-ur5e", "--domain", str(domain),
        "--out", str(tmp_path), "--json", str(tmp_path / "f.json"),
    ])  # fmt: skip
    (record, seconds, problem) = noted[0]
    assert not problem and seconds > 6.0 and record.episodes
    assert set(record.memory) == {"sim_node", "arbiter_node", "policy_node", "this client"}
    assert all(len(samples) >= 4 for samples in record.memory.values())
    told = json.loads((tmp_path / "f.json").read_text())
    assert told["chunks"] == len(record.chunks) >= 4 and told["latency_ms"]["total"]["p50"] == 6.5
    gaps = record.gaps()[:, 1]
    assert len(gaps) > 200 and np.median(gaps) == pytest.approx(10.0, abs=2.0)
    # The scripted policy says that each of its chunks took equally long: what remains is the memory.
    assert told["p99_over_p50"] == 1.0 and told["latency_steady"]
    assert code == (0 if told["memory_constant"] else 1)
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    assert ("passed" if code == 0 else "FAILED") in capsys.readouterr().out
