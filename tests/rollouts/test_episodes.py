"""What is written is what is read, whole or not at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import make

from udvla_ros.rollouts import episodes as disk


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_round_trip(tmp_path_factory, lengths):
    path = tmp_path_factory.mktemp("data") / "shard-00000.npz"
    written = [make(length, seed) for seed, length in enumerate(lengths)]
    disk.write_shard(path, written)
    read = list(disk.read_episodes(path.parent))
    assert [len(e) for e in read] == lengths
    for one, other in zip(written, read, strict=True):
        assert list(one.images) == list(other.images)
        for name, images in one.images.items():
            np.testing.assert_array_equal(images, other.images[name])
        for name, value in vars(one).items():
            if name == "images":
                continue
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
            assert isinstance(getattr(other, name), type(value))


def test_future_frames_clamp_to_the_last():
    episode = make(5)
    assert [episode.future(t, 3) for t in range(5)] == [3, 4, 5, 5, 5]
    assert episode.future(0, 8) == len(episode) == len(episode.images["side"]) - 1


def test_actions_are_the_first_of_each_intention():
    episode = make(4)
    np.testing.assert_array_equal(episode.actions, episode.intention[:, 0])


def test_nothing_half_written_stays(tmp_path):
    path = tmp_path / "shard-00000.npz"

    def fails(handle):
        handle.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disk.write_atomically(path, fails)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 torn"])
def test_a_torn_shard_is_one_line(tmp_path, content):
    path = tmp_path / "shard-00000.npz"
    path.write_bytes(content)
    with pytest.raises(disk.DatasetError, match="not a shard") as caught:
        disk.read_shard(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_shard_is_one_line(tmp_path):
    path = tmp_path / "shard-00000.npz"
    disk.write_shard(path, [make(3)])
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(disk.DatasetError, match="not a shard"):
        disk.read_shard(path)


def test_pickles_are_not_opened(tmp_path):
    path = tmp_path / "shard-00000.npz"
    np.savez(path, **{name: np.array([{"a": 1}], object) for name in (*vars(make(1)), "actions_per_episode")})
    with pytest.raises(disk.DatasetError, match="allow_pickle"):
        disk.read_shard(path)


def test_a_shard_that_lacks_an_array_is_refused(tmp_path):
    path = tmp_path / "shard-00000.npz"
    np.savez(path, front=np.zeros(3))
    with pytest.raises(disk.DatasetError, match="not a shard"):
        disk.read_shard(path)


def test_an_empty_folder_names_the_command(tmp_path):
    with pytest.raises(disk.DatasetError, match="udvla data generate"):
        next(disk.read_episodes(tmp_path))


def test_a_description_of_another_version_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"format": "udvla_ros episodes", "version": 99}')
    with pytest.raises(disk.DatasetError, match="version"):
        disk.read_description(tmp_path)


def test_an_unfinished_data_set_says_so(tmp_path):
    with pytest.raises(disk.DatasetError, match="did not finish"):
        disk.read_description(tmp_path)
