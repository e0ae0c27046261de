"""Bags to training data: every label is what was commanded, every picture what was seen then."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic_bag as synthetic
from synthetic_bag import BEGIN, DT, ROBOT, Recording, finished

from udvla_ros.motion.action_space import TcpDeltaSpace
from udvla_ros.rollouts.bags.export import Wish, export_episodes
from udvla_ros.rollouts.bags.lerobot import _Statistics, export_lerobot
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.episodes import read_description, read_episodes
from udvla_ros.rollouts.images import to_rgb


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic.episode(tmp_path_factory.mktemp("bags") / "episode")


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    report = export_episodes([folder], out, Wish())
    [episode] = read_episodes(out)
    return report, out, episode




def stamps_of(folder):
    from udvla_ros.rollouts.bags.episode import RecordedEpisode, robot_of
    from udvla_ros.rollouts.bags.reader import Bag
    from udvla_ros.rollouts.bags.steps import take_steps

    with Bag(folder) as bag:
        return take_steps(RecordedEpisode(bag, robot_of(bag)))


def test_it_is_read_as_any_episode_and_says_where_it_is_from(exported, folder):
    report, out, episode = exported
    told = read_description(out)
    assert told["bags"] == [str(folder)] == report.taken and told["control_hz"] == 10.0
    assert told["cameras"] == {"front": [48, 64], "wrist": [32, 32]}
    assert (told["actions"], told["frames"]) == (len(episode), len(episode) + 1)
    assert episode.instruction == "touch the red cube" and episode.success and episode.success_step == len(episode)
    assert episode.images["front"].shape == (len(episode) + 1, 48, 64, 3)
    assert episode.intention.shape == (len(episode), 8, 7)


def test_what_is_not_known_is_not_made_up(exported):
    _, _, episode = exported
    assert np.isnan(episode.cubes).all() and episode.seed == -1 and (episode.task, episode.colour) == ("", "")


def test_it_begins_with_the_motion_and_ends_soon_after_it(folder):
    steps = stamps_of(folder)
    assert steps.time[0] - BEGIN == pytest.approx(0.95, abs=0.1)
    assert steps.time[-1] - BEGIN == pytest.approx(5.3, abs=0.15)
    grid = steps.time[0] + DT * np.arange(len(steps) + 1)
    assert (np.abs(steps.time - grid) < 0.09).all(), "no further from the grid than a camera at 12 Hz is"


def test_pictures_and_joints_belong_to_their_step(folder, exported):
    steps, (_, _, episode) = stamps_of(folder), exported
    for k, stamp in enumerate(steps.time):
        since = stamp - BEGIN
        assert np.array_equal(episode.images["front"][k], synthetic.picture("front", since + 1e-7))
        assert np.array_equal(episode.images["wrist"][k], synthetic.picture("wrist", since + 1e-7))
        expected = synthetic.sway(since)[0]
        assert np.allclose(episode.q_command[k], expected[:6], atol=2e-4)
        assert np.allclose(episode.joints[k], synthetic.sway(since - 0.02)[0][:6], atol=1e-3)
        assert episode.gripper_command[k] == pytest.approx(expected[6] / 0.8, abs=0.03)
        assert np.allclose(episode.tcp_command[k], ROBOT.kinematics.forward(expected[:6]), atol=1e-3)


def test_carried_out_the_labels_lead_where_the_arm_was_commanded(folder, exported):
    """The very path of the policy's actions: inverse kinematics from the commanded joints."""
    steps, (_, _, episode) = stamps_of(folder), exported
    space = TcpDeltaSpace(ROBOT)
    for k in range(0, len(steps), 5):
        targets = space.targets(episode.intention[k].astype(float), episode.q_command[k].astype(float))
        expected = [synthetic.sway(steps.time[k] - BEGIN + (j + 1) * DT)[0] for j in range(8)]
        assert np.allclose(targets.q, np.array(expected)[:, :6], atol=1.5e-3)
    assert np.array_equal(episode.executed, episode.intention[:, 0])


def test_the_gripper_is_commanded_to_where_it_goes(folder, exported):
    steps, (_, _, episode) = stamps_of(folder), exported
    closing = steps.time[:-1] - BEGIN
    assert (episode.actions[closing < 2.85, 6] == -1).all()
    assert (episode.actions[closing > 3.0, 6] == 1).all()


def test_only_successes_unless_asked(tmp_path):
    for name in ("success", "failure", "unknown"):
        synthetic.episode(tmp_path / "bags" / name, duration=4.0, labels={**synthetic.LABELS, "outcome": name})
    folders = sorted((tmp_path / "bags").iterdir())
    report = export_episodes(folders, tmp_path / "some", Wish())
    assert [f.rsplit("/", 1)[-1] for f in report.taken] == ["success"]
    assert set(report.left_out.values()) == {"its outcome is failure", "its outcome is unknown"}
    report = export_episodes(folders, tmp_path / "all", Wish(outcome="any"))
    assert len(report.taken) == 3
    assert [e.success for e in read_episodes(tmp_path / "all")] == [False, True, False]
    assert read_description(tmp_path / "all")["outcomes"] == {"failure": 1, "success": 1, "unknown": 1}


