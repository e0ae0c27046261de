"""The policy of another process moves the arm; when it dies or stalls, the arm rests, holds, and waits for a person."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vla_eval")
pytest.importorskip("websockets")

import toy_bundle
from harness import environment, skip_where_time_is_not_real
from std_msgs.msg import String

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.nodes import runtime


class Served:
    """`udvla serve`, which can be killed and started again on its port."""

    def __init__(self, bundle: Path) -> None:
        self.bundle, self.port = bundle, "0"
        self.start()

    def start(self) -> None:
        """Start and wait until it says that it is ready."""
        command = [sys.executable, "-m", "udvla_ros", "serve", str(self.bundle), "--port", self.port, "--threads", "1"]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ws://127.0.0.1:" in line, line
        self.address = line.split()[-1]
        self.port = self.address.rpartition(":")[2]

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    made = Served(toy_bundle.saved(tmp_path_factory.mktemp("bundle") / "toy"))
    yield made
    made.kill()


@pytest.fixture(scope="module")
def node(served, bringup) -> Iterator[Bringup]:
    """policy_node alone, with the server's policy; simulated arm and arbiter are the module's."""
    nodes = graph.resolve("sim", {"bundle": "nowhere", "server": served.address})
    alone = [replace(n, niceness=0) for n in nodes if n.name == "policy_node"]
    with Bringup(alone, environment(), write=lambda line: None) as made:
        made.wait_ready(90.0)
        yield made


def moving(robot) -> bool:
    return np.abs(np.array(robot.commands[-1].velocity)).max() > 0.02


@pytest.mark.parametrize("fault", ["dead", "stalled"])
def test_a_lost_server_ends_in_hold_and_nothing_resumes(robot, probe, node, served, fault):
    skip_where_time_is_not_real()
    before = robot.violations()
    heard = probe.hear(String, "policy_node/chunk_info")
    reasons = probe.hear(String, "arbiter/mode_reason", runtime.LATCHED_QOS)
    heard.clear()
    robot.engage()
    probe.until(lambda: len(heard) >= 3, "three chunks", 60.0)
    timings = [json.loads(message.data)["timings_ms"] for message in heard]
    assert all(t["total"] > t["server"] > 0 and t["network"] > 0 for t in timings)
    probe.until(lambda: moving(robot), "motion")
    if fault == "dead":
        served.kill()
    else:
        os.kill(served.process.pid, signal.SIGSTOP)
    probe.until(lambda: robot.mode == "HOLD", "HOLD")
    probe.until(robot.resting, "rest")
    said = "is gone" if fault == "dead" else "no answer within"
    probe.until(lambda: any(said in r.data and served.address in r.data for r in reasons), "the reason")
    end, count = robot.commanded(), len(heard)
    if fault == "dead":
        served.start()  # back again, it must not have the arm
    else:
        os.kill(served.process.pid, signal.SIGCONT)
    robot.commands.clear()
    probe.until(lambda: len(robot.commands) >= 100, "a second of commands")
    assert robot.mode == "HOLD" and len(heard) == count
    np.testing.assert_allclose(robot.commanded(), end, atol=1e-4)
    robot.engage()  # by a person, it goes on
    probe.until(lambda: len(heard) > count, "a chunk", 60.0)
    assert probe.call("arbiter_node/hold").success
    probe.until(robot.resting, "rest")
    assert robot.violations() == before
