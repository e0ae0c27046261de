"""The operator's words beside the running graph: each does what it says, or names what is in the way."""

from __future__ import annotations

import json
import subprocess
import sys

from harness import environment
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from udvla_ros.cli.main import main
from udvla_ros.nodes import runtime


def test_the_operators_words(bringup, robot, tmp_path, capsys):
    bringup.start(["policy_node"])
    bringup.wait_ready(60.0)

    def udvla(*words: str) -> tuple[int, str]:
        code = main(list(words))
        told = capsys.readouterr()
        return code, told.out + told.err

    assert udvla("say", "touch", "the", "blue", "cube")[0] == 0
    assert udvla("engage")[0] == 0
    robot.probe.until(lambda: robot.mode == "POLICY", "POLICY")
    code, said = udvla("status", "--json", str(tmp_path / "status.json"))
    told = json.loads((tmp_path / "status.json").read_text())
    assert f"mode {told['mode']}" in said and told["mode"] in ("POLICY", "HOLD")  # where time is not real it lets go
    assert told["instruction"] == "touch the blue cube", said
    assert told["scene"]["seed"] == robot.episode["seed"] and "arbiter_node" in told["nodes"]
    assert udvla("hold")[0] == 0
    robot.probe.until(lambda: robot.mode == "HOLD", "HOLD")
    assert udvla("engage")[0] == 0
    robot.probe.until(lambda: robot.mode == "POLICY", "POLICY")
    code, said = udvla("say", "stop", "now")
    assert code == 0 and "hold" in said.lower()
    robot.probe.until(lambda: robot.mode == "HOLD", "HOLD")
    reasons = robot.probe.hear(String, "arbiter/mode_reason", runtime.LATCHED_QOS)
    assert udvla("engage")[0] == 0
    robot.probe.until(lambda: robot.mode == "POLICY", "POLICY")
    robot.probe.publisher(String, "instruction", QoSProfile(depth=10)).publish(String(data="Halt!"))
    robot.probe.until(lambda: any("'Halt!' means hold" in said.data for said in reasons), "HOLD by a volatile word")
    robot.probe.until(lambda: robot.mode == "HOLD", "HOLD")
    assert udvla("say", "touch the blue cube")[0] == 0
    assert udvla("stop")[0] == 0
    robot.probe.until(lambda: robot.mode == "STOPPED", "STOPPED")
    code, said = udvla("engage")
    assert code == 1 and "reset" in said, "a stop is latched, and the way out is told"
    assert udvla("reset")[0] == 0
    robot.probe.until(lambda: robot.mode == "HOLD", "HOLD")


def test_a_knob_is_read_as_what_it_is(bringup, robot, capsys):
    assert main(["set", "--node", "sim_node", "camera_hz=10", "publish_instruction=true"]) == 0
    assert "camera_hz = 10" in capsys.readouterr().out
    for wrong, word in (("camera_hz=ten", "a whole number"), ("camera_hz=99", "keeps what it has"),
                        ("camra_hz=3", "near: camera_hz"), ("camera_hz", "NAME=VALUE")):  # fmt: skip
        assert main(["set", "--node", "sim_node", wrong]) in (1, 2)
        assert word in capsys.readouterr().err


def test_the_scene(bringup, robot):
    robot.fresh_episode()
    command = [sys.executable, "-m", "udvla_ros", "scene", "--seed", "12", "--task", "pick/green"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    robot.probe.until(lambda: robot.episode["seed"] == 12, "the scene")
    assert robot.episode["task"] == "pick/green" and "seed 12" in done.stdout
    robot.probe.until(lambda: robot.mode == "HOLD", "HOLD")


def test_nobody_there(capsys):
    assert main(["hold", "--namespace", "nowhere"]) == 1
    assert "nobody offers arbiter_node/hold" in capsys.readouterr().err
