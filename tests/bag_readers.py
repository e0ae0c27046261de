"""Two readers that know nothing of each other or of this package, and the question whether they agree."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

Messages = dict[str, list[tuple[int, bytes]]]


def by_rosbags(folder: Path) -> Messages:
    """Return (time received in ns, CDR) of every message by topic, through ``metadata.yaml``."""
    found: Messages = defaultdict(list)
    with Reader(folder) as reader:
        for connection, time, data in reader.messages():
            found[connection.topic].append((time, bytes(data)))
        assert reader.message_count == sum(map(len, found.values()))
        for topic, told in reader.topics.items():
            assert told.msgcount == len(found[topic]), topic
    return dict(found)


def by_mcap(path: Path) -> Messages:
    """Return the same of one MCAP file, each message decoded by the definitions that the file carries."""
    found: Messages = defaultdict(list)
    with path.open("rb") as handle:
        reader = make_reader(handle, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            assert decoded is not None
            found[channel.topic].append((message.log_time, message.data))
    return dict(found)


def both(folder: Path) -> Messages:
    """Return what both readers read; fails where they differ, in bytes or in any field of any message."""
    path = next(folder.glob("*.mcap"))
    first, second = by_rosbags(folder), by_mcap(path)
    assert {k: v for k, v in first.items() if v} == second
    with AnyReader([folder]) as rosbags, path.open("rb") as handle:
        mcap = defaultdict(list)
        for row in make_reader(handle, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            mcap[row.channel.topic].append(row.decoded_message)
        for connection, _, data in rosbags.messages():
            same(rosbags.deserialize(data, connection.msgtype), mcap[connection.topic].pop(0), connection.topic)
    return second


def same(one: Any, other: Any, where: str) -> None:
    """Fail where a message of rosbags and one of mcap-ros2-support differ."""
    if hasattr(one, "__msgtype__"):
        for field in fields(one):
            if field.name != "__msgtype__" and not field.name.isupper():  # constants
                same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, (list, np.ndarray)) and not isinstance(other, (bytes, bytearray)):
        assert len(one) == len(other), where
        for a, b in zip(one, other, strict=True):
            same(a, b, where)
    elif isinstance(one, np.ndarray):
        assert one.tobytes() == bytes(other), where
    else:
        assert one == other, where
