"""A LeRobotDataset read back says what was exported; what it does not say is never guessed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from synthetic_bag import Recording, finished

from udvla_ros.cli.main import main
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.bags.export import Wish, export_episodes
from udvla_ros.rollouts.bags.lerobot import export_lerobot
from udvla_ros.rollouts.episodes import read_description, read_episodes
from udvla_ros.rollouts.lerobot_in import Reading, import_lerobot

pytest.importorskip("pyarrow")
ROBOT = RobotDescription.load("ur5e_sim")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """An episode whose pictures come as evenly as LeRobot takes them to."""
    return finished(Recording(camera_hz=10.0).fill(), tmp_path_factory.mktemp("bags") / "one")


@pytest.fixture(scope="module")
def lerobot(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("lerobot") / "set"
    export_lerobot([bag], out, Wish())
    return out


@pytest.fixture
def other(lerobot, tmp_path):
    """A copy, and what changes its ``info.json``."""
    folder = shutil.copytree(lerobot, tmp_path / "other")

    def change(edit):
        info = json.loads((folder / "meta/info.json").read_text())
        edit(info)
        (folder / "meta/info.json").write_text(json.dumps(info))
        return folder

    return change


@pytest.mark.parametrize("space", ["tcp_delta", "joint_delta"])
def test_what_was_exported_comes_back(bag, lerobot, tmp_path, space):
    """The same episode by both ways: as it is exported from the bag, and by LeRobot's format and back."""
    export_episodes([bag], tmp_path / "direct", Wish(space=space))
    how = ["--robot", "ur5e_sim", "--space", space, "--out", str(tmp_path / "back")]
    assert main(["data", "import", str(lerobot), *how]) == 0
    [direct], [back] = list(read_episodes(tmp_path / "direct")), list(read_episodes(tmp_path / "back"))
    told, same = read_description(tmp_path / "back"), read_description(tmp_path / "direct")
    assert told["action"] == same["action"] and told["cameras"] == same["cameras"]
    count = len(back)
    assert count == len(direct) - 1, "the last frame has no picture after it"
    for name, images in back.images.items():
        assert np.array_equal(images, direct.images[name][: count + 1])
    assert np.allclose(back.joints, direct.joints[: count + 1], atol=1e-6)
    assert back.instruction == direct.instruction and np.array_equal(back.intervention, direct.intervention[:count])
    reach = direct.intention.shape[1]
    inner = slice(1, count - reach)  # lost: from where the first command set out, and what lies behind the end
    assert np.allclose(back.intention[inner], direct.intention[inner], atol=2e-4)


def test_a_sentence_that_changes_begins_another_episode(lerobot, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shutil.copytree(lerobot, tmp_path / "two")
    [path] = folder.glob("data/*/*.parquet")
    table = pq.read_table(path)
    tasks = (np.arange(len(table)) >= 20).astype(np.int64)
    place = table.column_names.index("task_index")
    pq.write_table(table.set_column(place, "task_index", pa.array(tasks)), path)
    (folder / "meta/tasks.parquet").unlink()
    lines = [{"task_index": 0, "task": "touch the red cube"}, {"task_index": 1, "task": "go home"}]
    (folder / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))  # as v2.1 has them
    assert import_lerobot(folder, tmp_path / "out", ROBOT, Reading(chunk=4)) == 2
    first, second = read_episodes(tmp_path / "out")
    assert (first.instruction, second.instruction) == ("touch the red cube", "go home")
    assert len(first) == 19 and len(first) + len(second) == len(table) - 2
    assert first.intention.shape[1:] == (4, 7)


def test_degrees_and_a_gripper_of_other_units(lerobot, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shutil.copytree(lerobot, tmp_path / "degrees")
    [path] = folder.glob("data/*/*.parquet")
    table = pq.read_table(path)
    for name in ("observation.state", "action"):
        values = np.stack(table[name].to_numpy()).astype(float)
        values[:, :6] = np.degrees(values[:, :6])
        values[:, 6] = 100 * (1 - ROBOT.gripper.fraction(values[:, 6]))  # 100 is open
        table = table.set_column(table.column_names.index(name), name, pa.array(values.astype(np.float32).tolist()))
    pq.write_table(table, path)
    how = ["--robot", "ur5e_sim", "--out", str(tmp_path / "out")]
    assert main(["data", "import", str(folder), *how]) == 2, "degrees are no radians"
    assert main(["data", "import", str(folder), *how, "--degrees", "--gripper", "100", "0"]) == 0
    import_lerobot(lerobot, tmp_path / "plain", ROBOT, Reading())
    [one], [two] = list(read_episodes(tmp_path / "out")), list(read_episodes(tmp_path / "plain"))
    assert np.allclose(one.intention, two.intention, atol=1e-4) and np.allclose(one.gripper, two.gripper, atol=1e-4)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda info: info.update(codebase_version="v1.6"), "of version v1.6"),
        (lambda info: info["features"]["action"].update(names=["x", "y"]), "action names x, y.*also needs shoulder"),
        (lambda info: info["features"]["action"].update(names={"motors": ["a.pos"]}), "action names a; "),
        (lambda info: info["features"].pop("observation.images.wrist"), "--camera wrist=FEATURE"),
        (lambda info: info["features"]["observation.images.front"].update(dtype="video"), "use_videos=False"),
    ],
)
def test_what_cannot_be_read_is_one_line(other, tmp_path, capsys, edit, said):
    import re

    out = tmp_path / "out"
    assert main(["data", "import", str(other(edit)), "--robot", "ur5e_sim", "--out", str(out)]) == 2
    assert re.search(said, capsys.readouterr().err.strip().splitlines()[-1]) and not out.exists()
