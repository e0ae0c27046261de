from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from motion.conftest import ROBOTS
from motion.rig import Rig, boxed, examples

from udvla_ros.errors import ConfigError
from udvla_ros.motion.collision import capsules, outside, segment_to_box, segments
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.robot import RobotDescription

seeds = st.integers(0, 2**32 - 1)
DECLARING = [p for p in sorted(ROBOTS.glob("*.yaml")) if yaml.safe_load(p.read_text()).get("collision")]


def declared(robot: RobotDescription, **changes):
    """Return what the robot's file declares, with changes, switched on."""
    data = yaml.safe_load(robot.path.read_text())["collision"] | changes
    return capsules(data, robot.kinematics, robot.home)


@pytest.fixture(scope="module")
def guarded(ur5e):
    """The simulated arm with its capsules and table looked at, in a workspace that would let it through."""
    return replace(boxed(ur5e, [[-2, -2, -2], [2, 2, 2]]), capsules=declared(ur5e))


@examples(40)
@given(seeds)
def test_distances_are_those_of_an_independent_library(seed):
    coal = pytest.importorskip("coal")
    rng = np.random.default_rng(seed)

    def capsule(begin, end, radius):
        way = end - begin
        z = way / np.linalg.norm(way)
        x = np.cross(z, [1.0, 0, 0] if abs(z[0]) < 0.9 else [0, 1.0, 0])
        x /= np.linalg.norm(x)
        turn = np.column_stack([x, np.cross(z, x), z])
        return coal.Capsule(radius, float(np.linalg.norm(way))), coal.Transform3s(turn, (begin + end) / 2)

    ends = rng.uniform(-1, 1, (4, 3))
    first, second = capsule(ends[0], ends[1], 0.01), capsule(ends[2], ends[3], 0.02)
    there = coal.distance(*first, *second, coal.DistanceRequest(), coal.DistanceResult())
    here = segments(ends[:1], ends[1:2], ends[2:3], ends[3:])[0]
    assert here - 0.03 == pytest.approx(there, abs=1e-5) or (here < 0.03 and there <= 1e-6)

    box = np.sort(rng.uniform(-0.7, 0.7, (2, 3)), axis=0)
    shape, place = coal.Box(box[1] - box[0]), coal.Transform3s(np.eye(3), box.mean(axis=0))
    there = coal.distance(*first, shape, place, coal.DistanceRequest(), coal.DistanceResult())
    here = segment_to_box(ends[:1], ends[1:2], box)[0]
    if here > 0.011:
        less = 0.002 * np.linalg.norm(ends[1] - ends[0])
        assert there - less - 1e-6 <= here - 0.01 <= there + 1e-6, "never more than it is"
    elif here < 0.0:
        assert there <= 1e-6


def test_inside_a_box_the_depth_is_that_to_the_nearest_face():
    box = np.array([[0.0, 0, 0], [1, 1, 1]])
    points = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 1.2], [2, 2, 1]])
    np.testing.assert_allclose(outside(box, points), [-0.1, 0.2, 2**0.5])


@pytest.mark.parametrize("path", DECLARING, ids=lambda p: p.stem)
def test_attached_points_are_where_their_links_are(path):
    robot = RobotDescription.load(path)
    links = list(yaml.safe_load(path.read_text())["collision"]["capsules"])
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.3, 0.3, (len(links), 3))
    q = rng.uniform(robot.limits.lower, robot.limits.upper, (5, len(robot.joints)))
    places = robot.kinematics.places(q, robot.kinematics.attach(links, points))
    urdf = path.parent / yaml.safe_load(path.read_text())["urdf"]
    for link, point, found in zip(links, points, places, strict=True):
        kinematics = Kinematics(urdf, robot.joints, link, robot.base_frame)
        wanted = [(kinematics.forward(x) @ [*point, 1.0])[:3] for x in q]
        np.testing.assert_allclose(found, wanted, atol=1e-12, err_msg=link)


@pytest.mark.parametrize("path", DECLARING, ids=lambda p: p.stem)
def test_shipped_capsules_are_looked_at_on_real_arms_and_clear_over_the_table(path):
    robot = RobotDescription.load(path)
    assert (robot.capsules is None) == (robot.name == "ur5e_sim"), "off in simulation alone"
    found, checked = declared(robot), 0
    rng = np.random.default_rng(1)
    for _ in range(60):
        pose = robot.kinematics.forward(robot.home)
        pose[:3, 3] = rng.uniform([0.35, -0.25, 0.02], [0.55, 0.25, 0.3])
        q = robot.kinematics.inverse(pose, robot.home, robot.limits.lower, robot.limits.upper)
        assert found.depth(robot.kinematics, q[None])[0] <= 0, found.nearest(robot.kinematics, q)
        checked += 1
    assert checked == 60


