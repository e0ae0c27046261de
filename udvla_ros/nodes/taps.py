"""Subscriptions that are emptied by polling, raw: what makes a recorder in Python cost a few percent of a core.

The middleware keeps what arrives in each subscription's own history, with the time of arrival. Fifty times a second
one thread takes all of it out as bytes. Waking the executor for each message instead takes ten times as long.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from udvla_ros.rollouts.bags.source import Sample, Source, qos_text
from udvla_ros.rollouts.bags.topics import Wanted

# Messages that a subscription holds until the next look: room for a recorder that is not run for a second or two.
DEPTH, BULKY_DEPTH = 2000, 60
LOOK_AGAIN = 2.0  # s after which the publishers of a topic are asked for their QoS again, though as many as before


class Polled(CallbackGroup):
    """Of subscriptions that no executor shall wake up for."""

    def can_execute(self, entity: Any) -> bool:
        """Return that it is never an executor's turn."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Return the same."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing begins, nothing ends."""


@dataclass
class _Tap:
    source: Source
    offered: Source  # by the publishers of now; a recording in progress keeps what it began with
    subscription: Any
    reliable: bool
    durable: bool
    profiles: list[dict[str, object]]
    publishers: int
    looked: float
    sequence: int = 0
    received: int = 0
    lost: int = 0
    count: int = 0