def test_resized_by_choice(folder, tmp_path):
    export_episodes([folder], tmp_path / "out", Wish(sizes={"front": (24, 32)}))
    [episode] = read_episodes(tmp_path / "out")
    assert episode.images["front"].shape[1:] == (24, 32, 3) and episode.images["wrist"].shape[1:] == (32, 32, 3)


def test_the_simulations_word_names_the_task(tmp_path):
    recording = Recording().fill()
    said = {"number": 1, "seed": 77, "task": "touch/red", "state": "succeeded", "success": True}
    recording.add(5.5, "sim_node/episode", "std_msgs/msg/String", synthetic.text(json.dumps(said)))
    export_episodes([finished(recording, tmp_path / "episode")], tmp_path / "out", Wish())
    [episode] = read_episodes(tmp_path / "out")
    assert (episode.task, episode.colour, episode.seed) == ("touch", "red", 77)


def no_pause(recording):
    return recording.drop(lambda t, topic, m: topic == "/front/image_raw" and 2.0 < t < 2.5)


def nobody(recording):
    return recording.replace("/arbiter/mode", lambda t, m: synthetic.text("HOLD"))


def no_wrist(recording):
    return recording.drop(lambda t, topic, m: topic == "/wrist/image_raw")


def blind(recording):
    return recording.drop(lambda t, topic, m: topic == "/arbiter/command" and 2.0 < t < 3.0)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (no_pause, "camera front paused for"), (nobody, "neither the policy nor teleop"),
        (no_wrist, "camera wrist (wrist/image_raw) was not recorded"), (blind, "arbiter/command paused"),
    ],
)  # fmt: skip
def test_what_is_not_fit_to_learn_from_is_left_out_with_its_reason(folder, tmp_path, spoil, words):
    bad = finished(spoil(Recording().fill()), tmp_path / "bad")
    report = export_episodes([folder, bad], tmp_path / "out", Wish())
    assert words in report.left_out[str(bad)] and len(report.taken) == 1
    with pytest.raises(BagError, match="nothing to export"):
        export_episodes([bad], tmp_path / "none", Wish())


def driver_of_its_own(recording):
    """The gripper's joint comes in messages of its own, half a millisecond after the arm's."""
    *arm, fingers = synthetic.NAMES
    messages = []
    for time, topic, kind, m in recording.messages:
        if topic != "/joint_states":
            messages.append((time, topic, kind, m))
            continue
        at, stamp = dict(zip(m.name, m.position, strict=True)), time - 0.001
        rows = ((time, stamp, arm), (time + 5e-4, stamp + 4e-4, [fingers]))
        messages += [
            (t, topic, kind, synthetic.joint_state(s, tuple(names), [at[n] for n in names], [0.0] * len(names)))
            for t, s, names in rows
        ]
    recording.messages = messages
    return recording


def stamped(change):
    def spoil(recording):
        def stamp(t, m):
            at = m.header.stamp.sec + m.header.stamp.nanosec * 1e-9
            return replace(m, header=synthetic.header(change(at)))

        return recording.replace("/joint_states", stamp)

    return spoil


@pytest.mark.parametrize(
    "spoil, noted",
    [
        (driver_of_its_own, ""), (stamped(lambda s: 0.0), "carry no time"),
        (stamped(lambda s: s - 100.0), "of another clock"), (stamped(lambda s: s + 0.5), "of another clock"),
    ],
    ids=["in two messages", "no stamp", "late clock", "early clock"],
)  # fmt: skip
def test_measured_joints_are_the_same_however_they_were_sent(folder, tmp_path, spoil, noted):
    bag = finished(spoil(Recording().fill()), tmp_path / "bag")
    report = export_episodes([folder, bag], tmp_path / "out", Wish())
    plain, other = read_episodes(tmp_path / "out")
    assert np.allclose(plain.joints, other.joints, atol=5e-3) and np.ptp(plain.joints[:, 0]) > 0.2
    assert np.allclose(plain.gripper, other.gripper, atol=0.05)  # its joint is heard after the arm's
    assert noted in report.notes.get(str(bag), "") and bool(noted) == bool(report.notes)


