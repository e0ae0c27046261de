"""The monitor in ``policy_node``: scores of each chunk, and at an alarm a word to the arbiter."""

from __future__ import annotations

import json

import pytest

rclpy = pytest.importorskip("rclpy")

from nodes.test_policy_node import Rig, start  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from scripted_policy import parts  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from udvla_ros.monitor.calibration import LEVELS, PATIENCE, Calibration  # noqa: E402
from udvla_ros.nodes import policy_node  # noqa: E402


@pytest.fixture(params=[True, False], ids=["calibrated", "not calibrated"])
def rig(request, tmp_path, monkeypatch):
    """A scripted policy; calibrated so that any two chunks disagree too much."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripted").mkdir()
    if request.param:
        reference = {"disagreement": [-1.0] * len(LEVELS)}
        reached = [[0.0] * 30] * PATIENCE
        Calibration("5c417", reference, {"disagreement": 1.0}, 0.1, 1, reached, 60, 0).save(tmp_path / "scripted")
    start("bundle:=scripted", "autostart:=true", "instruction:=sway", "execute_steps:=1")
    node = policy_node.make(**parts())
    made = Rig(node)
    made.scores = made.probe.hear(String, "policy_node/scores")
    made.handed_over = made.probe.hear(String, "policy/hand_over")
    yield made
    made.probe.close()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def scored(rig, wanted):
    """Send frames until scores of this kind come."""

    def found():
        said = [json.loads(message.data) for message in rig.scores]
        return next((one for one in said if wanted(one)), None)

    return rig.probe.until(lambda: rig.frame() and found(), "scores")


@pytest.mark.parametrize("rig", [True], indirect=True, ids=["calibrated"])
def test_an_alarm_warns_and_hands_over_only_where_that_was_asked_for(rig):
    said = scored(rig, lambda s: s.get("alarm"))
    assert said["level"] > said["threshold"] == 0.0 and "contradict" in said["reason"]
    assert not rig.handed_over, "warn is a word to people alone"
    rig.node.set_parameters([Parameter("monitor", value="hold")])
    reason = rig.probe.until(lambda: rig.frame() and rig.handed_over and rig.handed_over[0].data, "a hand-over")
    assert reason.startswith("monitor: successive plans contradict each other")
    rig.node.set_parameters([Parameter("monitor", value="warn"), Parameter("monitor_threshold", value=50.0)])
    rig.scores.clear()
    assert scored(rig, lambda s: s.get("threshold") == 50.0)["alarm"] is False


@pytest.mark.parametrize("rig", [False], indirect=True, ids=["not calibrated"])
def test_without_a_calibration_there_are_scores_and_no_hold(rig):
    assert "level" not in scored(rig, lambda s: "disagreement" in s["scores"])
    [answer] = rig.node.set_parameters([Parameter("monitor", value="hold")])
    assert not answer.successful and "udvla monitor fit" in answer.reason
    [answer] = rig.node.set_parameters([Parameter("monitor", value="none")])
    assert answer.successful
