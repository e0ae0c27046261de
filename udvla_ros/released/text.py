"""``emu3.tiktoken`` as a ``tokenizer.json``: the same ids without anybody's code.

The file lists byte strings by rank (Qwen's vocabulary, 151,643 of them). A byte-pair encoder that joins, at each step,
the neighbours whose union has the lowest rank is what tiktoken does; here every way to split an entry into two others
becomes a merge, in the order of the entries. Special tokens are left out: an instruction is text, and no sentence
may reach a marker's id by spelling it.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from udvla_ros.errors import BundleError
from udvla_ros.released.tensors import refuse_pointer
from udvla_ros.tokens.layout import Vocabulary
from udvla_ros.tokens.text import TextTokenizer

TIKTOKEN, VISION_TOKENS = "emu3.tiktoken", "emu3_vision_tokens.txt"
# How Qwen's tokeniser cuts text into words before it joins bytes.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_text(folder: Path, vocabulary: Vocabulary) -> TextTokenizer:
    """Return the text tokeniser of a released checkpoint.

    A ``tokenizer.json`` that is there is taken as it is, a ``emu3.tiktoken`` converted.

    Raises:
        BundleError: neither is there, or its vocabulary is not the one that the layout counts on.
    """
    if (folder / TIKTOKEN).is_file():
        check_visual(folder / VISION_TOKENS, vocabulary)
        return from_ranks(read_ranks(folder / TIKTOKEN, vocabulary.text_size))
    if (folder / "tokenizer.json").is_file():
        refuse_pointer(folder / "tokenizer.json")
        return without_specials(folder / "tokenizer.json", vocabulary.text_size)
    raise BundleError(f"{folder} holds neither {TIKTOKEN} nor tokenizer.json: download the tokeniser's files")


def read_ranks(path: Path, size: int) -> dict[bytes, int]:
    """Return the byte strings of a tiktoken file by rank. Raises BundleError unless there are ``size``, 0 to size - "
    "1."""
    refuse_pointer(path)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise BundleError(f"{path}, line {number} is not 'base64 rank': download the file again") from None
    if sorted(ranks.values()) != list(range(size)):
        raise BundleError(
            f"{path} has {len(ranks)} entries where the checkpoint counts {size} text ids (0 to {size - 1}): "
            "it is another vocabulary, or truncated; take the file that came with the weights"
        )
    return ranks


def from_ranks(ranks: dict[bytes, int]) -> TextTokenizer:
    """Return the byte-level BPE of a tiktoken vocabulary."""
    letters = _letters()

    def spelt(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelt(left), spelt(right)) for left, right in pairs]
    tokenizer = Tokenizer(BPE({spelt(token): rank for token, rank in ranks.items()}, merges, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return TextTokenizer(tokenizer)


def without_specials(path: Path, size: int) -> TextTokenizer:
    """Read a ``tokenizer.json``; its added tokens, markers of the layout, are left out. Raises BundleError."""
    import json

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["added_tokens"] = []
        values["post_processor"] = None
        tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(values)))
    except Exception as error:  # the library raises bare Exception
        raise BundleError(
            f"{path} is not a tokeniser file ({' '.join(str(error).split())}): download it again"
        ) from None
    if tokenizer.vocab_size != size:
        raise BundleError(
            f"{path} has {tokenizer.vocab_size} ids where the checkpoint counts {size}: take its own file"
        )
    return tokenizer


def check_visual(path: Path, vocabulary: Vocabulary) -> None:
    """Raise BundleError unless the file names the visual tokens, as many as there are and in order."""
    if not path.is_file():
        raise BundleError(f"{path} is missing: download it with {TIKTOKEN}")
    refuse_pointer(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    numbers = [int(found.group(1)) if (found := re.search(r"(\d+)", line)) else -1 for line in lines]
    if numbers != list(range(vocabulary.visual_size)):
        raise BundleError(
            f"{path} lists {len(lines)} visual tokens; the checkpoint has {vocabulary.visual_size}, numbered in order: "
            "take the file that came with the weights"
        )


def _letters() -> dict[int, str]:
    """Return the printable letter by which byte-level tokenisers write each byte (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