def test_a_sentence_that_changes_labels_only_what_came_after_it(tmp_path):
    recording = Recording().fill()
    recording.add(3.0, "instruction", "std_msgs/msg/String", synthetic.text("push the green cube"))
    recording.add(5.0, "instruction", "std_msgs/msg/String", synthetic.text("Halt!"))
    recording.labels = {**synthetic.LABELS, "instruction": "push the green cube"}
    recording.messages.sort(key=lambda row: row[0])
    bag = finished(recording, tmp_path / "bag")
    export_episodes([bag], tmp_path / "out", Wish())
    first, second = read_episodes(tmp_path / "out")
    assert (first.instruction, second.instruction) == ("touch the red cube", "push the green cube")
    steps = stamps_of(bag)
    assert len(first) == ((steps.time[:-1] + 8 * DT) <= BEGIN + 3.0).sum()
    assert len(second) == (steps.time[:-1] >= BEGIN + 3.0).sum()


def test_another_arm_joins_no_data_set(folder, tmp_path, other_arm):
    with pytest.raises(BagError, match=r"not of one robot: joints are shoulder_pan_joint.*other_shoulder_pan_joint"):
        export_episodes([folder, other_arm], tmp_path / "tie", Wish())
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    report = export_episodes([other_arm, folder, again], tmp_path / "out", Wish())
    assert report.taken == [str(folder), str(again)] and "another robot" in report.left_out[str(other_arm)]


@pytest.fixture
def other_arm(tmp_path, monkeypatch):
    yaml, urdf = ROBOT.path.read_text(), (ROBOT.path.parent / "ur5e_sim.urdf").read_text()
    for joint in ROBOT.joints:
        urdf, yaml = urdf.replace(f'"{joint}"', f'"other_{joint}"'), re.sub(rf"\b{joint}\b", f"other_{joint}", yaml)
    (tmp_path / "ur5e_sim.urdf").write_text(urdf)
    (tmp_path / "other.yaml").write_text(yaml)
    names = (*(f"other_{joint}" for joint in ROBOT.joints), ROBOT.gripper.joint)
    monkeypatch.setattr(synthetic, "NAMES", names)
    labels = {**synthetic.LABELS, "robot": str(tmp_path / "other.yaml")}
    return finished(Recording(labels=labels).fill(), tmp_path / "other")


def test_what_a_full_disk_cut_off_is_not_learned_from_whatever_its_label(folder, tmp_path):
    bad = synthetic.episode(tmp_path / "bad", labels={**synthetic.LABELS, "error": "No space left on device"})
    report = export_episodes([folder, bad], tmp_path / "out", Wish())
    assert report.left_out == {str(bad): "No space left on device"} and report.unfit == 1


def test_an_export_never_mixes_with_what_is_there(folder, exported):
    with pytest.raises(BagError, match="is not empty"):
        export_episodes([folder], exported[1], Wish())


def test_training_reads_it(folder, tmp_path):
    toy_bundle = pytest.importorskip("toy_bundle")
    from udvla_ros.model.checkpoint import Bundle
    from udvla_ros.training.tokenize import fit_normalizer, tokenize
    from udvla_ros.training.vq_data import load_data

    sizes = {view.name: (view.height, view.width) for view in toy_bundle.VIEWS}
    other = synthetic.episode(tmp_path / "bags" / "other", labels={**synthetic.LABELS, "instruction": "pick it up"})
    report = export_episodes([folder, other], tmp_path / "out", Wish(sizes=sizes))
    data = load_data(tmp_path / "out")
    assert data.train["front"].shape[1:3] == sizes["front"] and len(data.held_out["wrist"])
    bundle = Bundle.load(toy_bundle.saved(tmp_path / "bundle"))
    chunks = np.concatenate([episode.intention for episode in read_episodes(tmp_path / "out")])
    normalizer = fit_normalizer(chunks)
    shard = tokenize([tmp_path / "out"], bundle.vision, bundle.fast, normalizer, 60, tmp_path / "tokens")
    assert len(shard.chunks) == report.steps and shard.instructions == ["touch the red cube", "pick it up"]
    assert np.isfinite(shard.chunks).all()


# -- LeRobot -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lerobot(folder, tmp_path_factory):
    pytest.importorskip("pyarrow")
    other = synthetic.episode(
        tmp_path_factory.mktemp("more") / "other", labels={**synthetic.LABELS, "instruction": "pick up the cube"}
    )
    out = tmp_path_factory.mktemp("lerobot") / "out"
    return export_lerobot([folder, other], out, Wish()), out


