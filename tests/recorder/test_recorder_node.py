"""``recorder_node`` as a process: everything that was published is in the bag, or was said to be missing."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from bag_readers import both
from diagnostic_msgs.msg import DiagnosticArray
from harness import environment, skip_where_time_is_not_real
from mcap.reader import make_reader
from recorder_probe import CAMERAS, JOINTS, Recorder, load
from rosbags.rosbag2 import Reader
from std_msgs.msg import String

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.nodes import runtime
from udvla_ros.rollouts.bags import metadata, schemas
from udvla_ros.rollouts.bags.reader import Bag, what_is_broken
from udvla_ros.rollouts.bags.repair import repair
from udvla_ros.rollouts.bags.source import text_of

pytestmark = pytest.mark.integration


def sequences(folder: Path) -> dict[str, list[int]]:
    """Return the publishers' own numbers of the messages in a bag."""
    found: dict[str, list[int]] = {}
    with next(folder.glob("*.mcap")).open("rb") as handle:
        for _, channel, message in make_reader(handle).iter_messages():
            found.setdefault(channel.topic, []).append(message.sequence)
    return found


def test_a_bag_holds_what_was_published_no_more_no_less(running, probe):
    recorder = running(load("cameras"), load("joints", hz=500.0))
    instruction = probe.publisher(String, "instruction", runtime.LATCHED_QOS)
    instruction.publish(String(data="touch the red cube"))
    recorder.meet("cameras", "joints", topics=[*CAMERAS, JOINTS, "/instruction"])
    folder = Path(recorder.call("start"))
    assert "being recorded" in recorder.refused("start") and "being recorded" in recorder.refused("snapshot")
    recorder.begin("cameras", "joints")
    recorder.until(lambda said: said["messages"] > 800, "800 messages")
    published = recorder.end("cameras", "joints")
    assert recorder.call("stop_success") == str(folder)

    found = both(folder)
    assert {topic: len(found[topic]) for topic in published} == published
    for topic in published:
        numbers = sequences(folder)[topic]
        assert numbers == list(range(numbers[0], numbers[0] + published[topic]))
    assert len(found["/instruction"]) == 1  # said before the start, and latched
    with Reader(folder) as reader:
        told = {c.topic: c for c in reader.connections}
        assert told["/front/image_raw"].msgtype == "sensor_msgs/msg/Image"
        for name, (reliability, durability) in {
            "/front/image_raw": ("BEST_EFFORT", "VOLATILE"), JOINTS: ("RELIABLE", "VOLATILE"),
            "/instruction": ("RELIABLE", "TRANSIENT_LOCAL"),
        }.items():  # fmt: skip
            assert told[name].digest == schemas.type_hash(told[name].msgtype)
            (profile,) = told[name].ext.offered_qos_profiles
            assert (profile.reliability.name, profile.durability.name) == (reliability, durability)
    with Bag(folder) as bag:
        assert bag.labels["instruction"] == "touch the red cube" and bag.labels["outcome"] == "success"
        assert len(bag.labels["robot_hash"]) == 64 and json.loads(bag.labels["dropped"]) == {}
        assert float(bag.labels["started"]) <= bag.start * 1e-9 <= bag.end * 1e-9 <= float(bag.labels["ended"])
    assert recorder.status["last"]["outcome"] == "success" and recorder.status["last"]["dropped"] == 0


def test_discard_failure_snapshot_and_a_label_that_comes_late(running, probe):
    recorder = running(load("joints", hz=100.0), snapshot_seconds=1.0)
    assert "~/start" in recorder.refused("discard")
    recorder.meet("joints", topics=[JOINTS])
    recorder.begin("joints")
    recorder.call("start")
    recorder.until(lambda said: said["messages"] > 20, "20 messages")
    recorder.call("discard")
    assert list(recorder.folder.iterdir()) == []
    recorder.until(lambda said: said["topics"][JOINTS] > 150, "more than a second of messages")
    snapshot = Path(recorder.call("snapshot"))
    received = [time for time, _ in both(snapshot)[JOINTS]]
    assert 60 < len(received) < 105 and 0.8 < (received[-1] - received[0]) * 1e-9 <= 1.0
    assert metadata.read(snapshot).custom["kind"] == "snapshot"
    assert recorder.call("stop_failure").endswith("failure")  # nobody had said how it went
    assert metadata.read(snapshot).custom["outcome"] == "failure"
    assert "~/start" in recorder.refused("stop_success")  # now somebody has
    folder = Path(recorder.call("start"))
    recorder.until(lambda said: said["messages"] > 20, "20 messages")
    recorder.call("stop_failure")
    assert metadata.read(folder).custom["outcome"] == "failure"


