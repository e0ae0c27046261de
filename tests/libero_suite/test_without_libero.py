"""What LIBERO's rooms do on any machine: thin meshes, grasps, crops, refusals, files gone on with."""

import json
import sys

import numpy as np
import pytest

from udvla_ros.cli.main import main
from udvla_ros.errors import BundleError, ConfigError, TokenError
from udvla_ros.evaluation.libero import suite
from udvla_ros.evaluation.libero.episode import Job, Result, run
from udvla_ros.model.checkpoint import ImageConvention
from udvla_ros.policy.convention import fitted
from udvla_ros.rollouts import frames
from udvla_ros.rollouts.libero import stays
from udvla_ros.sim.libero import grasps, install
from udvla_ros.sim.libero.suites import LiberoTask
from udvla_ros.sim.libero.thin import thin
from udvla_ros.tokens.layout import View


def box(half, centre=(0.0, 0.0, 0.0)):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 7)] * 3), -1).reshape(-1, 3)
    return grid * half + centre


# -- pictures ------------------------------------------------------------------------------------------
def test_a_thinned_mesh_keeps_its_shape_and_its_texture():
    side = 40  # a wavy sheet: 3,042 faces; its texture coordinates are its x and y
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    vertices = np.stack([x, y, 0.05 * np.sin(6 * x)], -1).reshape(-1, 3)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1)
    faces = np.concatenate([
        np.stack([corner, corner + 1, corner + side], 1), np.stack([corner + 1, corner + side + 1, corner + side], 1)
    ])  # fmt: skip
    made = thin(vertices, faces, vertices[faces][..., :2], 300)
    assert len(made.faces) <= 300 and len(made.normals) == len(made.faces)
    corners = made.vertices[made.faces].reshape(-1, 3)
    assert np.abs(made.texture - corners[:, :2]).max() < 0.1
    assert np.abs(made.texture - corners[:, :2]).mean() < 0.02
    assert np.abs(corners[:, 2] - 0.05 * np.sin(6 * corners[:, 0])).max() < 0.02
    assert (made.normals[:, 2] > 0.5).all()  # as the old ones, none flipped


def test_a_crop_is_the_same_for_data_and_policy():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    part = (0.03, 0.21, 0.80, 0.56)
    theirs = frames.fitted(frames.portion(image, part), "front", 56, 80)
    view = View("front", 56, 80, 7, 10)
    assert np.array_equal(fitted(image, view, ImageConvention(turned=True, crops={"front": part}), True), theirs)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    assert np.array_equal(fitted(turned, view, ImageConvention(turned=True, crops={"front": part})), theirs)


@pytest.mark.parametrize("part", [(0.5, 0, 0.6, 1), (0, 0, 0, 1), (0, 0, 1), (-0.1, 0, 1, 1)])
def test_a_crop_beyond_the_picture_is_refused(part):
    with pytest.raises(BundleError, match="crop of front"):
        ImageConvention(crops={"front": part})


# -- grasps --------------------------------------------------------------------------------------------
def test_a_narrow_thing_is_taken_across_its_narrow_side():
    found = grasps.best(box((0.02, 0.06, 0.02), (0.1, 0.2, 0.02)), np.zeros((0, 3)), 0.3, 0.01)
    assert abs(np.sin(found.yaw)) < 0.3 and np.allclose(found.position[:2], (0.1, 0.2), atol=0.005)


def test_a_grasp_keeps_away_from_the_neighbour():
    thing = box((0.02, 0.02, 0.03))
    free = grasps.best(thing, np.zeros((0, 3)), 0.0, 0.01)
    beside = grasps.best(thing, box((0.02, 0.02, 0.03), (0.055, 0.0, 0.0)), 0.0, 0.01)
    assert abs(np.sin(free.yaw)) < 0.1  # as the fingers are
    assert abs(np.sin(beside.yaw)) > 0.7 and beside.clearance > 0
    assert grasps.clearance(np.zeros(3), 0.0, box((0.02, 0.02, 0.03), (0.055, 0.0, 0.0))) < 0


def test_a_bowl_is_taken_by_its_rim():
    angle = np.linspace(0, 2 * np.pi, 96)
    ring = 0.07 * np.stack([np.cos(angle), np.sin(angle)], 1)
    rim = np.concatenate([np.insert(ring, 2, height, 1) for height in (0.05, 0.06)])
    found = grasps.best(rim, np.zeros((0, 3)), 0.0, 0.01)
    assert np.linalg.norm(found.position[:2]) == pytest.approx(0.066, abs=0.004)
    outwards = found.position[:2] / np.linalg.norm(found.position[:2])
    assert abs(outwards @ (np.cos(found.yaw), np.sin(found.yaw))) > 0.97  # one finger inside, one outside


def test_a_label_that_closes_the_gripper_does_not_stay():
    label = np.zeros((10, 7), np.float32)
    label[:, 6] = -1
    assert stays(label, 0.0) and not stays(label, 1.0)
    label[9, 0] = 0.5
    assert not stays(label, 0.0)


# -- refusals ------------------------------------------------------------------------------------------
def test_an_absent_libero_is_one_line_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    with pytest.raises(install.LiberoError, match=r"make libero$"):
        install.require()
    with pytest.raises(install.LiberoError, match=r"make libero$"):
        install.enter(tmp_path)


