"""Generated data are resumable, reproducible, and keep evaluation's seeds free."""

import json
import multiprocessing

import numpy as np
import pytest

from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts import generate as room
from udvla_ros.rollouts import record as recorder
from udvla_ros.rollouts.generate import EVALUATION_SEEDS, Config, GenerateError, generate, make_episode
from udvla_ros.rollouts.record import CHUNK
from udvla_ros.rollouts.sheet import write_sheet
from udvla_ros.sim.tasks import parse
from udvla_ros.sim.world import TabletopWorld


@pytest.fixture(scope="module")
def blind():
    return TabletopWorld(render=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a small data set and its description."""
    folder = tmp_path_factory.mktemp("made")
    return folder, generate(folder, Config(5, seed=40), workers=1, progress=False, shard=2)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(0), "at least 1"),
        (Config(1, tasks=("juggle",)), "juggle"),
        (Config(1, tasks=()), "--tasks"),
        (Config(1, light=2.0), "--light"),
        (Config(1, camera=-1.0), "--camera"),
        (Config(1, noise=-1.0), "--noise"),
        (Config(1, seed=-1), "--seed"),
        (Config(1, seed=EVALUATION_SEEDS), "kept for evaluation"),
        (Config(11, seed=EVALUATION_SEEDS - 10), "kept for evaluation"),
    ],
)
def test_wrong_configs_are_one_line(tmp_path, config, words):
    with pytest.raises(GenerateError, match=words) as caught:
        generate(tmp_path / "out", config, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_last_training_seed_is_allowed():
    Config(10, seed=EVALUATION_SEEDS - 10).check()


def test_episodes_are_complete(made):
    folder, description = made
    episodes = list(disk.read_episodes(folder))
    assert len(episodes) == description["stretches"] > description["episodes"] == 5
    assert sorted({e.seed: e.task for e in episodes}.items()) == [
        (40, "touch"), (41, "pick"), (42, "push"), (43, "place"), (44, "touch"),
    ]  # fmt: skip
    for episode in episodes:
        steps = len(episode)
        assert steps == episode.labelled + CHUNK - 1
        assert episode.success_step in (-1, episode.labelled)
        asked = parse(episode.instruction)
        assert (asked.kind, asked.colour) == (episode.task, episode.colour)
        assert episode.images["front"].shape == (steps + 1, 48, 64, 3)
        assert episode.images["wrist"].shape == (steps + 1, 32, 32, 3)
        assert episode.intention.shape == (steps, 8, 7)
        assert episode.intention.dtype == episode.executed.dtype == np.float32
        assert len(episode.joints) == len(episode.q_command) == len(episode.cubes) == steps + 1


def test_executed_actions_lead_from_pose_to_pose(made):
    for episode in disk.read_episodes(made[0]):
        moved = np.diff(episode.tcp_command[:, :3, 3], axis=0)
        np.testing.assert_allclose(moved, episode.executed[:, :3], atol=3e-4)


def test_description_counts(made):
    folder, description = made
    assert disk.read_description(folder) == json.loads(json.dumps(description))
    assert description["shards"] == 3
    episodes = list(disk.read_episodes(folder))
    assert description["labels"] == sum(e.labelled for e in episodes)
    assert description["frames"] == sum(len(e) + 1 for e in episodes)
    assert sum(description["episodes_per_task"].values()) == 5
    assert description["seeds"] == [40, 44]
    assert set(description["expert_success"]) == {"touch", "pick", "push", "place"}


def test_a_finished_run_makes_nothing_new(made, monkeypatch):
    monkeypatch.setattr(room, "_run", lambda *_: pytest.fail("ran again"))
    generate(made[0], Config(5, seed=40), progress=False, shard=2)


def test_a_lost_shard_is_made_again_the_same_by_two_workers(made):
    folder, _ = made
    shards = disk.shard_paths(folder)
    before = [path.read_bytes() for path in shards]
    kept = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    shards[2].unlink()
    generate(folder, Config(5, seed=40), workers=2, progress=False, shard=2)
    assert shards[0].stat().st_mtime_ns == kept
    assert [path.read_bytes() for path in shards] == before


def test_another_config_is_not_mixed_in(made):
    with pytest.raises(GenerateError, match="another"):
        generate(made[0], Config(5, seed=41), progress=False, shard=2)


def test_longer_data_go_on_where_shorter_ones_ended(tmp_path, blind, monkeypatch):
    monkeypatch.setattr(room, "_counter", multiprocessing.Value("q", 0))
    config = {"seed": 60, "tasks": ("touch",)}
    monkeypatch.setattr(room, "_make", lambda index: room.make_episode(blind, Config(3, **config), index))
    monkeypatch.setattr(room, "_run", lambda jobs, *_: [room._make_shard(*job) for job in jobs])
    generate(tmp_path / "grown", Config(1, **config), progress=False, shard=2)
    first = disk.shard_paths(tmp_path / "grown")[0].read_bytes()
    grown = generate(tmp_path / "grown", Config(3, **config), progress=False, shard=2)
    assert disk.shard_paths(tmp_path / "grown")[0].read_bytes() == first
    assert grown["seeds"] == [60, 62]
    assert sorted({e.seed for e in disk.read_episodes(tmp_path / "grown")}) == [60, 61, 62]
    with pytest.raises(GenerateError, match="another"):
        generate(tmp_path / "grown", Config(2, **config), progress=False, shard=2)


def test_foreign_shards_are_left_alone(tmp_path):
    (tmp_path / "shard-00000.npz").write_bytes(b"somebody's")
    with pytest.raises(GenerateError, match=r"without config\.json"):
        generate(tmp_path, Config(1), progress=False)
    assert (tmp_path / "shard-00000.npz").read_bytes() == b"somebody's"


def test_an_episode_depends_on_its_seed_only(blind):
    first = make_episode(blind, Config(100, seed=0), 4)
    other = make_episode(blind, Config(50, seed=4), 0)  # the same seed and kind, another place
    assert [e.instruction for e in first] == [e.instruction for e in other]
    for one, another in zip(first, other, strict=True):
        np.testing.assert_array_equal(one.executed, another.executed)


def test_failures_are_counted_and_skipped(blind, monkeypatch):
    calls = []

    def fails_twice(world, scene, task, rng, noise, seed, attempt):
        calls.append(attempt)
        return recorder.demonstrate(world, scene, task, rng, noise, seed, attempt) if attempt == 2 else []

    monkeypatch.setattr(room, "demonstrate", fails_twice)
    made = make_episode(blind, Config(1), 0)
    assert calls == [0, 1, 2]
    assert {e.attempt for e in made} == {2}


def test_endless_failure_is_an_error(blind, monkeypatch):
    monkeypatch.setattr(room, "demonstrate", lambda *_: [])
    with pytest.raises(GenerateError, match="lower --noise"):
        make_episode(blind, Config(1), 0)


def test_sheet_is_a_picture(made, tmp_path):
    from PIL import Image

    write_sheet(made[0], tmp_path / "sheet.png", episodes=2)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
        assert image.height > 300
