"""Whatever is said: one line in the log, and no act on what the bundle does not know."""

from __future__ import annotations

import json

import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.policy import words
from udvla_ros.rollouts.bags import check, labels, reader

KNOWN = ["push", "tap", "the", "red", "green", "cube", "to", "left"]
PIECES = st.sampled_from([*KNOWN, "stop", "not", "do", "don't", "拿起方块", "\n", "\x00", "\u202e", "🙂", ",", "STOP!"])


@examples(4000)
@given(sentence=st.lists(PIECES | st.text(max_size=6), max_size=8).map(" ".join))
def test_a_sentence_is_one_line_and_means_something_only_by_words_that_are_known(sentence):
    said = words.words_of(sentence)
    unknown = [word for word in said if word not in KNOWN]
    meaning = words.meaning(sentence, unknown)
    for line in (*meaning, words.one_line(sentence), words.shown(sentence)):
        assert isinstance(line, bool) or (str(line).isprintable() and len(str(line)) < max(500, len(sentence) + 1))
    if not any(word in KNOWN for word in said):
        assert meaning.refused
    if said and not unknown:
        assert not meaning.refused and not meaning.said


@pytest.mark.parametrize(
    ("sentence", "unknown", "refused", "hold"),
    [
        ("stop", ["stop"], "means hold", True),
        ("Stop now, please!", [], "means hold", True),
        ("停止", ["停止"], "means hold", True),
        ("拿起红色方块", ["拿起红色方块"], "knows no word", False),
        ("do not tap the red cube", ["do", "not"], "never saw 'not'", False),
        (" \n ", [], "is empty", False),
        ("tap the red cube", [], "", False),
        ("hold the red cube", ["hold"], "", False),
    ],
)
def test_what_is_refused_and_what_means_hold(sentence, unknown, refused, hold):
    meaning = words.meaning(sentence, unknown)
    assert refused in meaning.refused and bool(refused) == bool(meaning.refused) and meaning.hold == hold


def test_a_negation_that_is_known_is_said_aloud_all_the_same():
    assert "'not'" in words.meaning("do not tap the red cube").said


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@examples(2000)
@given(said=VALUES.map(json.dumps) | st.text(max_size=40), topic=st.sampled_from(labels.TOLD))
def test_json_on_a_topic_or_in_a_label_is_taken_or_passed_over(said, topic):
    heard = labels.Labels({}, 0.0)
    heard.hear(topic, said)
    heard.judge("")
    assert all(isinstance(text, str) for text in heard.texts().values())
    assert all(isinstance(count, int) for count in check._by_topic(said).values())
    assert all(isinstance(text, str) for text in reader._mapping(said).values())
