from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.console.actions import DECIMAL, LONGEST, PARAMETERS, SERVICES, NotAllowed, checked

KEYS = ["do", "say", "set", "of", "to", "x"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=6,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_whatever_a_page_sends_is_refused_or_one_of_the_three(asked):
    try:
        found = checked(asked)
    except NotAllowed:
        return
    if "do" in found:
        assert found == {"do": found["do"]} and found["do"] in SERVICES
    elif "say" in found:
        assert 0 < len(found["say"]) <= LONGEST and found["say"].isprintable()
    else:
        assert found["set"] in PARAMETERS[found["of"]]


def test_nothing_that_moves_a_joint_can_be_asked_for():
    assert not any("trajectory" in service or "command" in service for service in SERVICES.values())
    for asked in ({"do": "engage_teleop"}, {"set": "robot", "of": "arbiter_node", "to": "x"}, {"do": "stop", "x": 1},
                  {"set": "speed", "of": "sim_node", "to": 1.0}, {"set": "temperature", "of": "policy_node", "to": [1]},
                  {"set": "temperature", "of": "policy_node", "to": float("nan")}, {"say": "\n"}, []):  # fmt: skip
        with pytest.raises(NotAllowed):
            checked(asked)


def test_a_whole_number_becomes_decimal_where_the_parameter_is():
    assert {"temperature", "speed"} <= DECIMAL
    assert type(checked({"set": "temperature", "of": "policy_node", "to": 1})["to"]) is float
    assert type(checked({"set": "denoise_steps", "of": "policy_node", "to": 4})["to"]) is int
    assert checked({"set": "stop_when_ready", "of": "policy_node", "to": True})["to"] is True
