"""Whatever a robot file, a parameter or a joint state says: used as it is meant, or refused in one line."""

from __future__ import annotations

import copy
import math

import numpy as np
import yaml
from fuzzing import damages, examples
from hypothesis import given
from hypothesis import strategies as st
from synthetic_bag import NAMES, ROBOT

from udvla_ros import schema
from udvla_ros.errors import ConfigError
from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.measured import Measured
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.robot_file import Guards, robot_file

TEXT = ROBOT.path.read_text()
PLAIN = yaml.safe_load(TEXT)
CHECK = robot_file(len(ROBOT.joints))
ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from(["5e-1", "1_0", ".nan", "0x10", "yes", [], {}, [[]], {"a": 1}, 10**400, [1.0] * 6, "/", "~"])
)  # fmt: skip


def paths(data, at=()):
    yield at
    rows = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in rows:
        yield from paths(value, (*at, key))


PATHS = [path for path in paths(PLAIN) if path]


def put(data, path, value, key=None):
    *above, last = path
    for step in above:
        data = data[step]
    if key is None or isinstance(data, list):
        data[last] = value
    else:
        data[key] = value


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, (float, np.ndarray)) or bool(np.isfinite(value).all())


@examples(3000)
@given(path=st.sampled_from(PATHS), value=ODD, key=st.none() | st.text(max_size=5))
def test_any_value_anywhere_in_a_robot_file_is_refused_in_one_line_or_of_its_type(path, value, key):
    data = copy.deepcopy(PLAIN)
    put(data, path, value, key)
    try:
        said = CHECK(data, "")
    except ConfigError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    assert finite({k: v for k, v in said.items() if k not in ("collision", "notes")})
    options, guards = ArbiterOptions(**said.get("arbiter", {})), Guards(**said.get("observation", {}))
    assert options.joint_state_timeout > 0 and guards.max_age > 0


@examples(12)
@given(path=st.sampled_from(PATHS), value=ODD)
def test_the_whole_file_read_from_disk_is_loaded_or_refused(tmp_path_factory, path, value):
    data = copy.deepcopy(PLAIN)
    put(data, path, value)
    folder = tmp_path_factory.mktemp("robot")
    (folder / "ur5e_sim.urdf").write_bytes((ROBOT.path.parent / "ur5e_sim.urdf").read_bytes())
    (folder / "mine.yaml").write_text(yaml.safe_dump(data))
    try:
        robot = RobotDescription.load(folder / "mine.yaml")
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(robot.home).all()


@examples(300)
@given(damage=damages())
def test_bytes_of_yaml_are_read_or_refused_with_the_line(tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("yaml") / "r.yaml"
    path.write_bytes(damage(TEXT.encode()[:1500]))
    try:
        schema.read_yaml(path)
    except ConfigError as error:
        assert "\n" not in str(error) and "r.yaml" in str(error)


NUMBERS = st.floats() | st.integers(-3, 3).map(float)


@examples(2500)
@given(
    messages=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*NAMES, "wheel", ""]), max_size=9), st.lists(NUMBERS, max_size=9),
            st.none() | st.lists(NUMBERS, max_size=9), st.floats(0, 1),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_joint_states_of_any_shape_leave_no_number_that_is_not_one(messages):
    measured, now = Measured(ROBOT), 100.0
    heard: dict[str, float] = {}
    for names, position, velocity, later in messages:
        now += later
        with np.errstate(over="ignore"):
            measured.update(names, position, velocity, now)
        heard |= {n: q for n, q in zip(names, position, strict=False) if math.isfinite(q)}
    for joint, q in zip(ROBOT.joints, measured.q, strict=True):
        assert q == heard[joint] if joint in heard else math.isnan(q)
    assert measured.gripper == heard[NAMES[-1]] if NAMES[-1] in heard else math.isnan(measured.gripper)
    assert isinstance(measured.why_not_still(now, ArbiterOptions()), str)
