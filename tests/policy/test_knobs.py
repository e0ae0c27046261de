"""One table of knobs: what a parameter says and what the decoder gets must be the same thing."""

from __future__ import annotations

import dataclasses

import pytest

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.policy.knobs import KNOBS, differences, options_of, parameters_of

NOT_TO_TURN = {"use_cache"}  # exact


def test_every_option_of_the_decoder_has_a_knob():
    fields = {field.name for field in dataclasses.fields(DecodeOptions)}
    assert {knob.field for knob in KNOBS} == fields - NOT_TO_TURN
    assert len({knob.name for knob in KNOBS}) == len(KNOBS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 3, "action_steps": 2, "temperature": 0.5, "confidence_threshold": 0.9, "schedule": "paper"},
        {"decoder": "jacobi", "iterations": 7, "start": "current", "foresight": "off"},
        {"stop_when_ready": True, "remask": 0.125, "sampler": "exact", "entropy_bound": 2.0, "samples": 4},
    ],
)
def test_there_and_back(changes):
    options = DecodeOptions(**changes)
    parameters = parameters_of(options)
    assert DecodeOptions(**options_of(parameters)) == options
    for knob in KNOBS:  # ROS refuses a value of another type than the parameter's first one
        assert type(parameters[knob.name]) is type(knob.default), knob.name


def test_defaults_and_bounds_are_ones_that_the_decoder_takes():
    defaults = {knob.name: knob.default for knob in KNOBS}
    assert DecodeOptions(**options_of(defaults)) == DecodeOptions()
    for knob in KNOBS:
        for value in (*knob.choices, *(v for v in (knob.low, knob.high) if v is not None)):
            DecodeOptions(**options_of({knob.name: type(knob.default)(value)}))


def test_other_parameters_are_left_alone():
    assert options_of({"instruction": "go", "bundle": "x", "denoise_steps": 2}) == {"steps": 2}


def test_differences_name_what_was_turned():
    old, new = DecodeOptions(steps=8), DecodeOptions(steps=4, samples=2)
    assert differences(old, new) == "denoise_steps 8 -> 4, samples 1 -> 2"
    assert differences(old, old) == ""


@pytest.mark.parametrize("bad", [
    {"entropy_bound": 1.0, "confidence_threshold": 0.5}, {"sampler": "published", "action_steps": 2},
])  # fmt: skip
def test_knobs_that_contradict_each_other_are_refused_together(bad):
    for name, value in bad.items():
        DecodeOptions(**options_of({name: value} if name != "action_steps" else {name: 0}))
    with pytest.raises(ConfigError):
        DecodeOptions(**options_of(bad))
