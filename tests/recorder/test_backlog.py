"""What waits for the disk, and what is kept for a snapshot: bounded, images first to go."""

from __future__ import annotations

import threading

from recorded import sample, source, string

from udvla_ros.rollouts.bags.backlog import OVERHEAD, Backlog
from udvla_ros.rollouts.bags.ring import SEVERAL, Latched, Ring

CAMERA = source("/front/image_raw", "sensor_msgs/msg/Image", camera=True)
JOINTS = source("/joint_states", "sensor_msgs/msg/JointState")
MODE = source("/arbiter/mode", latched=True)
KB = bytes(1000 - OVERHEAD)


def names(samples) -> list[str]:
    return [s.source.name for s in samples]


def test_images_are_refused_while_joint_states_still_find_room():
    backlog = Backlog(10_000)
    assert names(backlog.put(sample(CAMERA, k, KB) for k in range(9))) == [CAMERA.name] * 2
    assert not backlog.put(sample(JOINTS, k, KB) for k in range(3))
    assert names(backlog.put([sample(JOINTS, 4, KB), sample(CAMERA, 9, KB)])) == [JOINTS.name, CAMERA.name]
    assert backlog.size == 10_000


def test_order_is_kept_and_room_comes_back():
    backlog = Backlog(5_000)
    backlog.put(sample(JOINTS, k, KB) for k in range(5))
    assert [s.sequence for s in backlog.take(0.0)] == [1, 2, 3, 4, 5]
    assert backlog.size == 0 and not backlog.put([sample(CAMERA, 0, KB)])


def test_a_closed_queue_takes_no_more_and_wakes_the_writer():
    backlog = Backlog(5_000)
    backlog.put([sample(JOINTS, 0, KB)])
    threading.Timer(0.05, backlog.close).start()
    assert len(backlog.take(10.0)) == 1
    assert backlog.take(10.0) == []  # returns when it is closed, long before the timeout
    assert len(backlog.put([sample(JOINTS, 1, KB)])) == 1


def test_the_ring_forgets_by_time():
    ring = Ring(seconds=1.0, limit=1 << 20)
    for k in range(500):
        ring.extend([sample(JOINTS, k, KB)])
    kept = ring.contents()
    assert [s.sequence for s in kept] == list(range(400, 501))
    assert ring.size == len(kept) * 1000


def test_the_ring_forgets_images_first_when_memory_is_short():
    ring = Ring(seconds=1.0, limit=150_000)
    for k in range(200):
        ring.extend([sample(JOINTS, k, KB), sample(CAMERA, k, KB)])
    kept = names(ring.contents())
    assert ring.size <= 150_000
    assert kept.count(JOINTS.name) == 101 and 40 <= kept.count(CAMERA.name) < 60


def test_a_snapshot_begins_with_what_latched_topics_said_before_it():
    ring = Ring(seconds=1.0, limit=1 << 20)
    ring.extend([sample(MODE, 0, string("HOLD")), sample(MODE, 1, string("POLICY"))])
    for k in range(2, 400):
        ring.extend([sample(JOINTS, k, KB)])
    first, second = ring.contents()[:2]
    assert first.data == string("POLICY") and first.received == second.received
    assert first.published < second.published


def test_a_lead_of_less_than_the_ring_begins_with_what_held_then():
    ring = Ring(seconds=10.0, limit=1 << 20)
    ring.extend([sample(MODE, 0, string("HOLD")), sample(MODE, 5, string("POLICY"))])
    ring.extend([sample(JOINTS, k, KB) for k in range(6, 200)])
    since = sample(JOINTS, 100, KB).received
    first, second, *_ = ring.contents(since)
    assert first.data == string("POLICY") and first.received == second.received == since
    assert len(ring.contents(since)) == 101


def test_no_seconds_no_ring():
    ring = Ring(seconds=0.0, limit=1 << 20)
    ring.extend([sample(JOINTS, 0, KB)])
    assert ring.contents() == [] and ring.size == 0


def test_the_last_word_of_a_latched_topic_outlives_its_publisher():
    latched = Latched()
    latched.add(sample(MODE, 0, string("HOLD")), publishers=1)
    latched.add(sample(MODE, 1, string("POLICY")), publishers=0)
    assert [(s.data, s.received) for s in latched.at(77)] == [(string("POLICY"), 77)]


def test_of_several_publishers_every_ones_last_word_is_kept_in_order():
    latched = Latched()
    for k, text in enumerate(["base", "camera", "base", "camera 2"]):
        latched.add(sample(MODE, k, string(text)), publishers=2)
    assert [s.data for s in latched.at(0)] == [string(t) for t in ("camera", "base", "camera 2")]
    for k in range(100):
        latched.add(sample(MODE, k, string(str(k))), publishers=2)
    assert len(latched.at(0)) == SEVERAL