def test_lerobot_layout_is_that_of_v3(lerobot):
    import pyarrow.parquet as pq

    report, out = lerobot
    info = json.loads((out / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 10, 2)
    assert info["total_frames"] == report.steps
    data = pq.read_table(out / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(data.column_names) == set(info["features"])
    assert data.column("index").to_pylist() == list(range(report.steps))
    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e["dataset_to_index"] - e["dataset_from_index"] for e in episodes] == [e["length"] for e in episodes]
    assert episodes[1]["dataset_from_index"] == episodes[0]["length"]
    tasks = pq.read_table(out / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    assert tasks.to_pylist() == [
        {"task_index": 0, "__index_level_0__": "touch the red cube"},
        {"task_index": 1, "__index_level_0__": "pick up the cube"},
    ]


def test_lerobot_holds_what_the_bag_holds(lerobot, folder):
    import cv2
    import pyarrow.parquet as pq

    steps, (_, out) = stamps_of(folder), lerobot
    rows = pq.read_table(out / "data/chunk-000/file-000.parquet").slice(0, len(steps)).to_pylist()
    for k in (0, 7, len(steps) - 1):
        assert np.allclose(rows[k]["observation.state"], steps.measured[k], atol=1e-6)
        assert np.allclose(rows[k]["action"], steps.targets[k, 0], atol=1e-6)
        assert rows[k]["timestamp"] == pytest.approx(k * 0.1, abs=1e-6) and rows[k]["frame_index"] == k
        png = np.frombuffer(rows[k]["observation.images.front"]["bytes"], np.uint8)
        assert np.array_equal(cv2.cvtColor(cv2.imdecode(png, 1), cv2.COLOR_BGR2RGB), steps.images["front"][k])


@pytest.mark.parametrize("kept", [10_000, 64])
def test_statistics_are_those_of_all_rows_and_keep_a_bounded_number(monkeypatch, kept):
    monkeypatch.setattr("udvla_ros.rollouts.bags.lerobot.KEPT", kept)
    parts = [np.random.default_rng(k).normal(k, 2.0, (k % 7, 3)).astype(np.float32) for k in range(1, 100) if k % 7]
    statistics = _Statistics(picture=False)
    for part in parts:
        statistics.add(part)
        assert statistics.kept == sum(map(len, statistics.rows)) <= kept
    told, rows = statistics.told(), np.concatenate(parts).astype(float)
    assert told["count"] == [len(rows)] and statistics.kept >= min(kept // 2, len(rows))
    for name, value in {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}.items():
        assert np.allclose(told[name], value), name
    kept_rows = np.concatenate(statistics.rows)
    assert np.array_equal(kept_rows, np.concatenate(parts)[:: statistics.stride])
    for name, q in {"q01": 0.01, "q50": 0.5, "q99": 0.99}.items():
        assert np.allclose(told[name], np.quantile(kept_rows, q, axis=0), atol=1e-6), name


def test_lerobot_statistics_are_those_of_the_data(lerobot):
    import pyarrow.parquet as pq

    _, out = lerobot
    stats = json.loads((out / "meta/stats.json").read_text())
    actions = np.array(pq.read_table(out / "data/chunk-000/file-000.parquet").column("action").to_pylist())
    for name, value in {"mean": actions.mean(0), "std": actions.std(0), "max": actions.max(0),
                        "q90": np.quantile(actions, 0.9, axis=0)}.items():  # fmt: skip
        assert np.allclose(stats["action"][name], value, atol=1e-6), name
    front = stats["observation.images.front"]
    assert np.shape(front["mean"]) == (3, 1, 1)
    share = 4 / 64  # of the pixels are the bar's
    assert np.ravel(front["mean"])[0] == pytest.approx((share * 220 + (1 - share) * 90) / 255, abs=0.01)
    assert np.ravel(front["q50"])[0] == pytest.approx(90 / 255)
    assert np.ravel(front["max"])[0] == pytest.approx(220 / 255)


def test_lerobot_actions_as_tcp_steps(folder, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    export_lerobot([folder], tmp_path / "out", Wish(space="tcp_delta"))
    actions = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet").column("action").to_pylist()
    assert np.allclose(actions, stamps_of(folder).actions[:, 0], atol=1e-6)


def test_lerobot_leaves_out_pictures_of_another_size(folder, tmp_path):
    pytest.importorskip("pyarrow")
    small = Recording().fill()
    small.replace("/front/image_raw", lambda t, m: synthetic.image(BEGIN + t - 0.004, to_rgb(m)[::2, ::2]))
    small = finished(small, tmp_path / "small")
    report = export_lerobot([folder, small], tmp_path / "out", Wish())
    assert report.taken == [str(folder)] and "--size front=" in report.left_out[str(small)] and report.unfit == 1


def test_the_lerobot_package_loads_it(lerobot):
    pytest.importorskip("lerobot")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    report, out = lerobot
    data = LeRobotDataset("local/bags", root=out, delta_timestamps={"action": [0.0, 0.1]})
    assert len(data) == report.steps and data.num_episodes == 2
    assert data[3]["action"].shape == (2, 7) and data[3]["observation.images.front"].shape == (3, 48, 64)
    assert data[len(data) - 1]["task"] == "pick up the cube"
