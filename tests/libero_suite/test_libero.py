"""LIBERO itself behind our loop. Run with: make test-libero."""

import numpy as np
import pytest

from udvla_ros.errors import UdvlaError
from udvla_ros.evaluation.libero import suite
from udvla_ros.evaluation.libero.episode import ExpertActs, Job, other_task, run
from udvla_ros.rollouts import libero as rollouts
from udvla_ros.sim.libero import install, suites
from udvla_ros.sim.libero.expert import Expert
from udvla_ros.sim.libero.world import IDLE, SETTLE, LiberoWorld

pytestmark = [
    pytest.mark.libero,
    pytest.mark.skipif(bool(install.missing()), reason=f"{install.missing()}; {install.MEND}"),
]


@pytest.fixture(scope="module")
def world():
    made = LiberoWorld(suites.tasks("libero_object")[0])
    yield made
    made.close()


# -- what is asked for ---------------------------------------------------------------------------------
def test_every_suite_of_ten_has_sentences_and_fifty_init_states():
    for name in ("libero_object", "libero_spatial", "libero_goal", "libero_10"):
        for kind in ("", "_swap", "_task", "_lan", "_object"):
            tasks = suites.tasks(name + kind)
            assert tasks and all(task.sentence for task in tasks), name + kind
            assert suites.base_of(name + kind) == name
    assert len(suites.tasks("libero_object")[3].init_states()) == 50


def test_a_swapped_layout_has_the_trained_sentence_and_other_words_are_the_files_own():
    trained = suites.tasks("libero_object")[0].sentence
    assert suites.tasks("libero_object_swap")[0].sentence == trained
    assert suites.tasks("libero_object_task")[0].sentence in {t.sentence for t in suites.tasks("libero_object")[1:]}
    assert suites.tasks("libero_object_lan")[0].sentence == "grab alphabet soup and put it into basket"


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [("libero_cube", "all", "no suite"), ("libero_object", "10", "0 to 9"), ("libero_object", "first", "no list")],
)
def test_what_does_not_exist_is_refused(name, wanted, says):
    with pytest.raises(UdvlaError, match=says):
        suites.chosen(name, wanted)


def test_more_init_states_than_there_are_are_refused():
    with pytest.raises(UdvlaError, match="50 init states, not 51"):
        suite.check(suite.Options("libero_object", (0,), "expert", states=51))


# -- the world -----------------------------------------------------------------------------------------
def test_physics_and_pictures_are_the_published_ones(world):
    from libero.libero.envs import OffScreenRenderEnv

    task, actions = world.task, np.random.default_rng(0).uniform(-1, 1, (8, 7))
    theirs = OffScreenRenderEnv(bddl_file_name=task.scene, camera_heights=256, camera_widths=256)
    theirs.seed(0)
    theirs.reset()
    theirs.set_init_state(task.init_states()[3])
    for action in [IDLE] * SETTLE + list(actions):
        seen, *_ = theirs.step(action)
    world.reset(task.init_states()[3])
    for action in actions:
        world.step(action)
    state = theirs.env.sim.data
    assert np.array_equal(world.flat_state()[1:], np.concatenate([state.qpos, state.qvel]))
    ours = world.look()
    for name, camera in (("front", "agentview"), ("wrist", "robot0_eye_in_hand")):
        published = seen[f"{camera}_image"][::-1, ::-1].astype(float)
        apart = np.abs(ours[name] - published).mean()
        assert apart < 14, (name, apart)  # shadows, faces and multisampling: 4 to 9 of 255
        assert apart < 0.6 * np.abs(ours[name][:, ::-1] - published).mean()  # and not its mirror image
    theirs.close()


def test_a_restored_world_goes_on_the_same(world):
    world.reset(seed=5)
    expert = Expert(world)
    for _ in range(12):
        world.step(expert.act())
    left = world.snapshot()
    rounds = []
    for _ in range(2):
        world.restore(left)
        for _ in range(10):
            world.step(np.array([0.3, -0.2, -0.1, 0, 0, 0.1, 1]))
        rounds.append(world.flat_state())
    assert np.allclose(*rounds, atol=1e-9)


def test_drawn_places_are_never_the_published_ones(world):
    published = world.task.init_states()[:, 10 : world.model.nq + 1]  # the things' positions
    for seed in range(5):
        world.reset(seed=seed)
        assert np.abs(published - world.flat_state()[10 : world.model.nq + 1]).max(1).min() > 1e-3


# -- the expert and its data ---------------------------------------------------------------------------
def test_the_expert_solves_a_published_init_state(world):
    result = run(world, Job("libero_object", 0, 0), ExpertActs(), 0, 0)
    assert result.success and 40 < result.steps < 200


def test_goals_that_are_no_placing_have_no_expert():
    with pytest.raises(install.LiberoError, match=r"task 0: .* is no placing"):  # open the middle drawer
        suite.check(suite.Options("libero_goal", (0,), "expert"))
    with pytest.raises(install.LiberoError, match="is no placing"):
        rollouts.LiberoConfig(1, suite="libero_goal", tasks=(1, 0)).check()


def test_demonstrations_agree_with_what_was_done(world):
    config = rollouts.LiberoConfig(1)
    made = rollouts.make_episode(world, config, 0)
    assert made[-1].success and made[-1].success_step == made[-1].labelled
    for episode in made:
        assert len(episode) == episode.labelled + rollouts.CHUNK - 1
        assert episode.images["front"].shape[1:] == (56, 80, 3) and episode.images["wrist"].shape[1:] == (48, 48, 3)
        for step in range(episode.labelled):
            assert np.array_equal(episode.intention[step], episode.executed[step : step + rollouts.CHUNK])
            assert not rollouts.stays(episode.intention[step], episode.gripper_command[step])
    again = rollouts.make_episode(world, config, 0)
    assert len(again) == len(made) and np.allclose(again[-1].executed, made[-1].executed, atol=1e-4)


# -- many ----------------------------------------------------------------------------------------------
def test_swapped_words_name_something_that_stands_there(world):
    sentence, goal = other_task(world)
    assert sentence != world.task.sentence and goal[0][1] in world.names()
    assert not world.fulfilled(goal)


@pytest.mark.slow
def test_a_suite_is_gone_on_with(tmp_path):
    options = suite.Options("libero_object", (0,), "expert", states=1)
    told = []
    suite.run_suite(options, tmp_path, done=told.append)
    rows = suite.run_suite(suite.replace(options, states=2), tmp_path, done=told.append)
    assert [result.state for result in told] == [0, 1] and [row["state"] for row in rows] == [0, 1]
    assert list((tmp_path / "films").glob("*.mp4"))
    report = suite.summarise(suite.replace(options, states=2), rows, suite.identity(options))
    assert report["all"]["episodes"] == 2 and report["renderer"]["faces_per_mesh"] == 1000
    assert report["tasks"]["0"]["ci95"][0] <= report["tasks"]["0"]["rate"] <= report["tasks"]["0"]["ci95"][1]
