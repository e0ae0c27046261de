"""The tabletop behaves like a robot: tracks, holds, grips, and shows the cubes."""

import numpy as np
import pytest

from udvla_ros.sim.control import DeltaControl, compose
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.sampler import sample_scene
from udvla_ros.sim.scene import COLOURS, Camera, Scene
from udvla_ros.sim.tasks import Task
from udvla_ros.sim.world import DOWN, TabletopWorld

FAR = {"red": (0.45, 0.15, 0.3), "green": (0.55, 0.0, 0.0), "blue": (0.45, -0.15, 1.0)}


def test_reset_puts_everything_in_place(world):
    world.reset(Scene(FAR, (0.5, 0.05, 0.2)))
    np.testing.assert_allclose(world.tcp_pose()[:3, 3], [0.5, 0.05, 0.2], atol=5e-4)
    np.testing.assert_allclose(world.tcp_pose()[:3, :3], DOWN, atol=1e-3)
    for colour, (x, y, _) in FAR.items():
        np.testing.assert_allclose(world.cube_position(colour), [x, y, 0.02], atol=5e-4)
    assert world.time == 0.0
    assert world.touched == []
    assert world.gripper < 0.02


def test_start_with_closed_gripper(world):
    world.reset(Scene(FAR, gripper=1.0))
    assert world.gripper > 0.95
    assert world.gripper_command == 1.0


def test_stays_where_it_is_without_sag(world):
    world.reset(Scene(FAR))
    start = world.tcp_pose()
    world.step(1.0)
    np.testing.assert_allclose(world.tcp_pose()[:3, 3], start[:3, 3], atol=5e-4)
    assert world.time == pytest.approx(1.0)


def test_tracks_with_a_small_lag_and_arrives(world):
    world.reset(Scene(FAR, (0.45, 0.0, 0.2)))
    control = DeltaControl(world)
    for _ in range(4):
        control.apply(np.array([0.0, 0.025, 0, 0, 0, 0, -1]))
    lag = (world.tcp_command() - world.tcp_pose())[1, 3]
    assert 0.001 < lag < 0.012  # a real servo lags a little as well
    np.testing.assert_allclose(world.tcp_command()[:3, 3], [0.45, 0.1, 0.2], atol=5e-4)
    world.step(0.5)
    np.testing.assert_allclose(world.tcp_pose()[:3, 3], [0.45, 0.1, 0.2], atol=1e-3)


def test_delta_rotates_about_the_base_axes():
    pose = np.eye(4)
    pose[:3, :3] = DOWN
    turned = compose(pose, np.array([0, 0, 0, 0, 0, np.pi / 2, 1]))
    np.testing.assert_allclose(turned[:3, :3] @ [1, 0, 0], [-1, 0, 0], atol=1e-12)  # was +y
    np.testing.assert_allclose(turned[:3, 3], 0.0)


def test_gripper_takes_time_and_fingers_open_along_y(world):
    world.reset(Scene(FAR))
    world.follow(world.q_command, 1.0, 0.1)
    assert 0.02 < world.gripper < 0.3
    pads = [world.data.body(f"gripper/{side}_pad").xpos for side in ("left", "right")]
    spread = np.abs(pads[0] - pads[1])
    assert spread[1] > 0.05 > spread[0]
    world.follow(world.q_command, 1.0, 0.9)
    assert world.gripper > 0.95


def test_holds_what_is_between_the_fingers(world):
    world.reset(Scene(FAR | {"green": (0.5, 0.0, 0.4)}, (0.5, 0.0, 0.022)))
    assert not world.held("green")
    world.follow(world.q_command, 1.0, 0.8)
    assert world.held("green")
    assert not world.held("red")
    assert world.touched == ["green"]


def test_mark_starts_a_new_judgement(world):
    world.reset(Scene(FAR | {"green": (0.5, 0.0, 0.4)}, (0.5, 0.0, 0.022)))
    world.follow(world.q_command, 1.0, 0.8)
    world.mark()
    world.step(0.1)
    assert world.touched == []  # still leaning on it does not count
    world.follow(world.q_command, 0.0, 0.8)
    world.follow(world.q_command, 1.0, 0.8)
    assert world.touched == ["green"]


def test_same_scene_same_run(world):
    ends = []
    for _ in range(2):
        world.reset(sample_scene(5))
        control = DeltaControl(world)
        for _ in range(5):
            control.apply(np.array([0.01, -0.01, -0.02, 0, 0, 0, 1]))
        ends.append((world.data.qpos.copy(), world.render()["front"]))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def _pixels(image: np.ndarray, colour: str) -> int:
    """Count pixels of which the colour's channel clearly dominates."""
    channel = list(COLOURS).index(colour)
    others = np.delete(image.astype(int), channel, axis=2).max(axis=2)
    return int(np.sum(image[..., channel].astype(int) - others > 60))


def test_cubes_are_seen_in_their_colours(world):
    world.reset(Scene(FAR, (0.4, 0.0, 0.2)))
    images = world.render()
    assert images["front"].shape == (48, 64, 3)
    assert images["wrist"].shape == (32, 32, 3)
    assert images["front"].dtype == np.uint8
    for colour in COLOURS:
        assert _pixels(images["front"], colour) >= 20  # 5 x 5 px and no less than most of it


def test_front_camera_looks_back_at_the_robot(world):
    """Nearer the camera (greater x) is lower in the picture, the robot's left (y > 0) is at the right."""
    centres = []
    for x, y in ((0.42, 0.1), (0.58, -0.1)):
        world.reset(
            Scene({"red": (x, y, 0.0), "green": (0.45, 0.4, 0), "blue": (0.45, -0.4, 0)}, (0.45, 0, 0.2))
        )
        image = world.render()["front"].astype(int)
        rows, columns = np.nonzero(image[..., 0] - image[..., 1] > 100)
        centres.append((rows.mean(), columns.mean()))
    assert centres[0][0] < centres[1][0] - 10
    assert centres[0][1] > centres[1][1] + 10


def test_wrist_camera_sees_the_cube_below(world):
    for height in (0.08, 0.15, 0.25):
        world.reset(Scene(FAR | {"green": (0.5, 0.0, 0.0)}, (0.5, 0.0, height)))
        assert _pixels(world.render()["wrist"], "green") >= 3


def test_other_image_sizes():
    world = TabletopWorld(cameras={"front": Camera(240, 320, 20.0, 1), "wrist": Camera(64, 64, 75.0, 1)})
    images = world.render()
    world.close()
    world.close()  # twice is fine
    assert images["front"].shape == (240, 320, 3)
    assert images["wrist"].shape == (64, 64, 3)


def test_world_without_rendering_refuses_to_render():
    blind = TabletopWorld(render=False)
    with pytest.raises(RuntimeError, match="render=False"):
        blind.render()
    assert blind.look()["front"].shape == (0, 0, 3)


def test_a_restored_moment_goes_on_as_it_did(world):
    task = Task("pick", "red")
    world.reset(sample_scene(2, task))
    expert, control = Expert(world, task), DeltaControl(world)
    for _ in range(12):
        control.apply(expert.act())
    kept = world.snapshot()
    ways = []
    for _ in range(2):
        for _ in range(6):
            control.apply(expert.act())
        ways.append((world.data.qpos.copy(), world.gripper, list(world.touched), world.held("red")))
        world.restore(kept)
    np.testing.assert_array_equal(ways[0][0], ways[1][0])
    assert ways[0][1:] == ways[1][1:]
    assert ways[0][2], "nothing was touched: the moment says too little"
