"""A recorder as a real process, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from udvla_ros import graph
from udvla_ros.bringup import Bringup


@pytest.fixture
def probe() -> Iterator:
    """A node of the tests' own."""
    pytest.importorskip("rclpy")
    from harness import ros

    with ros() as made:
        yield made


@pytest.fixture
def running(probe, tmp_path):
    """Start a recorder with parameters beside nodes of the test's choice."""
    from harness import environment
    from recorder_probe import Recorder, recorder

    started: list[Bringup] = []

    def start(*nodes: graph.ResolvedNode, **parameters: object) -> object:
        folder = tmp_path / "bags"
        bringup = Bringup([recorder(folder, **parameters), *nodes], environment(), write=lambda line: None)
        started.append(bringup)
        bringup.start()
        bringup.wait_ready(60.0)
        return Recorder(bringup, probe, folder)

    yield start
    for bringup in started:
        bringup.stop()


@pytest.fixture
def kills(request) -> int:
    """How many times the recorder is killed: ``--kills``."""
    return request.config.getoption("--kills")
