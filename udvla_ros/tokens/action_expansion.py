"""What each FAST code stands for: bytes, coefficients, and which code may follow which.

A FAST code (arXiv 2501.09747) expands to a run of characters, one character per coefficient. Files
made by the published recipe are *byte-level*: a code may hold half of a two-byte character, so that
whether a sequence is well-formed depends on more than the sum of its lengths. Both kinds are brought
to one form here: a length per code, and a small automaton over the bytes still owed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from udvla_ros.errors import TokenError


class Expansion:
    """The expansions of a BPE's codes over the alphabet ``chr(0) .. chr(alphabet - 1)``.

    Attributes:
        alphabet: number of characters; the unbroken run of single characters in the vocabulary from
            chr(0) on, which is what the trainer was given.
        pieces: bytes of each code [V]; None where the code is a special or absent one.
        lengths: int [V], characters that *begin* in each code; 0 for an unusable code, and for the
            tail of a split character.
        successors: int [Q, V], state after the code, -1 where the code is malformed there. State 0
            owes nothing: every sequence starts there and must end there. Q is 1 for a BPE over whole
            characters.
    """

    def __init__(self, bpe: Tokenizer) -> None:
        vocabulary = bpe.get_vocab(with_added_tokens=False)
        self.alphabet = _unbroken_run(vocabulary)
        if not 1 <= self.alphabet <= 0xD800:  # beyond that lie the surrogates, which are no characters
            raise TokenError(
                "the action tokeniser has no alphabet that starts at chr(0): use a FAST tokenizer.json"
            )
        self.pieces = _pieces(bpe, vocabulary)
        self.successors = _automaton(self.pieces, self.alphabet)
        usable = (self.successors >= 0).any(axis=0)
        # In UTF-8 a byte begins a character unless its top bits are 10.
        starts = [sum(byte & 0xC0 != 0x80 for byte in piece or b"") for piece in self.pieces]
        self.lengths = np.where(usable, starts, 0).astype(np.int64)
        self.lengths.setflags(write=False)
        self.successors.setflags(write=False)

    def characters(self, codes: Sequence[int]) -> NDArray[np.int64]:
        """Character numbers of a code sequence; raises :class:`TokenError` on a malformed one."""
        parts = []
        for slot, code in enumerate(codes):
            piece = self.pieces[code] if 0 <= code < len(self.pieces) else None
            if piece is None:
                raise TokenError(
                    f"action code {code} in slot {slot} stands for no coefficients (of {len(self.pieces)}): "
                    "use the tokeniser the model was trained with"
                )
            parts.append(piece)
        try:
            text = b"".join(parts).decode("utf-8")
        except UnicodeDecodeError:
            raise TokenError(
                "action codes split a coefficient: decode under the tokeniser's lattice, or infer again"
            ) from None
        characters = np.fromiter(map(ord, text), dtype=np.int64, count=len(text))
        if characters.size and characters.max() >= self.alphabet:
            raise TokenError(
                f"action codes hold character {characters.max()} of an alphabet of {self.alphabet}: "
                "decode under the tokeniser's lattice, or infer again"
            )
        return characters


def _unbroken_run(vocabulary: dict[str, int]) -> int:
    count = 0
    while chr(count) in vocabulary:
        count += 1
    return count


def _pieces(bpe: Tokenizer, vocabulary: dict[str, int]) -> list[bytes | None]:
    """Bytes per code, exactly as the file's own decoder forms them."""
    decoder = (json.loads(bpe.to_str()).get("decoder") or {}).get("type")
    if decoder not in ("ByteLevel", "Fuse"):
        raise TokenError(
            f"the action tokeniser decodes by {decoder!r}: use a FAST tokenizer.json (ByteLevel or Fuse)"
        )
    byte_of = _byte_of_character() if decoder == "ByteLevel" else {}
    pieces: list[bytes | None] = [None] * bpe.get_vocab_size(with_added_tokens=True)
    added = {str(token) for token in bpe.get_added_tokens_decoder().values()}
    for token, code in vocabulary.items():
        if token in added or not 0 <= code < len(pieces):
            continue
        # A token with a character outside the byte table stands for itself (so do all without one).
        values = [byte_of.get(character) for character in token]
        pieces[code] = token.encode("utf-8") if None in values else bytes(values)  # type: ignore[arg-type]
    return pieces


def _byte_of_character() -> dict[str, int]:
    """The byte-level alphabet: printable bytes stand for themselves, the others for chr(256 + n)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def _automaton(pieces: Sequence[bytes | None], alphabet: int) -> NDArray[np.int64]:
    """Successor table [Q, V] over the bytes of an unfinished character, with equal states merged."""
    whole = {chr(i).encode("utf-8") for i in range(alphabet)}
    begun = {char[:n] for char in whole for n in range(1, len(char))}

    def after(owed: bytes, piece: bytes | None) -> bytes | None:
        if not piece:
            return None
        for i in range(len(piece)):
            owed += piece[i : i + 1]
            if owed in whole:
                owed = b""
            elif owed not in begun:
                return None
        return owed

    states: list[bytes] = [b""]
    rows: list[list[int]] = []
    for owed in states:  # grows while it is walked
        row = []
        for piece in pieces:
            rest = after(owed, piece)
            if rest is not None and rest not in states:
                states.append(rest)
            row.append(-1 if rest is None else states.index(rest))
        rows.append(row)
    table = np.array(rows, dtype=np.int64)

    # States that cannot be told apart by any continuation are one: split classes until nothing changes.
    classes = np.array([0] + [1] * (len(states) - 1))
    while True:
        targets = np.where(table >= 0, classes[table], -1)
        _, first, refined = np.unique(
            np.column_stack([classes, targets]), axis=0, return_index=True, return_inverse=True
        )
        refined = refined.reshape(-1)
        if len(first) == len(np.unique(classes)):
            # np.unique sorts, and class 0 (nothing owed) sorts first.
            return np.where(table >= 0, refined[table], -1)[first]
        classes = refined
