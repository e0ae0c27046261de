"""What is labelled was carried out, the future is what came of it, and nobody is taught to stay."""

import copy
import itertools

import numpy as np
import pytest

from udvla_ros.rollouts import record as room
from udvla_ros.rollouts.agreement import agreement
from udvla_ros.rollouts.noise import Noise
from udvla_ros.rollouts.record import CHUNK, EXECUTE, correct, demonstrate
from udvla_ros.sim.control import compose
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import TabletopWorld

TASK = Task("touch", "red")


@pytest.fixture(scope="module")
def world():
    return TabletopWorld(render=False)


@pytest.fixture(scope="module")
def shown(world):
    return demonstrate(world, sample_scene(3, TASK), TASK, np.random.default_rng(3), Noise())


def test_a_label_leads_to_the_frame_that_is_its_future(shown):
    for episode in shown:
        for step in range(episode.labelled):
            pose = episode.tcp_command[step]
            for action in episode.intention[step]:
                pose = compose(pose, action)
            future = episode.future(step, CHUNK)
            assert future == step + CHUNK
            np.testing.assert_allclose(pose, episode.tcp_command[future], atol=2e-3)


def test_labels_agree_with_what_came_and_none_says_stay(shown):
    found = agreement(shown)
    assert found["labels"] == sum(episode.labelled for episode in shown)
    assert found["apart_mm_p90"] < 2.0
    assert found["stay"] == {"touch": 0.0}
    spoilt = copy.deepcopy(shown)
    for episode in spoilt:
        episode.intention[..., :3] = 0.0
        episode.intention[..., 6] = np.where(episode.gripper_command[:-1] > 0.5, 1.0, -1.0)[:, None]
    found = agreement(spoilt)
    assert found["stay"] == {"touch": 1.0}
    assert found["apart_mm_p90"] > 30.0


def test_noise_is_between_the_stretches_and_never_in_them(shown):
    gaps = [np.abs(a.tcp_command[a.labelled] - b.tcp_command[0]).max() for a, b in itertools.pairwise(shown)]
    assert gaps
    assert min(gaps) > 1e-3
    for episode in shown:
        np.testing.assert_array_equal(episode.executed[: episode.labelled], episode.actions[: episode.labelled])


def test_only_the_last_stretch_succeeds(shown):
    assert [episode.success for episode in shown] == [False] * (len(shown) - 1) + [True]


def test_corrections_change_nothing_of_what_the_policy_does(world, monkeypatch):
    monkeypatch.setattr(room, "LONGEST", 12)
    looks = []

    def driver(images, sentence, seed):
        looks.append((world.time, world.q.copy()))
        return np.concatenate([Expert(world, TASK).plan(CHUNK)[:, :3] * 0.5, np.tile([0, 0, 0, 1.0], (CHUNK, 1))], 1)

    scene = sample_scene(5, TASK)
    made = correct(world, scene, TASK, np.random.default_rng(1), driver)
    assert len(made) == len(looks)
    for (time, q), episode in zip(looks, made, strict=True):  # each label starts where the policy looked
        np.testing.assert_allclose(episode.joints[0], q, atol=1e-6)
        assert 1 <= episode.labelled <= EXECUTE
        assert time == pytest.approx(looks.index((time, q)) * EXECUTE * 0.1, abs=1e-6)


def test_a_policy_without_an_answer_leaves_the_arm_where_it_is(world, monkeypatch):
    monkeypatch.setattr(room, "LONGEST", 12)
    made = correct(world, sample_scene(5, TASK), TASK, np.random.default_rng(1), lambda *_: None)
    assert len(made) == 3
    for episode in made:
        np.testing.assert_array_equal(episode.q_command[0], made[0].q_command[0])
