"""Whatever a disk makes of a bag: it is read as it was written, or it is told of; list and check go on."""

from __future__ import annotations

import shutil

import pytest
from fuzzing import damages, examples
from hypothesis import given
from hypothesis import strategies as st
from synthetic_bag import Recording, finished

from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts.bags.check import check
from udvla_ros.rollouts.bags.listing import list_episodes
from udvla_ros.rollouts.bags.reader import Bag


def read(folder):
    with Bag(folder) as bag:
        return [(raw.topic, raw.received, raw.data) for raw in bag.raw()], dict(bag.labels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    recording = Recording().fill()
    recording.messages = recording.messages[:60]
    folder = finished(recording, tmp_path_factory.mktemp("bags") / "bag", chunk_size=2048)
    return folder, read(folder)


@examples(200)
@given(damage=damages(), name=st.sampled_from(["bag_0.mcap", "bag_0.mcap", "metadata.yaml"]))
def test_a_damaged_bag_gives_its_own_messages_or_is_told_of(whole, damage, name, tmp_path_factory):
    folder, (messages, _) = whole
    damaged = tmp_path_factory.mktemp("damaged") / "bag"
    shutil.copytree(folder, damaged)
    (damaged / name).write_bytes(damage((folder / name).read_bytes()))
    try:
        found, _ = read(damaged)
    except UdvlaError as error:
        assert "\n" not in str(error)
        found = None
    if found is not None and found != messages:  # less than there was, or under another name: never other bytes
        assert {data for _, _, data in found} <= {data for _, _, data in messages}
        assert not check(damaged).good
    [line] = list_episodes(damaged.parent)
    assert "\n" not in line.text()
    shutil.rmtree(damaged.parent)
