"""What the doctor says of a graph, told from made-up looks at it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from udvla_ros.doctor import report, wiring
from udvla_ros.doctor.judge import judge
from udvla_ros.doctor.snapshot import (
    BEST_EFFORT,
    RELIABLE,
    TRANSIENT_LOCAL,
    Arbiter,
    Camera,
    Controller,
    Endpoint,
    JointStates,
    Qos,
    Snapshot,
    Topic,
)
from udvla_ros.motion.robot import RobotDescription

UR5E = RobotDescription.load("ur5e")
NOW = 1000.0
CONTROLLER = "scaled_joint_trajectory_controller"
COMMAND = f"{CONTROLLER}/joint_trajectory"
URDF = UR5E.path.with_suffix(".urdf").read_text()


def times(hz: float, seconds: float = 4.0) -> list[float]:
    return (NOW + np.arange(0.0, seconds, 1.0 / hz)).tolist()


def camera(hz: float = 30.0, age: float = 0.03) -> Camera:
    stamps = times(hz)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return Camera([t + age for t in stamps], stamps, {"rgb8"}, {(640, 480)}, image)


def topic(name: str, kind: str, publisher: str = "", listener: str = "", qos: Qos | None = None) -> Topic:
    qos = qos or Qos()
    return Topic(
        f"/{name}",
        (Endpoint(publisher, kind, qos),) if publisher else (),
        (Endpoint(listener, kind, qos),) if listener else (),
    )


@pytest.fixture
def seen() -> Snapshot:
    """A UR5e at which nothing is wrong."""
    stamps = times(500.0)
    position = dict(zip(UR5E.joints, UR5E.home.tolist(), strict=True)) | {UR5E.gripper.joint: 0.1}
    return Snapshot(
        4.0,
        topics={
            "joint_states": topic("joint_states", wiring.JOINT_STATE, "/joint_state_broadcaster"),
            "front/image_raw": topic("front/image_raw", wiring.IMAGE, "/front/driver", qos=Qos(BEST_EFFORT)),
            "wrist/image_raw": topic("wrist/image_raw", wiring.IMAGE, "/wrist/driver", qos=Qos(BEST_EFFORT)),
            COMMAND: topic(COMMAND, wiring.TRAJECTORY, "/arbiter_node", f"/{CONTROLLER}"),
            "gripper_controller/joint_trajectory": topic("g", wiring.TRAJECTORY, "", "/gripper_controller"),
            "instruction": topic("instruction", "std_msgs/msg/String", "/someone", qos=Qos(RELIABLE, TRANSIENT_LOCAL)),
            "arbiter/mode": topic("arbiter/mode", "std_msgs/msg/String", "/arbiter_node"),
            **{name: topic(name, "", "/ur") for key, name in UR5E.driver.items() if "_controller/" in str(name)},
            UR5E.driver["speed_scaling"]: topic("speed_scaling", "", "/ur"),
        },
        joint_states=JointStates(
            [t + 0.001 for t in stamps], stamps, dict(reversed(position.items())), {tuple(position): len(stamps)}
        ),
        cameras={"front": camera(), "wrist": camera()},
        controller=Controller(
            f"/{CONTROLLER}",
            {"joints": list(UR5E.joints), "interpolate_from_desired_state": True},
            "/controller_manager",
            {CONTROLLER: ("ur_controllers/ScaledJointTrajectoryController", "active")},
        ),
        arbiter=Arbiter("HOLD", "start-up", 0, "", {"speed": "0.1"}),
        driver={"program_running": True, "speed_scaling": 100.0},
        urdf=URDF,
        environment={"FASTRTPS_DEFAULT_PROFILES_FILE": str(UR5E.path.parents[1] / "fastdds_loopback.xml")},
    )


def bad(seen: Snapshot, robot: RobotDescription = UR5E, bundle: object = None) -> list[report.Finding]:
    return [finding for finding in judge(robot, seen, bundle) if finding.level != report.OK]


def only(seen: Snapshot, level: str, check: str, said: str, mend: str, **options) -> None:
    """Assert that exactly this is found."""
    found = bad(seen, **options)
    assert [(f.level, f.check) for f in found] == [(level, check)], "\n".join(map(str, found))
    assert said in found[0].text and mend in found[0].mend
    assert "\n" not in str(found[0])


def test_nothing_is_found_where_nothing_is_wrong(seen):
    assert bad(seen) == []
    assert report.worst(judge(UR5E, seen)) == report.OK


def test_a_camera_that_nobody_publishes(seen):
    seen.topics["wrist/image_raw"] = Topic("/wrist/image_raw")
    seen.cameras["wrist"] = Camera()
    only(seen, "fail", "topic camera wrist", "nobody publishes /wrist/image_raw", "mend the name in ur5e.yaml")


def test_a_topic_of_another_type(seen):
    seen.topics["front/image_raw"] = topic("front/image_raw", wiring.COMPRESSED, "/front/driver")
    only(seen, "fail", "topic camera front", "is sensor_msgs/msg/CompressedImage", "must be sensor_msgs/msg/Image")


def test_two_cameras_on_one_topic(seen):
    one = seen.topics["front/image_raw"]
    seen.topics["front/image_raw"] = replace(one, publishers=(*one.publishers, Endpoint("/other", wiring.IMAGE)))
    only(seen, "fail", "topic camera front", "2 publishers: /front/driver, /other", "stop all but one")


def test_policies_that_keep_a_publisher_and_a_listener_apart(seen):
    one = seen.topics["front/image_raw"]
    reliable = (Endpoint("/policy_node", wiring.IMAGE, Qos(RELIABLE)),)
    seen.topics["front/image_raw"] = replace(one, subscriptions=reliable)
    only(seen, "fail", "qos camera front", "reaches /policy_node from /front/driver", "say the same")


def test_a_controller_that_wants_the_past(seen):
    seen.topics[COMMAND] = topic(COMMAND, wiring.TRAJECTORY, "", "/c", Qos(RELIABLE, TRANSIENT_LOCAL))
    only(seen, "fail", "qos command", "published volatile and asked for transient local", "say the same")


def test_a_sentence_that_comes_too_early(seen):
    seen.topics["instruction"] = topic("instruction", "", "/someone")
    only(seen, "fail", "qos instruction", "/someone says on /instruction", "--qos-durability transient_local")
    seen.topics["instruction"] = Topic("/instruction")
    only(seen, "warn", "topic instruction", "no sentence yet", "ros2 topic pub --once")


def test_a_second_writer_to_the_controller(seen):
    one = seen.topics[COMMAND]
    seen.topics[COMMAND] = replace(one, publishers=(*one.publishers, Endpoint("/rqt_jtc", wiring.TRAJECTORY)))
    only(seen, "fail", "topic command", "/rqt_jtc also writes", "only writer")


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda name: f"left_{name}", "puts 'left_' before them (tf_prefix)"),
        (lambda name: name.removeprefix("shoulder_"), "leaves out 'shoulder_'"),
        (lambda name: {"elbow_joint": "joint_3"}.get(name, name), "write the driver's names"),
    ],
)
def test_joints_by_other_names(seen, change, mend):
    states = seen.joint_states
    states.positions = {change(name): value for name, value in states.positions.items() if "knuckle" not in name}
    states.positions[UR5E.gripper.joint] = 0.1
    only(seen, "fail", "joints", "not among the joint states", mend)


def test_a_gripper_that_is_not_among_the_joint_states(seen):
    del seen.joint_states.positions[UR5E.gripper.joint]
    only(seen, "fail", "joints", UR5E.gripper.joint, "gripper.feedback: false")


def test_two_that_tell_of_the_same_joints(seen):
    seen.joint_states.groups = {UR5E.joints: 100, UR5E.joints[::-1]: 100}
    only(seen, "warn", "joints", "more than one tells", "stop all but one")
    seen.joint_states.groups = {UR5E.joints: 100, (UR5E.gripper.joint,): 100}
    assert bad(seen) == []


def test_joint_states_at_1_hz(seen):
    stamps = times(1.0)
    seen.joint_states.arrivals = seen.joint_states.stamps = stamps
    only(seen, "fail", "rate joint_states", "1.0 Hz", "publish faster")


def test_a_pause_and_a_rate_below_what_is_set(seen):
    front = seen.cameras["front"]
    front.arrivals, front.stamps = front.arrivals[:60] + front.arrivals[72:], front.stamps[:60] + front.stamps[72:]
    only(seen, "warn", "rate camera front", "above observation.max_age", "network")
    seen.cameras = {"front": camera(15.0), "wrist": camera()}
    only(seen, "warn", "rate camera front", "30 Hz expected", "lost")


@pytest.mark.parametrize(
    ("age", "said"), [(-0.5, "500 ms in the future"), (0.9, "900 ms old on arrival"), (3600.0, "3600000 ms old")]
)
def test_clocks_that_differ(seen, age, said):
    seen.cameras = {name: camera(age=age) for name in seen.cameras}
    found = bad(seen)
    assert {f.check for f in found} == {"clock camera front", "clock camera wrist"}
    assert all(f.level == "fail" and said in f.text and "chrony" in f.mend for f in found)


def test_cameras_out_of_step_and_images_without_a_time(seen):
    seen.cameras["wrist"].stamps = [t + 0.2 for t in seen.cameras["wrist"].stamps][:-6]
    seen.cameras["wrist"].arrivals = [t + 0.03 for t in seen.cameras["wrist"].stamps]
    seen.cameras["front"].stamps = times(30.0, 0.2) + times(30.0)[-1:]
    seen.cameras["front"].arrivals = [t + 0.03 for t in seen.cameras["front"].stamps]
    assert any(f.check == "clock between cameras" and f.level == "fail" for f in bad(seen))
    seen.cameras = {"front": camera(), "wrist": camera()}
    seen.cameras["wrist"].stamps = [0.0] * len(seen.cameras["wrist"].stamps)
    only(seen, "fail", "clock camera wrist", "header.stamp is 0", "time of the exposure")


@pytest.mark.parametrize(
    ("change", "said", "mend"),
    [
        ({"image": np.zeros((4, 4, 3), np.uint8)}, "is black", "cap or exposure"),
        ({"image": np.full((4, 4, 3), 255, np.uint8)}, "washed out", "lower its exposure"),
        ({"image": np.full((4, 4, 3), 90, np.uint8)}, "one colour only", "lens covered"),
        ({"unchanged": 3.9}, "the very same picture for 3.9 s", "restart"),
        ({"problem": "front: encoding 'yuv' is not supported"}, "'yuv'", "rgb8"),
        ({"sizes": {(640, 480), (320, 240)}}, "sizes change", "fix the camera's size"),
    ],
)
def test_pictures_that_show_nothing(seen, change, said, mend):
    seen.cameras["front"] = replace(seen.cameras["front"], **change)
    only(seen, "fail", "picture front", said, mend)


def test_images_that_are_published_and_never_arrive(seen):
    seen.cameras["front"] = Camera()
    only(seen, "fail", "picture front", "no image came within 4 s", "shared-memory profile")


def test_an_encoding_that_is_not_the_files(seen):
    seen.cameras["front"].encodings = {"bgr8"}
    only(seen, "warn", "picture front", "the robot file says rgb8", "converted")


def test_limits_beyond_those_of_the_running_robot(seen):
    seen.urdf = URDF.replace('velocity="3.141592653589793"', 'velocity="1.0"', 1)
    only(seen, "fail", "limits", "velocity of shoulder_pan_joint is 1.500 in ur5e.yaml and 1.000", "mend ur5e.yaml")
    seen.urdf = URDF.replace('lower="-3.141592653589793"', 'lower="-1.0"')
    only(seen, "fail", "limits", "lower bound of elbow_joint", "stay inside")
    seen.urdf = URDF.replace("_joint", "_axis")
    only(seen, "fail", "limits", "has no joint", "driver's names")
    seen.urdf = "<robot"
    only(seen, "warn", "limits", "cannot be read", "robot_state_publisher")


def test_an_arm_where_it_must_not_be(seen):
    seen.joint_states.positions["elbow_joint"] = 3.0
    found = bad(seen)
    assert ("fail", "position") in [(f.level, f.check) for f in found]
    assert "elbow_joint is at 3.000 rad" in next(f.text for f in found if f.level == "fail")
    seen.joint_states.positions.update(zip(UR5E.joints, [0.0, -1.57, 0.0, -1.57, 0.0, 0.0], strict=True))
    only(seen, "warn", "position", "outside the workspace", "workspace.box")


@pytest.mark.parametrize(
    ("controller", "level", "check", "said", "mend"),
    [
        ({"states": {CONTROLLER: ("x", "inactive")}}, "fail", "controller", "is inactive", "--activate"),
        ({"states": {"another": ("x", "active")}}, "fail", "controller", "is not loaded", "load_controller"),
        (
            {"states": None, "why_unknown": "no controller_manager_msgs"},
            "warn", "controller", "could not be asked", "ros2 control list_controllers",
        ),
        ({"parameters": {"joints": ["a", "b"]}}, "fail", "controller joints", "moves a, b", "driver's names"),
        (
            {"parameters": {"interpolate_from_desired_state": False}},
            "warn", "controller splice", "where the arm is", "interpolate_from_desired_state: true",
        ),
        (
            {"parameters": {"constraints.elbow_joint.trajectory": 0.05}},
            "warn", "controller tolerance", "0.05 rad behind", "arbiter.following_error to 0.05",
        ),
    ],
)  # fmt: skip
def test_the_controller(seen, controller, level, check, said, mend):
    seen.controller = replace(seen.controller, **controller)
    only(seen, level, check, said, mend)


def test_the_driver(seen):
    seen.driver["program_running"] = False
    only(seen, "fail", "driver", "program does not run", "External Control")
    seen.driver |= {"program_running": True, "speed_scaling": 50.0}
    only(seen, "warn", "driver", "50 %", "slider to 100")
    del seen.driver["speed_scaling"]
    only(seen, "warn", "driver", "nothing came", "switched on")
    seen.topics[UR5E.driver["speed_scaling"]] = Topic("/speed_scaling")
    only(seen, "fail", "driver", "nobody publishes", "ur_control.launch.py")


def test_the_arbiter(seen):
    seen.arbiter = Arbiter("STOPPED", "stop was called", 2, "stopped", {"speed": "0.1"})
    only(seen, "warn", "arbiter", "STOPPED (stop was called)", "reset")
    seen.arbiter = Arbiter("HOLD", "start-up", 1, "no joint state yet", {"speed": "0.1"})
    only(seen, "warn", "arbiter", "no joint state yet", "/diagnostics")
    seen.topics["arbiter/mode"] = Topic("/arbiter/mode")
    assert bad(seen) == []


@pytest.mark.parametrize(
    ("setting", "level", "check", "mend"),
    [
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": ""}, "warn", "transport", "config/fastdds_loopback.xml"),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}, "fail", "transport", "export"),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, "warn", "transport", "rates"),
        ({"ROS_DOMAIN_ID": "150"}, "fail", "domain", "0 to 101"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "warn", "discovery", "AUTOMATIC_DISCOVERY_RANGE"),
    ],
)
def test_the_surroundings(seen, setting, level, check, mend):
    seen.environment = {**seen.environment, **setting}
    only(seen, level, check, "", mend)


def test_a_profile_without_room_for_images(seen, tmp_path):
    small = tmp_path / "small.xml"
    small.write_text("<profiles><segment_size>549000</segment_size></profiles>")
    seen.environment = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(small)}
    only(seen, "warn", "transport", "no segment of 4 MB", "export")
    small.write_text("<profiles>")
    only(seen, "fail", "transport", "not XML", "export")


def config(**changes) -> SimpleNamespace:
    views = (SimpleNamespace(name="front", width=64, height=48),)
    fields = {"name": "nano", "cameras": ("front", "wrist"), "control_hz": 10.0, "chunk": 8, "views": views}
    return SimpleNamespace(**fields | {"action_space": "tcp_delta"} | changes)


def test_the_bundle(seen):
    assert bad(seen, bundle=config()) == []
    only(seen, "fail", "bundle", "looks through cameras", "name side under", bundle=config(cameras=("front", "side")))
    seen.cameras["front"] = camera(hz=5.0)
    said = [str(f) for f in bad(seen, bundle=config())]
    assert any("slower than the bundle's 10 Hz" in line for line in said)
    seen.cameras["front"] = replace(camera(), sizes={(64, 64)})
    only(seen, "fail", "bundle", "wants the shape of 64x48", "cameras.front", bundle=config())
    seen.cameras["front"] = replace(camera(), sizes={(32, 24)})
    only(seen, "warn", "bundle", "below its 64x48", "resolution", bundle=config())


def test_action_servers_are_found_by_their_status(seen):
    panda = RobotDescription.load("panda")
    names = {output.what: output for output in wiring.outputs(panda)}
    assert names["gripper command"].action and not names["command"].action
    action = replace(UR5E, controller={"type": CONTROLLER, "interface": "action"})
    name = f"{CONTROLLER}/follow_joint_trajectory"
    assert wiring.outputs(action)[0].topic == name
    only(seen, "fail", "action command", f"nobody serves {name}", "start", robot=action)
    seen.topics[f"{name}/_action/status"] = topic("status", "", f"/{CONTROLLER}")
    assert bad(seen, robot=action) == []


def test_the_report_counts_and_is_plain_data(seen):
    seen.driver["program_running"] = False
    findings = judge(UR5E, seen)
    assert report.worst(findings) == "fail"
    assert report.summary(findings).endswith("0 to look at, 1 to mend")
    written = report.as_dict(findings, robot="ur5e")
    assert written["verdict"] == "fail" and written["robot"] == "ur5e"
    assert {"level", "check", "text", "mend"} == set(written["findings"][0])
