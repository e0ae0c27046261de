"""What every node's process does: a callback that fails ends nothing, and an operator is heard however they publish."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy")

from harness import ros  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from udvla_ros.nodes import runtime  # noqa: E402


class Failing(Node):
    """Fails in its first callback, goes on, and ends with its third."""

    def __init__(self, timer: bool) -> None:
        super().__init__("failing")
        self.calls, self.faults = 0, []
        if timer:
            self.create_timer(0.01, self.tick)

    def tick(self) -> None:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("a message that\nnobody thought of")
        if self.calls == 3:
            self.context.try_shutdown()

    def fault(self, line: str) -> None:
        self.faults.append(line)


@pytest.mark.parametrize("every", [None, 0.01], ids=["spun", "paced"])
def test_a_node_lives_on_after_a_callback_that_failed_and_is_told(every, capfd):
    made = []

    def make() -> Failing:
        made.append(Failing(timer=every is None))
        return made[0]

    assert runtime.run(make, args=[], every=every) == 0
    assert made[0].calls == 3 and made[0].faults == ["ValueError: a message that nobody thought of"]
    assert "a callback failed, and was left" in capfd.readouterr().err


LATE, PLAIN = runtime.LATCHED_QOS, QoSProfile(depth=10)
LOSSY = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize("qos", [LATE, PLAIN, LOSSY], ids=["latched", "volatile", "best effort"])
def test_each_word_of_an_operator_is_heard_once_whoever_publishes_it(qos):
    with ros() as probe:
        heard: list[str] = []
        runtime.hear(probe.node, String, "instruction", lambda message: heard.append(message.data))
        publisher = probe.node.create_publisher(String, "instruction", qos)
        wanted = 2 if qos is LATE else 1  # what is not latched reaches the one that asks for nothing latched
        probe.until(lambda: publisher.get_subscription_count() == wanted, "the subscriptions", 10.0)
        for k in range(3):
            publisher.publish(String(data=f"touch it {k}"))
            probe.until(lambda k=k: f"touch it {k}" in heard, f"word {k}", 10.0)
        publisher.publish(String(data="the end"))
        probe.until(lambda: "the end" in heard, "the end", 10.0)
        assert heard == ["touch it 0", "touch it 1", "touch it 2", "the end"]


def test_a_latched_word_said_before_is_heard_and_the_same_word_said_again_counts_again():
    with ros() as probe:
        publisher = probe.node.create_publisher(String, "instruction", runtime.LATCHED_QOS)
        publisher.publish(String(data="touch it"))
        heard: list[str] = []
        runtime.hear(probe.node, String, "instruction", lambda message: heard.append(message.data))
        probe.until(lambda: heard, "the word of before", 10.0)
        probe.until(lambda: publisher.get_subscription_count() == 2, "both subscriptions", 10.0)
        publisher.publish(String(data="touch it"))
        probe.until(lambda: len(heard) == 2, "the word again", 10.0)
        publisher.publish(String(data="the end"))
        probe.until(lambda: "the end" in heard, "the end", 10.0)
        assert heard == ["touch it", "touch it", "the end"]
