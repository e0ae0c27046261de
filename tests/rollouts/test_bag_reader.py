"""Reading recorded episodes: what is read is what was written, by us and by two readers of others."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_bag as synthetic
from bag_readers import both

from udvla_ros.nodes import images as live
from udvla_ros.rollouts import images
from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.episode import RecordedEpisode, robot_of
from udvla_ros.rollouts.bags.listing import BROKEN, WHOLE, list_episodes
from udvla_ros.rollouts.bags.reader import Bag, header_stamp, seconds
from udvla_ros.rollouts.bags.repair import write_metadata
from udvla_ros.rollouts.bags.topic import BagError


@pytest.fixture(scope="module")
def recording():
    return synthetic.Recording(duration=3.0).fill()


@pytest.fixture(scope="module")
def folder(recording, tmp_path_factory):
    return synthetic.finished(recording, tmp_path_factory.mktemp("bags") / "episode")


def test_two_other_readers_read_every_message_that_was_written(recording, folder):
    read = both(folder)
    for topic in {name for _, name, _, _ in recording.messages}:
        written = [
            bytes(synthetic.STORE.serialize_cdr(message, kind))
            for _, name, kind, message in recording.messages
            if name == topic
        ]
        assert [data for _, data in read[topic]] == written
        times = [time for time, _ in read[topic]]
        assert times == sorted(times)


def test_the_bag_reads_what_the_others_read(folder):
    read = both(folder)
    with Bag(folder) as bag:
        assert {name: topic.count for name, topic in bag.topics.items()} == {k: len(v) for k, v in read.items()}
        for name, messages in read.items():
            assert [(raw.received, raw.data) for raw in bag.raw([name])] == messages
            assert bag.topics[name].type_hash.startswith("RIHS01_")
        assert bag.count == sum(map(len, read.values()))
        assert bag.labels["outcome"] == "success"


def test_types_and_qos_of_metadata_are_those_of_the_file(folder):
    told = {topic.name: topic for topic in metadata.read(folder).topics}
    with Bag(folder) as bag:
        for name, topic in bag.topics.items():
            assert (told[name].type, told[name].type_hash) == (topic.type, topic.type_hash)
            assert metadata.profiles(told[name].qos) == metadata.profiles(topic.qos) != []
    camera = metadata.profiles(told["/front/image_raw"].qos)[0]
    assert (camera["reliability"], camera["durability"], camera["depth"]) == ("best_effort", "volatile", 1)
    assert metadata.profiles(told["/arbiter/mode"].qos)[0]["durability"] == "transient_local"


def test_joints_come_in_the_order_of_the_robot_file_whatever_the_drivers(folder):
    with Bag(folder) as bag:
        episode = RecordedEpisode(bag, robot_of(bag))
        for joints, late in ((episode.commanded, 0.0), (episode.measured, 0.02)):
            expected = [synthetic.sway(max(0.0, t - synthetic.BEGIN - late))[0] for t in joints.time]
            assert np.allclose(joints.position, expected, atol=1e-6)
        speeds = [synthetic.sway(t - synthetic.BEGIN)[1] for t in episode.commanded.time]
        assert np.allclose(episode.commanded.velocity, speeds, atol=1e-6)
        assert episode.modes.at(synthetic.BEGIN + 1.0) == "POLICY"
        assert episode.modes.at(synthetic.BEGIN + 0.5) == "HOLD"
        assert [chunk["chunk"] for chunk in episode.chunks] == [1, 2]


def test_images_are_decoded_by_the_code_that_decodes_them_live(folder):
    assert live.message_to_rgb is images.message_to_rgb
    with Bag(folder) as bag:
        frames = list(RecordedEpisode(bag, robot_of(bag)).frames("front"))
    assert len(frames) == 36
    for stamp, pixels in frames:
        assert np.array_equal(pixels, synthetic.picture("front", stamp - synthetic.BEGIN + 1e-7))


def test_stamps_are_read_without_decoding(folder):
    with Bag(folder) as bag:
        for raw in bag.raw(["/front/image_raw", "/joint_states"]):
            assert header_stamp(raw.data) == seconds(bag.decode(raw).header.stamp)
    with pytest.raises(BagError, match="no header"):
        header_stamp(b"\0\1\0\0")


def test_only_wanted_frames_are_decoded(folder):
    with Bag(folder) as bag:
        episode = RecordedEpisode(bag, robot_of(bag))
        wanted = episode.camera_stamps["wrist"][[3, 7]]
        assert [stamp for stamp, _ in episode.frames("wrist", wanted)] == wanted.tolist()


def test_topics_are_found_in_a_namespace(tmp_path):
    folder = synthetic.episode(tmp_path / "left", duration=1.5, namespace="left")
    with Bag(folder) as bag:
        assert bag.find("arbiter/command") == "/left/arbiter/command"
        assert len(RecordedEpisode(bag, robot_of(bag)).measured.time) == 75
        assert bag.find("nothing/of_that_name") is None


def test_two_robots_in_one_bag_are_not_guessed_at(tmp_path):
    recording = synthetic.Recording(duration=1.0, namespace="left").fill()
    recording.namespace = "right"
    folder = synthetic.finished(recording.fill(), tmp_path / "two")
    with Bag(folder) as bag, pytest.raises(BagError, match="one episode, one robot"):
        bag.find("joint_states")


def test_a_type_that_ros_does_not_ship_is_read_by_its_definition(tmp_path):
    from rosbags.typesys import get_types_from_msg

    text = "float64 force\nstring finger\n"
    synthetic.STORE.register(get_types_from_msg(text, "my_hand/msg/Touch"))
    recording = synthetic.Recording(duration=0.5).fill()
    recording.add(0.6, "touch", "my_hand/msg/Touch", synthetic.make("my_hand/msg/Touch", force=2.5, finger="thumb"))
    with Bag(synthetic.finished(recording, tmp_path / "hand")) as bag:
        [(name, _, message)] = bag.read("touch")
        assert (name, message.force, message.finger) == ("touch", 2.5, "thumb")


def test_labels_given_later_win(tmp_path):
    folder = synthetic.episode(tmp_path / "late", duration=0.5)
    told = metadata.read(folder)
    told.custom["outcome"] = "failure"
    metadata.write(folder, told)
    with Bag(folder) as bag:
        assert bag.labels["outcome"] == "failure" and bag.labels["instruction"] == "touch the red cube"


@pytest.mark.parametrize("cut", ["end", "metadata", "garbage"])
def test_a_broken_bag_is_refused_with_the_mend(tmp_path, cut):
    folder = synthetic.episode(tmp_path / "broken", duration=0.5)
    path = next(folder.glob("*.mcap"))
    if cut == "end":
        path.write_bytes(path.read_bytes()[:-20])
    elif cut == "metadata":
        (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 9}")
    else:
        content = bytearray(path.read_bytes())
        content[8:-8] = bytes(len(content) - 16)
        path.write_bytes(content)
    with pytest.raises(BagError, match=f"udvla bag repair {folder}"):
        Bag(folder)
    [line] = list_episodes(tmp_path)
    assert line.state == BROKEN and line.reason


def test_list_has_a_line_per_episode_the_oldest_first(tmp_path):
    for name, words in (("b", "pick up the blue cube"), ("a", "touch the red cube")):
        synthetic.episode(tmp_path / name, duration=0.5, labels={**synthetic.LABELS, "instruction": words})
    (tmp_path / "b" / "metadata.yaml").unlink()
    lines = {line.folder.rsplit("/", 1)[-1]: line for line in list_episodes(tmp_path)}
    assert (lines["a"].state, lines["a"].outcome, lines["a"].instruction) == (WHOLE, "success", "touch the red cube")
    assert lines["b"].state == BROKEN and "metadata.yaml" in lines["b"].text()
    write_metadata(tmp_path / "b")
    assert all(line.state == WHOLE for line in list_episodes(tmp_path))


def test_no_bag_is_one_line(tmp_path):
    with pytest.raises(BagError, match=r"no \*\.mcap"):
        Bag(tmp_path)
    with pytest.raises(BagError, match="is not a folder"):
        list_episodes(tmp_path / "absent")