def test_assets_that_are_not_whole_are_named(tmp_path, monkeypatch):
    (tmp_path / "part_1.py").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(install, "find_spec", lambda name: Spec)
    assert install.missing() == "its assets are not whole (part 2, 3, 4, 5 of 5 missing)"


def test_the_command_goes_on_in_the_interpreter_that_has_libero(tmp_path, monkeypatch):
    python = tmp_path / ".venv-libero" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    started = []
    monkeypatch.setattr(install, "missing", lambda: "nothing is here")
    monkeypatch.setattr(install.os, "execv", lambda path, words: started.append((path, words)))
    monkeypatch.setattr(sys, "argv", ["udvla", "eval", "--suite", "libero_object"])
    monkeypatch.delenv("UDVLA_LIBERO_ENTERED", raising=False)
    monkeypatch.setenv("UDVLA_LIBERO_ENTERED", "")
    install.enter(tmp_path)
    assert started == [(python, [str(python), "-m", "udvla_ros", "eval", "--suite", "libero_object"])]


@pytest.mark.parametrize("words", ["eval --suite libero_object", "data generate --suite libero_goal --out x"])
def test_commands_without_libero_are_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    monkeypatch.setenv("UDVLA_LIBERO_PYTHON", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "make libero" in said and not list(tmp_path.iterdir())


# -- the loop ------------------------------------------------------------------------------------------
class Still:
    """A world in which nothing happens; each look is a grey level brighter."""

    def __init__(self):
        self.task = LiberoTask("libero_object", 0, "x", "pick it up", 35, "", "")
        self.looks, self.played = 0, []

    def reset(self, state, seed):
        assert state.shape == (3,)

    def look(self):
        self.looks += 1
        return {"front": np.full((4, 4, 3), self.looks, np.uint8)}

    def step(self, action):
        self.played.append(action)
        return len(self.played) == 32


class Says:
    looks = True

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def begin(self, world, seed):
        pass

    def chunk(self, images, sentence):
        self.seen.append(images["front"])
        if self.answer is None:
            raise TokenError("no chunk")
        return self.answer, {}


@pytest.fixture
def still(monkeypatch):
    monkeypatch.setattr(LiberoTask, "init_states", lambda task: np.zeros((1, 3)))
    return Still()


def test_the_loop_looks_once_a_chunk_and_ends_at_success(still):
    policy = Says(np.full((10, 7), 3.0))
    result = run(still, Job("libero_object", 0, 0), policy, 8, 0)
    assert result.success and result.steps == 32 and still.looks == 4
    assert np.array_equal(still.played[0], np.ones(7))  # within the benchmark's range


def test_refused_chunks_are_counted_and_the_hand_keeps_hold(still):
    policy = Says(None)
    result = run(still, Job("libero_object", 0, 0), policy, 0, 0)
    assert result.refused == still.looks == 4
    assert all(np.array_equal(action, [0, 0, 0, 0, 0, 0, -1]) for action in still.played)


def test_without_an_image_every_pixel_is_grey(still):
    policy = Says(np.zeros((10, 7)))
    run(still, Job("libero_object", 0, 0, "no-image"), policy, 0, 0)
    assert {int(value) for image in policy.seen for value in np.unique(image)} == {128}


# -- files ---------------------------------------------------------------------------------------------
OPTIONS = suite.Options("libero_object", (0,), "expert", states=3)


def kept(out, **changes):
    return suite._open(suite.replace(OPTIONS, **changes), out)


def test_a_run_goes_on_where_a_kill_left_it(tmp_path):
    assert kept(tmp_path) == {}
    row = suite.asdict(Result("libero_object", 0, 1, "none", "pick it up", True, 80, 0, 2.0))
    (tmp_path / suite.KEPT).write_text(json.dumps(row) + "\n" + json.dumps(row)[:20])
    assert kept(tmp_path) == {Job("libero_object", 0, 1).key: row}
    assert kept(tmp_path, states=50)  # more states are the same run
    with pytest.raises(ConfigError, match="another control"):
        kept(tmp_path, control="no-image")


def test_a_full_disk_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(suite.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 1 << 20}))
    with pytest.raises(ConfigError, match="make room"):
        kept(tmp_path)


def test_a_disk_that_fills_up_keeps_what_is_there(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *_):
            pass

        def submit(self, *_):
            raise OSError(28, "No space left on device")

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(suite, "worker_pool", Full)
    with pytest.raises(ConfigError, match=r"No space left on device\); 0 episodes are kept"):
        suite._run([Job("libero_object", 0, 0)], 1, OPTIONS, tmp_path, {}, print)


def test_controls_say_nothing_of_the_expert():
    for control in ("no-image", "swapped-words"):
        with pytest.raises(ConfigError, match="expert"):
            suite.check(suite.replace(OPTIONS, control=control))
    with pytest.raises(ConfigError, match="no control 'dark'"):
        suite.check(suite.replace(OPTIONS, control="dark"))


def test_the_tabletop_bundle_is_no_policy_for_libero():
    with pytest.raises(ConfigError, match="trained on LIBERO"):
        suite.load(suite.replace(OPTIONS, policy="models/udvla-nano-ur5e"))
    with pytest.raises(ConfigError):
        suite.identity(suite.replace(OPTIONS, policy="models/none"))
