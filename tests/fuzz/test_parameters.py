"""Whatever is set: a set of parameters is taken whole or refused whole, with a reason in one line."""

from __future__ import annotations

import math
import sys

import pytest
import rclpy
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from rclpy.node import Node
from rclpy.parameter import Parameter

from udvla_ros.errors import ConfigError
from udvla_ros.nodes.parameters import Parameters
from udvla_ros.nodes.policy_parts import TABLE


@pytest.fixture(scope="module")
def context():
    made = rclpy.Context()
    rclpy.init(context=made)
    yield made
    rclpy.try_shutdown(context=made)


@pytest.fixture(scope="module")
def node(context):
    made = Node("fuzzed", context=context, start_parameter_services=False, enable_rosout=False)
    made.known = Parameters(made, TABLE)
    yield made
    made.destroy_node()


VALUES = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8) | st.lists(st.integers(-9, 9))
    | st.sampled_from(["jd3p", "full", 8, 0.5, 1.0])
)  # fmt: skip


@examples(700)
@given(said=st.dictionaries(st.sampled_from([*(entry.name for entry in TABLE), "denoise_step"]), VALUES, max_size=3))
def test_a_set_of_parameters_is_taken_whole_or_refused_whole(node, said):
    before = node.known.values()
    told = {name: "off" if name == "foresight" and value is False else value for name, value in said.items()}
    try:
        result = node.set_parameters_atomically([Parameter(name, value=value) for name, value in said.items()])
    except (rclpy.exceptions.ParameterNotDeclaredException, TypeError, ValueError, OverflowError):
        taken = False  # rclpy itself refuses: not declared, or no parameter
    else:
        taken = result.successful
        assert taken or (result.reason and "\n" not in result.reason)
    assert node.known.values() == (before | told if taken else before)
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in node.known.values().values())


def test_a_parameter_that_nobody_knows_is_refused_at_the_start(context):
    made = Node("typo", context=context, parameter_overrides=[Parameter("denoise_step", value=4)])
    try:
        with pytest.raises(ConfigError, match="denoise_step is not one of its parameters; did you mean denoise_steps"):
            Parameters(made, TABLE)
    finally:
        made.destroy_node()


@pytest.mark.parametrize(("said", "meant"), [(False, "off"), (True, "on")])
def test_the_words_that_yaml_takes_for_yes_and_no_are_the_words(context, said, meant):
    made = Node("worded", context=context, parameter_overrides=[Parameter("compile", value=said)])
    try:
        known = Parameters(made, TABLE)
        assert known["compile"] == meant
        if not said:
            assert made.set_parameters([Parameter("foresight", value=said)])[0].successful
            assert known["foresight"] == "off"
        assert not made.set_parameters([Parameter("instruction", value=said)])[0].successful
    finally:
        made.destroy_node()


def test_what_a_file_gives_to_nodes_of_any_name_is_refused_only_where_it_is_like_one_of_ours(
    context, tmp_path, monkeypatch
):
    file = tmp_path / "all.yaml"

    def started(text: str) -> None:
        file.write_text(text)
        arguments = ["--ros-args", "--params-file", str(file)]
        monkeypatch.setattr(sys, "argv", ["node", *arguments])
        made = Node("shared", context=context, cli_args=arguments)
        try:
            Parameters(made, TABLE)
        finally:
            made.destroy_node()

    started("/**: {ros__parameters: {exposure_time: 20, denoise_steps: 4}}")
    with pytest.raises(ConfigError, match="did you mean denoise_steps"):
        started("/**: {ros__parameters: {denoise_step: 4}}")
    with pytest.raises(ConfigError, match="exposure_time is not one of its parameters"):
        started("shared: {ros__parameters: {exposure_time: 20}}")