def test_a_folded_arm_and_one_that_reaches_into_the_table_are_too_near(ur5e):
    found = declared(ur5e)
    folded = np.array([0.0, -1.5, 2.9, -1.5, -1.57, 0.0])
    below = np.array([0.0, -0.05, 0.6, -1.6, -1.57, 0.0])
    depth = found.depth(ur5e.kinematics, np.stack([ur5e.home, folded, below]))
    assert depth[0] <= 0 < min(depth[1:])
    assert "boxes[0]" in found.nearest(ur5e.kinematics, below)
    single = [found.depth(ur5e.kinematics, q[None])[0] for q in (ur5e.home, folded, below)]
    np.testing.assert_allclose(single, depth)


def lowering(robot, steps: int = 8) -> np.ndarray:
    """Return targets that bend the shoulder forwards until the arm lies on the table."""
    return robot.home + np.linspace(0.12, 0.96, steps)[:, None] * np.eye(6)[1]


def test_all_joints_halt_before_the_table_and_may_come_back(guarded):
    rig = Rig(guarded)
    rig.act("engage", "policy")
    verdict = rig.offer("policy", rig.chunk(lowering(guarded)))
    assert verdict.accepted and "collision" in verdict.interventions
    assert rig.arbiter.counts["intervention/collision"] == 1
    rig.settle()
    played = rig.controller.written()[1]
    depth = guarded.capsules.depth(guarded.kinematics, played)
    assert -0.02 < depth.max() <= 1e-4, "kept the margin, and went near it"
    rig.judge()
    rig.act("engage", "policy")
    back = rig.offer("policy", rig.chunk(lowering(guarded)[:1]))
    assert back.accepted and "collision" not in back.interventions


def test_an_arm_found_too_near_may_only_come_away(guarded):
    near = guarded.home + 0.5 * np.eye(6)[1]
    assert guarded.capsules.depth(guarded.kinematics, near[None])[0] > 0
    for step, moves in ((0.05, False), (-0.05, True)):
        rig = Rig(guarded, q=near)
        rig.act("engage", "policy")
        rig.offer("policy", rig.chunk(near + step * np.eye(6)[1] * np.ones((3, 1))))
        rig.settle()
        assert (abs(rig.q[1] - near[1]) > 0.04) == moves


def test_without_capsules_nothing_is_looked_at(guarded):
    rig = Rig(replace(guarded, capsules=None))
    rig.act("engage", "policy")
    assert "collision" not in rig.offer("policy", rig.chunk(lowering(guarded))).interventions


@examples(12)
@given(seeds)
def test_whatever_is_asked_the_arm_keeps_clear(guarded, seed):
    rng = np.random.default_rng(seed)
    rig = Rig(guarded)
    rig.act("engage", "policy")
    for _ in range(6):
        drift = rng.normal(size=6) * 0.08
        rig.offer("policy", rig.chunk(rig.q + np.cumsum(drift + rng.normal(size=(8, 6)) * 0.03, axis=0)))
        rig.wait(float(rng.uniform(0.1, 0.7)))
    rig.settle()
    rig.judge()
    rig.judge_rest()
    played = rig.controller.written()[1]
    assert guarded.capsules.depth(guarded.kinematics, played).max() < 2e-3, "between samples as well"


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("capsules.tool0: give", {"capsules": {"tool0": [[0, 0, 0], [0, 0, 1]]}}),
        ("capsules.tool0: give", {"capsules": {"tool0": [[0, 0, 0], [0, 0, 1], -0.1]}}),
        ("capsules.tool0: give", {"capsules": {"tool0": [[0, 0], [0, 0, 1], 0.1]}}),
        ("elbow is not a frame", {"capsules": {"elbow": [[0, 0, 0], [0, 0, 1], 0.1]}}),
        ("margin is -0.1", {"margin": -0.1}),
        ("ignore: hand has no capsule", {"ignore": [["hand", "tool0"]]}),
        ("boxes: each is two corners", {"boxes": [[[1, 1, 1], [0, 0, 0]]]}),
        ("boxes: each is two corners", {"boxes": [1, 2]}),
        ("at home .* less than the margin", {"margin": 0.5}),
        ("there is no capsule", {"capsules": {}, "ignore": []}),
    ],
)
def test_declarations_that_cannot_be_are_refused_in_one_line(ur5e, message, change):
    with pytest.raises(ConfigError, match=message) as refusal:
        declared(ur5e, **change)
    assert "\n" not in str(refusal.value)


def test_the_robot_file_switches_it(ur5e, tmp_path):
    import shutil

    data = yaml.safe_load(ur5e.path.read_text())
    shutil.copy(ur5e.path.with_suffix(".urdf"), tmp_path)
    for value, on in ((True, True), (False, False)):
        data["collision"]["check"] = value
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
        assert (RobotDescription.load(tmp_path / "mine.yaml").capsules is not None) == on
    data["collision"]["radius"] = 1
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=r"mine.yaml: collision.radius is not a key"):
        RobotDescription.load(tmp_path / "mine.yaml")
