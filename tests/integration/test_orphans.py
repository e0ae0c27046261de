"""Nodes end with the bringup that started them, even one that was killed outright."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from harness import environment

PROGRAM = """
from udvla_ros import graph
from udvla_ros.bringup import Bringup
import signal
bringup = Bringup(graph.resolve("sim", {"policy": "false"})[1:], write=lambda line: None)
bringup.start()
bringup.wait_ready(60)
print(bringup.pid("arbiter_node"), flush=True)
signal.pause()
"""


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def test_no_node_outlives_a_killed_bringup():
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert state(pid) in "RSD"
        parent.kill()
        parent.wait(10.0)
        deadline = time.monotonic() + 10.0
        while state(pid) not in ("gone", "Z"):
            assert time.monotonic() < deadline, "the arbiter lives on"
    finally:
        parent.kill()
        parent.wait(10.0)
