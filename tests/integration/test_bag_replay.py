"""Live against bag: a short episode of the shipped policy, recorded, is what it was when it is read again."""

from __future__ import annotations

import json
import os

import pytest
from bag_readers import both
from harness import environment, ros
from std_msgs.msg import String

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.cli.main import main
from udvla_ros.nodes import runtime
from udvla_ros.resources import find
from udvla_ros.rollouts.bags.check import check
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.episodes import read_episodes

BUNDLE = "models/udvla-nano-ur5e"
# A domain of its own: the module's graph is not the session's.
DOMAIN = {"ROS_DOMAIN_ID": str(1 + (int(os.environ.get("ROS_DOMAIN_ID", "0")) + 50) % 100)}


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    """Record some seconds of the whole graph and return (folder of the bag, number of chunks heard meanwhile)."""
    find(BUNDLE)
    folder = tmp_path_factory.mktemp("bags")
    arguments = {"seed": "11", "task": "touch/red", "bundle": BUNDLE, "record": "true", "record_auto": "false"}
    nodes = graph.resolve("sim", arguments | {"record_dir": str(folder)})
    with pytest.MonkeyPatch.context() as patched, Bringup(nodes, environment(**DOMAIN), write=lambda line: None) as up:
        patched.setenv("ROS_DOMAIN_ID", DOMAIN["ROS_DOMAIN_ID"])
        up.wait_ready(90.0)
        with ros() as probe:
            heard = probe.hear(String, "policy_node/chunk_info")
            modes = probe.hear(String, "arbiter/mode", runtime.LATCHED_QOS)
            probe.until(lambda: modes and modes[-1].data == "HOLD", "HOLD")
            probe.be_known_to("policy_node")
            assert probe.call("recorder_node/start").success
            answer = probe.call("arbiter_node/engage_policy")
            assert answer.success, answer.message
            probe.until(lambda: len(heard) >= 6, "six chunks", 60.0)
            assert probe.call("arbiter_node/hold").success
            probe.until(lambda: modes[-1].data == "HOLD", "HOLD")
            answer = probe.call("recorder_node/stop_success")
            assert answer.success, answer.message
            chunks = [json.loads(message.data) for message in heard]
    [made] = folder.iterdir()
    return made, chunks


def test_both_other_readers_read_it(episode):
    folder, chunks = episode
    read = both(folder)
    with Bag(folder) as bag:
        assert {name: topic.count for name, topic in bag.topics.items() if topic.count} == {
            name: len(messages) for name, messages in read.items()
        }
        assert bag.labels["outcome"] == "success" and bag.labels["instruction"]
        assert bag.labels["bundle_hash"] == chunks[0]["bundle_hash"]
        stored = [json.loads(m.data)["stamp"] for _, _, m in bag.read("policy_node/chunk_info")]
    assert stored == [chunk["stamp"] for chunk in chunks][: len(stored)] and len(stored) >= 6


def test_its_commands_are_within_the_limits(episode):
    report = check(episode[0])
    assert not [f.text for f in report.findings if f.kind in ("limit", "jump", "joints", "count", "qos", "missing")]


def test_each_chunk_is_the_one_that_was_sent_live(episode, tmp_path, capsys):
    told = tmp_path / "replay.json"
    assert main(["bag", "replay", str(episode[0]), "--bundle", BUNDLE, "--json", str(told)]) == 0
    report = json.loads(told.read_text())
    assert report["ok"] and report["different"] == 0 and report["equal"] >= 5, report
    assert report["largest"] < 1e-6
    assert report["pictures_equal"] == report["pictures"] > 0


def test_another_seed_is_told_apart(episode, monkeypatch):
    """The comparison can fail: the same messages with other seeds give other chunks."""
    from udvla_ros.evaluation.bags import bag_replay
    from udvla_ros.policy import Policy

    true = Policy.infer
    monkeypatch.setattr(
        Policy, "infer", lambda self, seen, options, seed, **more: true(self, seen, options, seed + 1, **more)
    )
    report = bag_replay.replay(episode[0], BUNDLE)
    assert not report["ok"] and report["different"] > 0


def test_it_is_exported_for_training(episode, tmp_path):
    assert main(["bag", "export", str(episode[0]), "--out", str(tmp_path / "out")]) == 0
    [exported] = read_episodes(tmp_path / "out")
    assert exported.images["front"].shape[1:] == (48, 64, 3) and len(exported) >= 15 and exported.task == "touch"
