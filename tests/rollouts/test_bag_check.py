"""What ``udvla bag check`` finds: each thing that is put wrong, and nothing in an episode that is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic_bag as synthetic
from synthetic_bag import BEGIN, Recording, finished

from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.check import check


def found(folder, **options):
    """Return {kind: text} of the errors, and the report."""
    report = check(folder, **options)
    return {f.kind: f.text for f in report.findings if f.level == "error"}, report


def spoiled(tmp_path, change, **options):
    return finished(change(Recording(**options).fill()), tmp_path / "episode")


def between(topic, start, end):
    return lambda r: r.drop(lambda t, name, m: name == topic and start < t < end)


def moved(topic, change):
    def spoil(t, message):
        position, velocity = message.position.copy(), message.velocity.copy()
        change(t, position, velocity)
        return replace(message, position=position, velocity=velocity)

    return lambda r: r.replace(topic, spoil)


def test_a_good_episode_has_no_finding(tmp_path):
    errors, report = found(synthetic.episode(tmp_path / "episode"))
    assert report.good and not errors and not report.findings
    rates = {stream.topic: stream.hz for stream in report.streams}
    assert rates == {"arbiter/command": 100.0, "joint_states": 50.0, "camera front": 12.0, "camera wrist": 12.0}
    assert report.numbers["following_error_max"] == pytest.approx(0.0047, abs=5e-4)
    assert report.numbers["frame_to_trajectory_ms_p50"] == pytest.approx(120.5)


def test_the_recorders_own_files_are_good(tmp_path):
    errors, _ = found(synthetic.recorded(Recording().fill(), tmp_path / "episode"))
    assert not errors


@pytest.mark.parametrize(
    "topic, name, least",
    [
        ("/joint_states", "joint_states", 1.5), ("/arbiter/command", "arbiter/command", 0.3),
        ("/front/image_raw", "camera front", 0.7),
    ],
)  # fmt: skip
def test_a_pause_is_an_error_with_its_time(tmp_path, topic, name, least):
    folder = spoiled(tmp_path, between(topic, 2.0, 2.0 + least))
    errors, report = found(folder)
    assert name in errors["gap"] and "paused" in errors["gap"]
    at = next(f.at for f in report.findings if f.kind == "gap")
    assert at == pytest.approx(2.0, abs=0.1)


def test_a_stream_that_ends_early_is_an_error(tmp_path):
    errors, _ = found(spoiled(tmp_path, between("/wrist/image_raw", 4.0, 99.0)))
    assert "camera wrist ends" in errors["gap"]


def test_lost_images_are_counted(tmp_path):
    def drop(r):
        return r.drop(lambda t, name, m: name == "/front/image_raw" and round(t * 12) % 10 == 3)

    _, report = found(spoiled(tmp_path, drop))
    [lost] = [f for f in report.findings if f.kind == "lost"]
    assert "camera front" in lost.text
    assert next(s.lost for s in report.streams if s.topic == "camera front") == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("topic", ["/joint_states", "/arbiter/mode", "/front/image_raw", "/policy/joint_trajectory"])
def test_a_missing_topic_is_an_error(tmp_path, topic):
    errors, _ = found(spoiled(tmp_path, lambda r: r.drop(lambda t, name, m: name == topic)))
    assert topic.strip("/").split("/")[0] in errors["missing"]


def test_cameras_out_of_step(tmp_path):
    slow = Recording(camera_hz=12.0).fill()
    slow.drop(lambda t, name, m: name == "/wrist/image_raw" and round(t * 12) % 4 != 0)
    errors, _ = found(finished(slow, tmp_path / "slow"))
    assert "front and wrist" in errors["skew"]


def test_stamps_from_the_future_and_backwards(tmp_path):
    def ahead(r):
        return r.replace("/joint_states", lambda t, m: replace(m, header=synthetic.header(BEGIN + t + 0.5)))

    _, report = found(spoiled(tmp_path, ahead))
    (clock,) = [f for f in report.findings if f.kind == "clock"]
    assert "the times of reception are used" in clock.text

    def back(r):
        return r.replace(
            "/joint_states",
            lambda t, m: replace(m, header=synthetic.header(BEGIN + t - (0.1 if 2.0 < t < 2.01 else 0.0))),
        )

    errors, _ = found(finished(back(Recording().fill()), tmp_path / "back"))
    assert "backwards" in errors["order"]


@pytest.mark.parametrize(
    "topic, who", [("/arbiter/command", "commanded"), ("/joint_states", "measured")]
)
def test_positions_and_speeds_beyond_the_limits(tmp_path, topic, who):
    column = synthetic.NAMES.index("wrist_3_joint")

    def beyond(t, position, velocity):
        if 3.0 < t < 3.03:
            position[column] = 7.0

    errors, report = found(spoiled(tmp_path, moved(topic, beyond)))
    assert any(f"{who} wrist_3_joint" in f.text and "position" in f.text for f in report.findings)
    assert not report.good

    def fast(t, position, velocity):
        if 3.0 < t < 3.03:
            velocity[column] = -3.9

    errors, _ = found(finished(moved(topic, fast)(Recording().fill()), tmp_path / "fast"))
    assert f"{who} wrist_3_joint moves at 3.90 rad/s" in errors["limit"]


def test_a_jump_of_the_command_is_an_error_but_not_while_stopped(tmp_path):
    def jump(t, position, velocity):
        if t > 3.0:
            position[0] += 0.3

    errors, _ = found(spoiled(tmp_path, moved("/arbiter/command", jump)))
    assert "shoulder_pan_joint jumps by 0.3" in errors["jump"]

    stopped = moved("/arbiter/command", jump)(Recording().fill())
    stopped.add(2.9, "arbiter/mode", "std_msgs/msg/String", synthetic.text("STOPPED"))
    stopped.messages.sort(key=lambda m: m[0])
    errors, _ = found(finished(stopped, tmp_path / "stopped"))
    assert "jump" not in errors


def test_values_that_are_not_finite_or_of_another_robot(tmp_path):
    def spoil(t, position, velocity):
        if 2.0 < t < 2.05:
            position[1] = np.nan

    errors, _ = found(spoiled(tmp_path, moved("/joint_states", spoil)))
    assert "not finite" in errors["joints"]
    errors, _ = found(synthetic.episode(tmp_path / "other"), robot="panda")
    assert "names a joint of panda" in errors["joints"]


def test_counts_and_qos_of_metadata_are_held_against_the_file(tmp_path):
    folder = synthetic.episode(tmp_path / "episode")
    told = metadata.read(folder)
    told.topics[0].count += 1
    metadata.write(folder, told)
    errors, _ = found(folder)
    assert "metadata.yaml" in errors["count"]
    told.topics[0].count -= 1
    told.topics[0].qos = synthetic.qos(depth=77)
    metadata.write(folder, told)
    errors, _ = found(folder)
    assert "QoS" in errors["qos"]


def test_what_the_recorder_dropped_is_an_error(tmp_path):
    labels = {**synthetic.LABELS, "dropped": '{"/front/image_raw": 3}', "lost": '{"/wrist/image_raw": 2}'}
    errors, report = found(synthetic.episode(tmp_path / "episode", labels=labels))
    assert "/front/image_raw 3" in errors["dropped"]
    assert next(f.text for f in report.findings if f.kind == "lost").endswith("/wrist/image_raw 2")


def test_another_bundle_than_the_label_says(tmp_path):
    errors, _ = found(synthetic.episode(tmp_path / "episode", labels={**synthetic.LABELS, "bundle_hash": "beef"}))
    assert "5c417" in errors["label"] and "beef" in errors["label"]


def test_a_broken_bag_is_bad_and_says_how_to_mend_it(tmp_path):
    folder = synthetic.episode(tmp_path / "episode")
    path = next(folder.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:-9])
    errors, report = found(folder)
    assert "udvla bag repair" in errors["broken"] and not report.good


def test_a_bag_without_its_robot_asks_for_it(tmp_path):
    labels = {k: v for k, v in synthetic.LABELS.items() if k != "robot"}
    folder = synthetic.episode(tmp_path / "episode", labels=labels)
    errors, _ = found(folder)
    assert "--robot" in errors["unreadable"]
    errors, _ = found(folder, robot="ur5e_sim")
    assert not errors


def test_a_robot_file_that_has_changed_since_is_told(tmp_path):
    _, report = found(synthetic.episode(tmp_path / "episode", labels={**synthetic.LABELS, "robot_hash": "0" * 64}))
    assert report.good and any("ur5e_sim.yaml has changed" in f.text for f in report.findings)


def test_cameras_under_remapped_names_are_found(tmp_path):
    import json

    labels = {**synthetic.LABELS, "topics": json.dumps({"front/image_raw": "/left_eye/color"})}
    recording = Recording(labels=labels).fill()
    recording.messages = [
        (t, "/left_eye/color" if name == "/front/image_raw" else name, kind, m)
        for t, name, kind, m in recording.messages
    ]
    errors, report = found(finished(recording, tmp_path / "episode"))
    assert not errors and any(stream.topic == "camera front" for stream in report.streams)
