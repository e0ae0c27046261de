"""Bringup with stand-in processes: readiness, logs, exit codes, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from udvla_ros.bringup import READY, Bringup, BringupError, loopback_environment, main
from udvla_ros.graph import ResolvedNode

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE)}


def node(behaviour: str, essential: bool = True) -> ResolvedNode:
    return ResolvedNode(
        "fake", "fake_node", behaviour, parameters={"behaviour": behaviour}, essential=essential
    )


def make(*nodes: ResolvedNode, **options) -> tuple[Bringup, list[str]]:
    lines: list[str] = []
    return Bringup(nodes, ENV, write=lines.append, **options), lines


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ready_logs_and_stop(tmp_path):
    bringup, lines = make(node("polite"), log_dir=tmp_path)
    with bringup:
        bringup.wait_ready(20.0)
        pid = bringup.pid("polite")
        assert alive(pid)
    assert not alive(pid)
    assert lines == [f"[polite] {READY} here"]
    assert (tmp_path / "polite.log").read_text() == f"{READY} here\n"
    assert bringup.codes() == {"polite": 0} and bringup.exit_code == 0


def test_a_node_that_ends_early_is_reported_with_its_last_words():
    bringup, _ = make(node("polite"), node("fail"))
    with bringup, pytest.raises(BringupError, match=r"fail ended with code 3(?s:.*)no camera on /front"):
        bringup.wait_ready(20.0)
    assert bringup.exit_code == 3


def test_a_node_that_is_late_is_named():
    bringup, _ = make(node("polite"), node("mute"))
    with bringup:
        bringup.wait_ready(20.0, names=["polite"])
        with pytest.raises(BringupError, match=r"mute not ready within 0\.05 s"):
            bringup.wait_ready(0.05)


def test_a_deaf_node_is_killed():
    bringup, lines = make(node("deaf"))
    bringup.start()
    bringup.wait_ready(20.0)
    pid = bringup.pid("deaf")
    bringup.stop(patience=(0.05, 0.05, 5.0))
    assert not alive(pid)
    assert bringup.codes() == {"deaf": -signal.SIGKILL}
    assert [line.rpartition(" ")[2] for line in lines if "[bringup]" in line] == ["SIGINT", "SIGTERM"]


def test_essential_node_ends_the_wait_and_gives_the_exit_code():
    bringup, _ = make(node("polite"), node("die"))
    with bringup:
        bringup.wait_ready(20.0, names=["polite"])
        assert bringup.wait() == 7
    assert bringup.codes()["polite"] == 0
    assert bringup.exit_code == 7


def test_others_go_on_without_a_node_that_is_not_essential():
    bringup, lines = make(node("polite"), node("die", essential=False))
    with bringup:
        bringup.wait_ready(20.0, names=["polite"])
        bringup._processes["die"].popen.wait(20.0)
        bringup.kill("polite", signal.SIGINT)
        assert bringup.wait() in (0, 7)
        bringup._processes["polite"].popen.wait(20.0)
    assert bringup.exit_code == 7
    assert any("die ended with code 7" in line for line in lines)


def test_a_node_that_may_respawn_is_started_again(monkeypatch):
    monkeypatch.setattr("udvla_ros.bringup.RESPAWN_DELAY", 0.0)
    bringup, lines = make(node("polite"), replace(node("once", essential=False), respawn=True))
    with bringup:
        bringup.wait_ready(20.0)
        first = bringup.pid("once")
        bringup._processes["once"].signal(signal.SIGKILL)
        waiter = threading.Thread(target=bringup.wait)
        waiter.start()
        with bringup._changed:
            assert bringup._changed.wait_for(lambda: bringup.pid("once") != first, 20.0)
        bringup.wait_ready(20.0)
        bringup.kill("once", signal.SIGINT)
        bringup.kill("polite", signal.SIGINT)
        waiter.join(20.0)
        assert not waiter.is_alive()
    assert "[bringup] once ended with code -9; it is started again" in lines
    assert bringup.exit_code == 0


def test_a_killed_node_can_be_started_again():
    bringup, _ = make(node("polite"))
    with bringup:
        bringup.wait_ready(20.0)
        first = bringup.pid("polite")
        bringup.kill("polite")
        bringup._processes["polite"].popen.wait(20.0)
        bringup.start(["polite"])
        bringup.wait_ready(20.0)
        assert bringup.pid("polite") != first
    assert bringup.exit_code == 0  # it was asked to end


def test_loopback_environment_keeps_to_this_machine():
    env = loopback_environment({"ROS_LOCALHOST_ONLY": "1"}, domain=9)
    assert env["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert "ROS_LOCALHOST_ONLY" not in env
    assert env["ROS_DOMAIN_ID"] == "9"
    assert Path(env["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


def test_command_line_errors_are_one_line(capsys):
    assert main(["sim", "seed=3"]) == 2
    assert main(["sim", "sed:=3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "name:=value" in lines[0] and "no argument sed" in lines[1]


def test_help_lists_graphs_and_arguments():
    done = subprocess.run(
        [sys.executable, "-m", "udvla_ros.bringup", "--help"], capture_output=True, text=True, check=True
    )
    assert "instruction:=" in done.stdout and "policy: " in done.stdout
