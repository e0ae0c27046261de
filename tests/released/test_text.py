"""The published text vocabulary as a ``tokenizer.json``: tiktoken's own ids, sentence by sentence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import released_files as files

from udvla_ros.released.text import WORDS, from_ranks, read_ranks

SENTENCES = (
    "move the slider to the right", "put the black bowl on the plate", "PUT the Bowl, in 3 steps: 12,345.6!",
    "l'été à Nîmes, c'est l'été", "机器人 拿起 红色 的 杯子", "a\tb\n\n  c   d", "naïve café — “quoted” …", "1*25*25",
    "don't   they're we'LL", "😀 ok", "x" * 60, "e\u0301 is composed",
)  # fmt: skip


def both(path: Path, size: int):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = read_ranks(path, size)
    return from_ranks(ranks), tiktoken.Encoding("qwen", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})


def check(ours, theirs) -> None:
    import unicodedata

    for sentence in SENTENCES:
        ids = theirs.encode(unicodedata.normalize("NFC", sentence), disallowed_special=())
        assert ours.encode(sentence) == ids, sentence
        assert ours.decode(ids) == unicodedata.normalize("NFC", sentence)


def test_small_vocabulary(tmp_path):
    files.write_ranks(tmp_path / "emu3.tiktoken", files.TEXT)
    ours, theirs = both(tmp_path / "emu3.tiktoken", files.TEXT)
    check(ours, theirs)
    assert ours.encode("1*25*25") == [16, 9, 17, 20, 9, 17, 20]  # the published size header
    assert ours.encode("<|extra_199|>") != [151_845]  # a sentence cannot spell a marker


@pytest.mark.slow
def test_published_vocabulary(tmp_path):
    found = importlib.util.find_spec("dashscope")
    if found is None or found.origin is None:
        pytest.skip("Qwen's vocabulary is not here: pip install dashscope")
    ours, theirs = both(Path(found.origin).parent / "resources" / "qwen.tiktoken", 151_643)
    check(ours, theirs)
    assert ours.save(tmp_path).stat().st_size > 10e6
