from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from udvla_ros.nodes.writers import Runs


def told(numbers, pause: float = 0.4) -> list[bool]:
    runs = Runs(3.0)
    return [runs.add(number, pause * k) for k, number in enumerate(numbers)]


def test_one_writer_is_one_run():
    assert not any(told(range(1, 200)))


def test_a_writer_that_lost_a_few_messages_is_still_one():
    assert not any(told([1, 2, 3, 6, 7, 20, 21, 22]))


def test_a_writer_started_anew_is_no_second_one():
    assert not any(told([41, 42, 43, 1, 2, 3, 4, 5]))
    assert not any(told([3, 4, 5, 1, 2, 3, 4, 5, 6, 7, 8]))


@pytest.mark.parametrize(
    "numbers",
    [
        [41, 42, 1, 43],
        [1, 1, 2, 2],
        [10, 11, 11, 12, 12],
        [5, 6, 1, 2, 3, 7],
        [100, 1, 101, 2, 102],
    ],
)
def test_two_that_speak_in_turn_are_two(numbers):
    assert any(told(numbers))


def test_a_second_writer_that_went_away_is_forgotten():
    runs = Runs(3.0)
    assert [runs.add(n, t) for n, t in ((41, 0.0), (1, 0.1), (42, 0.2))] == [False, False, True]
    assert not any(runs.add(42 + k, 0.2 + 0.5 * k) for k in range(1, 20))


def test_a_clock_that_was_set_back_forgets_the_runs():
    runs = Runs(3.0)
    runs.add(41, 100.0)
    runs.add(1, 100.1)
    assert not runs.add(42, 50.0)


def test_two_publishers_are_told_by_name_until_one_has_left():
    from harness import ros
    from std_msgs.msg import Bool

    from udvla_ros.nodes import runtime
    from udvla_ros.nodes.writers import Writers

    with ros() as probe, ros() as first, ros() as second:
        writers, told = Writers(probe.node, "plans"), []
        probe.node.create_subscription(
            Bool, "plans", lambda message, info: told.append(writers.hear(info, probe.now())), runtime.COMMAND_QOS
        )
        publishers = [p.node.create_publisher(Bool, "plans", runtime.COMMAND_QOS) for p in (first, second)]
        probe.until(lambda: all(p.get_subscription_count() for p in publishers), "both publishers")
        for _ in range(3):
            publishers[0].publish(Bool())
        probe.until(lambda: len(told) == 3, "one writer's messages")
        assert told == [""] * 3 and writers.rivals() == ""
        for _ in range(2):
            for publisher in publishers:
                publisher.publish(Bool())
        probe.until(lambda: len(told) == 7, "both writers' messages")
        assert "two writers on plans" in told[-1] and writers.rivals()
        second.node.destroy_publisher(publishers[1])
        probe.until(lambda: not writers.rivals(), "one to be left")