def test_automatic_episodes_follow_the_policy_through_a_takeover(running, probe):
    recorder = running(auto=True, settle=0.2)
    mode = probe.publisher(String, "arbiter/mode", runtime.LATCHED_QOS)
    episode = probe.publisher(String, "sim_node/episode", runtime.LATCHED_QOS)
    text = probe.publisher(String, "/counted/text", runtime.COMMAND_QOS)
    mode.publish(String(data="HOLD"))
    recorder.until(lambda said: said["topics"].get("/arbiter/mode") == 1, "the mode")
    mode.publish(String(data="POLICY"))
    recorder.until(lambda said: said["state"] == "RECORDING", "the start")
    for k, word in enumerate(("TELEOP", "POLICY")):
        text.publish(String(data=str(k)))
        mode.publish(String(data=word))
    episode.publish(String(data=json.dumps({"state": "succeeded"})))
    recorder.until(lambda said: said["topics"].get("/sim_node/episode"), "the simulation's word")
    assert recorder.status["state"] == "RECORDING"
    mode.publish(String(data="STOPPED"))
    recorder.until(lambda said: said["state"] == "IDLE" and said["last"], "the end")
    last = recorder.status["last"]
    assert last["outcome"] == "success"
    found = both(Path(last["folder"]))
    modes = [text_of(data) for _, data in found["/arbiter/mode"]]
    assert modes == ["HOLD", "POLICY", "TELEOP", "POLICY", "STOPPED"]  # from before the start on
    assert len(found["/counted/text"]) == 2
    assert metadata.read(Path(last["folder"])).custom["labelled_by"] == "simulation"


def test_a_publisher_that_comes_late_and_one_of_another_qos_are_recorded(running, probe):
    recorder = running()
    folder = Path(recorder.call("start"))
    first = probe.publisher(String, "/counted/text", runtime.COMMAND_QOS)
    first.publish(String(data="reliable"))
    recorder.until(lambda said: said["topics"].get("/counted/text") == 1, "the first publisher")
    second = probe.node.create_publisher(String, "/counted/text", runtime.CAMERA_QOS)
    # A reliable subscription does not hear a best-effort publisher: the recorder has to subscribe anew.
    probe.until(lambda: second.get_subscription_count() > 0, "the recorder to hear both")
    second.publish(String(data="best effort"))
    recorder.until(lambda said: said["topics"].get("/counted/text") == 2, "the second publisher")
    recorder.call("stop_success")
    assert len(both(folder)["/counted/text"]) == 2