class Taps:
    """Everything that is recorded.

    Args:
        node: that subscribes; its namespace and remappings apply to relative names.
        wanted: topics.
        warn: takes one line when a topic cannot be recorded.
    """

    def __init__(self, node: Node, wanted: Sequence[Wanted], warn: Callable[[str], object]) -> None:
        self._node, self._warn = node, warn
        self._wanted = [
            Wanted(tuple(node.resolve_topic_name(name) for name in want.names), want.camera, want.needed)
            for want in wanted
        ]
        self._group = Polled()
        self._taps: dict[str, _Tap] = {}
        self._warned: set[str] = set()

    # -- what there is to subscribe to ---------------------------------------------------------------------
    def survey(self) -> None:
        """Subscribe to what has come, and anew where publishers now offer another QoS."""
        for want in self._wanted:
            known = next((name for name in want.names if name in self._taps), None)
            for name in (known,) if known else want.names:
                if self._look_at(name, want.camera):
                    break

    def _look_at(self, name: str, camera: bool) -> bool:
        """Return whether the topic is subscribed to now."""
        count, now = self._node.count_publishers(name), time.monotonic()
        tap = self._taps.get(name)
        if not count:
            if tap is not None:
                tap.publishers = 0
            return tap is not None
        if tap is not None and tap.publishers == count and now < tap.looked + LOOK_AGAIN:
            return True
        found = [info for info in self._node.get_publishers_info_by_topic(name) if info.topic_type]
        if not found:
            return tap is not None
        kinds = sorted({info.topic_type for info in found})
        kind = tap.source.type if tap is not None and tap.source.type in kinds else found[0].topic_type
        if len(kinds) > 1:
            self._warn_once(name, f"{name} is published as {' and as '.join(kinds)}; only {kind} is recorded")
        found = [info for info in found if info.topic_type == kind]
        message_type = message_class(kind)
        if message_type is None:
            self._warn_once(name, f"{name} cannot be recorded: {kind} is not installed here")
            return False
        qos = [info.qos_profile for info in found]
        reliable = all(q.reliability == ReliabilityPolicy.RELIABLE for q in qos)
        durable = all(q.durability == DurabilityPolicy.TRANSIENT_LOCAL for q in qos)
        profiles, told = [profile_of(q) for q in qos], str(found[0].topic_type_hash)
        if tap is not None and (tap.profiles, tap.offered.type_hash) == (profiles, told):
            source = tap.offered  # as it was: no text has to be made of it
        else:
            source = Source(name, kind, qos_text(profiles), told, durable, camera)
        if tap is None or (tap.reliable, tap.durable, tap.source.type) != (reliable, durable, kind):
            if tap is not None:
                self._node.destroy_subscription(tap.subscription)
            self._taps[name] = _Tap(
                source, source, self._subscribe(message_type, source, reliable), reliable, durable, profiles,
                count, now,
                received=tap.received if tap else 0, lost=tap.lost if tap else 0, count=tap.count if tap else 0,
            )  # fmt: skip
            return True
        if tap.publishers != count:
            tap.sequence = 0
        tap.offered, tap.profiles, tap.publishers, tap.looked = source, profiles, count, now
        return True

    def _subscribe(self, message_type: Any, source: Source, reliable: bool) -> Any:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=BULKY_DEPTH if source.bulky else DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if source.latched else DurabilityPolicy.VOLATILE,
        )
        return self._node.create_subscription(
            message_type, source.name, _never, qos, raw=True, callback_group=self._group
        )

    def _warn_once(self, name: str, text: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self._warn(text)

    # -- what they give ------------------------------------------------------------------------------------
    def drain(self) -> list[Sample]:
        """Return all that has arrived, in the order of arrival."""
        samples: list[Sample] = []
        for tap in self._taps.values():
            subscription = tap.subscription
            handle, kind = subscription.handle, subscription.msg_type
            with handle:
                for _ in range(DEPTH):
                    taken = handle.take_message(kind, True)
                    if taken is None:
                        break
                    samples.append(_sample(tap, *taken))
        samples.sort(key=lambda sample: sample.received)
        return samples

    def sources(self) -> list[Source]:
        """Return the topics as their publishers offer them now; what is drained from now on is of these."""
        for tap in self._taps.values():
            tap.source = tap.offered
        return [tap.source for tap in self._taps.values()]

    def publishers(self, name: str) -> int:
        """Return how many publishers a topic has."""
        return self._taps[name].publishers if name in self._taps else 0

    def counts(self) -> dict[str, int]:
        """Return how many messages came so far, by topic."""
        return {name: tap.count for name, tap in self._taps.items()}

    def lost(self) -> Counter[str]:
        """Return the messages, by topic, that were published and never came."""
        return Counter({name: tap.lost for name, tap in self._taps.items() if tap.lost})

    def missing(self) -> list[str]:
        """Return the topics that every episode should have and nobody publishes."""
        return [
            want.names[-1]
            for want in self._wanted
            if want.needed and not any(name in self._taps for name in want.names)
        ]


def _sample(tap: _Tap, data: bytes, info: dict[str, Any]) -> Sample:
    """Return a message as it is recorded; counts the ones missing before it."""
    received = info["received_timestamp"] or time.time_ns()
    # Readers sort by this time: it must not go back within a topic, whatever the clock does.
    tap.received = received = max(received, tap.received + 1)
    tap.count += 1
    sequence = info["publication_sequence_number"] or 0
    if tap.publishers == 1:  # of several publishers nobody says which one a number is of
        if 0 < tap.sequence < sequence - 1:
            tap.lost += sequence - 1 - tap.sequence
        tap.sequence = sequence
    return Sample(tap.source, received, info["source_timestamp"] or received, sequence, data)


def _never(_: bytes) -> None:
    """Take a message from an executor, which does not happen."""


def message_class(kind: str) -> Any:
    """Return the Python class of a message type such as ``std_msgs/msg/String``; None if it is not installed."""
    package, *middle, name = kind.split("/")
    try:
        return getattr(importlib.import_module(".".join([package, *middle])), name)
    except (ImportError, AttributeError):
        return None


def profile_of(qos: QoSProfile) -> dict[str, object]:
    """Return a QoS profile with the keys and words of rosbag2's ``metadata.yaml``, version 9."""

    def time_of(duration: Duration) -> dict[str, int]:
        return {"sec": duration.nanoseconds // 10**9, "nsec": duration.nanoseconds % 10**9}

    return {
        "history": qos.history.name.lower(),
        "depth": qos.depth,
        "reliability": qos.reliability.name.lower(),
        "durability": qos.durability.name.lower(),
        "deadline": time_of(qos.deadline),
        "lifespan": time_of(qos.lifespan),
        "liveliness": qos.liveliness.name.lower(),
        "liveliness_lease_duration": time_of(qos.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
    }
