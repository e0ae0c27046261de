"""Instructions: words, headers, unknown words, and files of other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.tokens.text import TextTokenizer

SENTENCES = ["Touch the red cube.", "pick up the Blue cube", "touch the green cube"]
WORDS = sorted({"touch", "the", "red", "cube", "pick", "up", "blue", "green"})


@pytest.fixture(scope="module")
def words() -> TextTokenizer:
    return TextTokenizer.train(SENTENCES, header_words=["1*6*8", "1*4*4"], spare=3)


@given(chosen=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), upper=st.booleans())
def test_known_words_round_trip_in_lower_case(words: TextTokenizer, chosen: list[str], upper: bool) -> None:
    sentence = " ".join(chosen)
    ids = words.encode(sentence.upper() if upper else sentence)
    assert len(ids) == len(chosen)
    assert all(0 <= i < words.vocab_size for i in ids)
    assert words.decode(ids) == sentence
    assert words.unknown_words(sentence) == []


def test_headers_are_one_id_each(words: TextTokenizer) -> None:
    ids = words.encode("1*6*8") + words.encode("1*4*4")
    assert len(set(ids)) == 2
    assert words.decode(ids) == "1*6*8 1*4*4"


def test_unknown_words_are_listed_as_written(words: TextTokenizer) -> None:
    text = "Touch the Zebra, then the cube"
    assert words.unknown_words(text) == ["Zebra", ",", "then"]
    ids = words.encode(text)
    assert ids[2] == ids[3] == ids[4] == words.encode("xylophone")[0]
    assert words.decode(ids) == "touch the [UNK] [UNK] [UNK] the cube"


@given(st.text(max_size=40))
def test_any_text_encodes_or_is_refused(words: TextTokenizer, text: str) -> None:
    try:
        ids = words.encode(text)
    except TokenError as error:
        assert "\n" not in str(error)
        assert not text.strip()
    else:
        assert text.strip() and all(0 <= i < words.vocab_size for i in ids)


def test_no_text_reaches_a_spare_id(words: TextTokenizer) -> None:
    spare = words.vocab_size - 1
    name = words.decode([spare])
    assert spare not in words.encode(name)


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_blank_instructions_are_refused(words: TextTokenizer, text: str) -> None:
    with pytest.raises(TokenError, match="say what the robot shall do"):
        words.encode(text)


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_ids_outside_are_refused(words: TextTokenizer, bad: int) -> None:
    with pytest.raises(TokenError, match=f"text id {bad}"):
        words.decode([bad])


def test_the_limit_keeps_the_most_frequent_words() -> None:
    small = TextTokenizer.train(SENTENCES, size_limit=4, spare=0)
    assert small.vocab_size == 4
    assert small.unknown_words("touch the red cube") == ["red"]
    with pytest.raises(TokenError, match="raise size_limit"):
        TextTokenizer.train(SENTENCES, size_limit=4, header_words=["1*2*2"], spare=2)
    with pytest.raises(TokenError, match="at least one sentence"):
        TextTokenizer.train([])


def test_training_does_not_depend_on_the_order(words: TextTokenizer) -> None:
    again = TextTokenizer.train(SENTENCES[::-1], header_words=["1*6*8", "1*4*4"], spare=3)
    assert again.encode("pick up the red cube") == words.encode("pick up the red cube")


def test_the_file_round_trips(words: TextTokenizer, tmp_path: Path) -> None:
    words.save(tmp_path / "text")
    for path in (tmp_path / "text", tmp_path / "text" / "tokenizer.json"):
        loaded = TextTokenizer.load(path)
        assert loaded.encode("Pick the Zebra 1*6*8") == words.encode("Pick the Zebra 1*6*8")
        assert loaded.unknown_words("Pick the Zebra 1*6*8") == ["Zebra"]
        assert loaded.vocab_size == words.vocab_size


def test_a_byte_level_file_loads_and_knows_every_word(tmp_path: Path) -> None:
    """The published backbone's vocabulary is of this kind."""
    bytes_ = Tokenizer(BPE())
    bytes_.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bytes_.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    bytes_.train_from_iterator(SENTENCES, trainer)
    bytes_.save(str(tmp_path / "tokenizer.json"))
    loaded = TextTokenizer.load(tmp_path)
    assert loaded.decode(loaded.encode("Touch 1*25*25 zebräs")) == "Touch 1*25*25 zebräs"
    assert loaded.unknown_words("Touch 1*25*25 zebräs") == []


def test_absent_or_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="is not a tokeniser file"):
        TextTokenizer.load(tmp_path)