def test_images_are_recorded_compressed_by_choice(running, probe):
    recorder = running(load("cameras", hz=5.0), images="compressed")
    recorder.meet("cameras", topics=CAMERAS)
    folder = Path(recorder.call("start"))
    recorder.begin("cameras")
    recorder.until(lambda said: said["messages"] >= 10, "some images")
    published = recorder.end("cameras")
    recorder.call("stop_success")
    found = both(folder)
    for topic, count in published.items():
        assert len(found[f"{topic}/compressed"]) == count and topic not in found
        assert max(len(data) for _, data in found[f"{topic}/compressed"]) < 640 * 480


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 MB in place of the folder for bags."""
    import os
    import subprocess

    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mount = tmp_path / "bags"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.parametrize("min_free_mb", [0, 48])
def test_a_full_disk_ends_the_recording_and_nothing_else(small_disk, running, probe, min_free_mb):
    recorder = running(load("cameras"), load("joints"), min_free_mb=min_free_mb)
    told = probe.hear(DiagnosticArray, "/diagnostics")
    recorder.meet("cameras", "joints", topics=[*CAMERAS, JOINTS])
    recorder.call("start")
    recorder.begin("cameras", "joints")
    recorder.until(lambda said: said["state"] == "IDLE" and said["error"], "the error")
    last = recorder.status["last"]
    assert "free some space" in last["error"] and last["error"] == recorder.status["error"]
    probe.until(
        lambda: any("free some space" in s.message for m in told for s in m.status if s.name == "recorder_node"),
        "the error among the diagnostics",
    )
    folder = Path(last["folder"])
    assert not what_is_broken(folder)
    found = both(folder)
    assert sum(map(len, found.values())) == last["messages"] > 10
    before = recorder.status["topics"][JOINTS]
    recorder.until(lambda said: said["topics"][JOINTS] > before, "the graph to go on")
    if min_free_mb:
        assert "min_free_mb" in recorder.refused("start")
    (folder / f"{folder.name}_0.mcap").unlink()  # a person makes room
    recorder.end("cameras")
    again = Path(recorder.call("start"))
    recorder.until(lambda said: said["messages"] > 20, "a new recording")
    recorder.call("stop_success")
    assert len(both(again)[JOINTS]) > 15


def test_the_end_of_the_process_is_the_end_of_the_bag(running, probe):
    recorder = running(load("joints"))
    recorder.meet("joints", topics=[JOINTS])
    folder = Path(recorder.call("start"))
    recorder.begin("joints")
    recorder.until(lambda said: said["messages"] > 20, "20 messages")
    recorder.bringup.kill("recorder_node", signal.SIGINT)
    recorder.bringup._processes["recorder_node"].popen.wait(10.0)
    assert recorder.bringup.codes()["recorder_node"] == 0
    assert len(both(folder)[JOINTS]) > 20
    assert metadata.read(folder).custom["outcome"] == "unknown"


def test_a_kill_costs_at_most_a_second_and_repair_brings_back_the_rest(running, probe, kills):
    skip_where_time_is_not_real()
    recorder = running(load("cameras"), load("joints"))
    recorder.meet("cameras", "joints", topics=[*CAMERAS, JOINTS])
    losses = []
    for kill in range(kills):
        folder = Path(recorder.call("start"))
        recorder.begin("cameras", "joints")
        # Never at the same point of the half second between two flushes.
        enough = 150 + (137 * kill) % 240
        recorder.until(lambda said, enough=enough: said.get("messages", 0) > enough, "messages")
        at = probe.now()
        recorder.bringup.kill("recorder_node", signal.SIGKILL)
        recorder.bringup._processes["recorder_node"].popen.wait(10.0)
        recorder.end("cameras", "joints")
        assert what_is_broken(folder)
        repair(folder)
        found = both(folder)
        for topic in (JOINTS, *CAMERAS):
            losses.append(at - found[topic][-1][0] * 1e-9)
            numbers = sequences(folder)[topic]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a hole before the end"
        assert metadata.read(folder).custom["outcome"] == "interrupted"
        for file in folder.iterdir():
            file.unlink()
        recorder.forget()
        recorder.bringup.start(["recorder_node"])
        recorder.bringup.wait_ready(60.0, ["recorder_node"])
        recorder.meet("cameras", "joints", topics=[*CAMERAS, JOINTS])
    print(f"{kills} kills: lost at most {max(losses):.3f} s")
    assert max(losses) < 1.0


def test_the_whole_graph_leaves_a_labelled_bag_of_its_own_accord(probe, tmp_path):
    pytest.importorskip("mujoco")
    nodes = graph.resolve(
        "sim",
        {
            "seed": "3", "task": "touch/red", "bundle": "scripted", "instruction": "touch the red cube",
            "record": "true", "record_dir": str(tmp_path),
        },
    )  # fmt: skip
    nodes = [replace(n, module="scripted_policy") if n.name == "policy_node" else n for n in nodes]
    with Bringup(nodes, environment(), write=lambda line: None) as bringup:
        bringup.wait_ready(90.0)
        recorder = Recorder(bringup, probe, tmp_path)
        told = probe.hear(String, "arbiter/mode", runtime.LATCHED_QOS)
        probe.until(lambda: told and told[-1].data == "HOLD", "the arbiter to hold")
        wanted = [*CAMERAS, JOINTS, "/arbiter/command", "/arbiter/mode", "/sim_node/episode", "/instruction"]
        recorder.until(lambda said: all(said["topics"].get(name) for name in wanted), "every topic that is alive")
        assert probe.call("arbiter_node/engage_policy").success
        recorder.until(lambda said: said["state"] == "RECORDING", "the start")
        recorder.until(lambda said: said["topics"].get("/policy_node/chunk_info", 0) >= 3, "three chunks")
        assert probe.call("arbiter_node/stop").success
        recorder.until(lambda said: said["state"] == "IDLE" and said["last"], "the end")
        folder = Path(recorder.status["last"]["folder"])
    found = both(folder)
    assert set(found) >= {
        *wanted, "/policy/joint_trajectory", "/policy_node/predicted_image", "/policy_node/predicted_image/wrist",
        "/policy_node/chunk_info", "/arbiter/mode_reason", "/diagnostics",
        "/joint_trajectory_controller/joint_trajectory", "/gripper_controller/joint_trajectory",
    }  # fmt: skip
    assert len(found["/policy_node/chunk_info"]) == len(found["/policy/joint_trajectory"]) >= 3
    for topic in ("/arbiter/command", JOINTS, "/policy_node/chunk_info", *CAMERAS):
        numbers = sequences(folder)[topic]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"a hole in {topic}"
    with Bag(folder) as bag:
        modes = [text_of(raw.data) for raw in bag.raw(["/arbiter/mode"])]
        assert modes == ["HOLD", "POLICY", "STOPPED"]
        assert bag.labels["instruction"] == "touch the red cube" and bag.labels["bundle_hash"] == "5c417"
        assert json.loads(bag.labels["decoder"])["denoise_steps"] == 5
