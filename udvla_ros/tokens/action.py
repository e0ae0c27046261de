"""FAST action tokeniser (arXiv 2501.09747): DCT over time, quantise, one character each, BPE.

A chunk [K, D] of normalised actions becomes coefficients ``round(scale * DCT-II)`` [K frequencies, D],
flattened row by row (all dimensions of frequency 0 first), each shifted by ``min_token`` to a character
number; a BPE packs the text into codes. Decoding inverts it exactly up to the rounding: a coefficient is
off by at most 0.5 / scale, so the chunk by at most ``sqrt(K) * 0.5 / scale`` anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct, idct
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.tokens.action_expansion import Expansion
from udvla_ros.tokens.action_lattice import Lattice

TOKENIZER, CONFIG, MEASURED = "tokenizer.json", "processor_config.json", "fit.json"


class FastTokenizer:
    """Chunks of normalised actions [K, D] to action codes 0..vocab_size - 1 and back.

    Attributes:
        chunk, dimensions: K and D. ``total`` is K x D, the coefficients of a chunk.
        scale, min_token, max_token: the quantiser; coefficients lie in min_token..max_token.
        vocab_size: number of codes V.
        max_codes: the longest code sequence met at fit; None for a tokeniser that came without it.
        clipped: coefficients clipped so far by ``encode(..., clip=True)``.
    """

    def __init__(
        self,
        bpe: Tokenizer,
        scale: float,
        min_token: int,
        vocab_size: int,
        chunk: int,
        dimensions: int,
        max_codes: int | None = None,
    ) -> None:
        if not (np.isfinite(scale) and scale > 0) or chunk < 1 or dimensions < 1:
            raise TokenError(
                f"scale {scale}, chunk {chunk}, dimensions {dimensions}: all three must be above zero"
            )
        codes = bpe.get_vocab_size(with_added_tokens=True)
        if codes != vocab_size:
            raise TokenError(
                f"{TOKENIZER} has {codes} codes but {CONFIG} says {vocab_size}: use files of one tokeniser"
            )
        self.bpe, self.scale, self.min_token = bpe, scale, int(min_token)
        self.vocab_size, self.chunk, self.dimensions = int(vocab_size), int(chunk), int(dimensions)
        self.total = self.chunk * self.dimensions
        self.max_codes = max_codes
        self.clipped = 0
        self._expansion = Expansion(bpe)
        self.max_token = self.min_token + self._expansion.alphabet - 1
        self._lattices: dict[int, Lattice] = {}

    @property
    def expanded_lengths(self) -> NDArray[np.int64]:
        """int [V]: coefficients that begin in each code; 0 for a special or unusable one.

        For a tokeniser made by :meth:`fit` a sequence is well-formed if and only if these add up to
        ``total``. Codes of the published byte-level files may split a coefficient: use :meth:`lattice`.
        """
        return self._expansion.lengths

    def lattice(self, slots: int) -> Lattice:
        """The well-formed code sequences of this tokeniser that fit ``slots`` with EOA; kept once made."""
        if slots not in self._lattices:
            self._lattices[slots] = Lattice(
                self._expansion.lengths, self.total, slots, self._expansion.successors
            )
        return self._lattices[slots]

    @classmethod
    def fit(cls, chunks: ArrayLike, vocabulary_size: int = 1024, scale: float = 10) -> FastTokenizer:
        """Train on normalised chunks [N, K, D] in [-1, 1].

        The alphabet holds every coefficient between the least and the greatest met, and merges are of
        whole coefficients. ``vocab_size`` comes out below ``vocabulary_size`` where the data has too few
        repeated runs. Raises :class:`TokenError` where the alphabet alone does not fit.
        """
        chunks = np.asarray(chunks, dtype=np.float64)
        if chunks.ndim != 3 or chunks.size == 0:
            raise TokenError(f"chunks have shape {chunks.shape}: give [N, K, D] with at least one chunk")
        _check_finite(chunks)
        if np.abs(chunks).max() > 1 + 1e-6:
            raise TokenError(f"chunks reach {np.abs(chunks).max():g}: normalise them to [-1, 1] first")
        coefficients = _coefficients(chunks, scale)
        low, high = int(coefficients.min()), int(coefficients.max())
        alphabet = high - low + 1
        if alphabet > vocabulary_size:
            raise TokenError(
                f"{alphabet} different coefficients do not fit {vocabulary_size} codes: lower the scale "
                f"({scale:g}) or raise the vocabulary size"
            )
        # No pre-tokeniser: a chunk is one word, and a code never holds a part of a coefficient.
        bpe = Tokenizer(BPE())
        bpe.decoder = Fuse()
        trainer = BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[],
            initial_alphabet=[chr(i) for i in range(alphabet)],
            max_token_length=10_000,
        )
        # A letter that no chunk uses is kept all the same: the initial alphabet is part of the vocabulary.
        bpe.train_from_iterator((_text(row - low) for row in coefficients), trainer)
        size = bpe.get_vocab_size(with_added_tokens=True)
        tokenizer = cls(bpe, scale, low, size, chunks.shape[1], chunks.shape[2])
        tokenizer.max_codes = max(len(codes) for codes in tokenizer.encode_batch(chunks))
        return tokenizer

    def encode(self, chunk: ArrayLike, clip: bool = False) -> list[int]:
        """Normalised chunk [K, D] -> codes, at most ``total`` of them for a tokeniser made by :meth:`fit`.

        A coefficient outside min_token..max_token raises :class:`TokenError`, which names it; with
        ``clip`` it is moved to the nearest end and counted in ``clipped``.
        """
        return self.encode_batch(np.asarray(chunk, dtype=np.float64)[None], clip)[0]

    def encode_batch(self, chunks: ArrayLike, clip: bool = False) -> list[list[int]]:
        """As :meth:`encode`, for chunks [N, K, D]."""
        chunks = np.asarray(chunks, dtype=np.float64)
        if chunks.shape[1:] != (self.chunk, self.dimensions):
            raise TokenError(
                f"a chunk has shape {list(chunks.shape[1:])} where the tokeniser has "
                f"[{self.chunk}, {self.dimensions}]: match chunk length and action dimensions"
            )
        _check_finite(chunks)
        coefficients = _coefficients(chunks, self.scale)
        outside = (coefficients < self.min_token) | (coefficients > self.max_token)
        if outside.any():
            if not clip:
                raise TokenError(self._outside(coefficients, outside))
            self.clipped += int(outside.sum())
            coefficients = np.clip(coefficients, self.min_token, self.max_token)
        characters = coefficients - self.min_token
        encodings = self.bpe.encode_batch([_text(row) for row in characters], add_special_tokens=False)
        codes = [encoding.ids for encoding in encodings]
        for row, sequence in zip(characters, codes, strict=True):
            self._check_complete(row, sequence)
        return codes

    def decode(self, codes: Sequence[int] | NDArray) -> NDArray[np.float32]:
        """Codes (without EOA) -> normalised chunk [K, D] float32.

        Raises :class:`TokenError` on an unknown code and on codes that do not expand to exactly
        ``total`` coefficients; a chunk is never made up. Values may leave [-1, 1] by the rounding.
        """
        return self._actions(self.coefficients(codes))

    def coefficients(self, codes: Sequence[int] | NDArray) -> NDArray[np.int64]:
        """Codes -> quantised DCT coefficients [K frequencies, D]; raises like :meth:`decode`."""
        characters = self._expansion.characters([int(code) for code in codes])
        if len(characters) != self.total:
            raise TokenError(
                f"action codes expand to {len(characters)} coefficients where the chunk has {self.total} "
                f"({self.chunk} x {self.dimensions}): decode under the tokeniser's lattice, or infer again"
            )
        return (characters + self.min_token).reshape(self.chunk, self.dimensions)

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and ``processor_config.json`` in the published format, and ``fit.json``.

        What the fit measured has a file of its own because readers of the published format refuse
        keys they do not know.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.bpe.save(str(folder / TOKENIZER))
        config = {
            "scale": self.scale,
            "vocab_size": self.vocab_size,
            "min_token": self.min_token,
            "time_horizon": self.chunk,
            "action_dim": self.dimensions,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / MEASURED).write_text(
            json.dumps({"max_codes": self.max_codes}, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(
        cls, folder: str | Path, chunk: int | None = None, dimensions: int | None = None
    ) -> FastTokenizer:
        """Read a tokeniser; ``chunk`` and ``dimensions`` supply (or check) what the config says.

        The published configs leave both null. Raises :class:`BundleError` where a file is absent or
        unreadable, or the parts disagree.
        """
        folder = Path(folder)
        config = _read_json(folder / CONFIG)
        if not (folder / TOKENIZER).is_file():
            raise BundleError(f"{folder} has no {TOKENIZER}: give the folder of a FAST tokeniser")
        try:
            bpe = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(
                f"{folder / TOKENIZER} is not a tokeniser file ({error}): copy it again"
            ) from None
        missing = [key for key in ("scale", "min_token", "vocab_size") if config.get(key) is None]
        if missing:
            raise BundleError(
                f"{folder / CONFIG} lacks {', '.join(missing)}: use the config of this tokeniser"
            )
        measured = _read_json(folder / MEASURED) if (folder / MEASURED).is_file() else {}
        try:
            return cls(
                bpe,
                config["scale"],
                config["min_token"],
                config["vocab_size"],
                _agree(folder, "time_horizon", config, chunk),
                _agree(folder, "action_dim", config, dimensions),
                measured.get("max_codes"),
            )
        except TokenError as error:
            raise BundleError(f"{folder}: {error}") from None

    def _actions(self, coefficients: NDArray) -> NDArray[np.float32]:
        return idct(coefficients / self.scale, axis=0, norm="ortho").astype(np.float32)

    def _outside(self, coefficients: NDArray[np.int64], outside: NDArray[np.bool_]) -> str:
        n, frequency, dimension = (int(i) for i in np.argwhere(outside)[0])
        return (
            f"coefficient {coefficients[n, frequency, dimension]} (frequency {frequency}, dimension "
            f"{dimension}) is outside {self.min_token}..{self.max_token}: clip it, or fit on data that "
            "holds such motion"
        )

    def _check_complete(self, characters: NDArray[np.int64], codes: list[int]) -> None:
        """A BPE drops what its vocabulary lacks without a word; refuse that."""
        wanted = _text(characters)
        kept = b"".join(self._expansion.pieces[code] or b"" for code in codes)
        if kept == wanted.encode("utf-8"):
            return
        for character in wanted:
            ids = self.bpe.encode(character, add_special_tokens=False).ids
            if b"".join(self._expansion.pieces[code] or b"" for code in ids) != character.encode("utf-8"):
                raise TokenError(
                    f"coefficient {ord(character) + self.min_token} has no code in this tokeniser: "
                    "use one that was fitted on such motion"
                )
        raise TokenError("the tokeniser alters what it encodes (a normaliser?): use a FAST tokenizer.json")


def _coefficients(chunks: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    """[N, K, D] -> quantised coefficients [N, K, D]."""
    return np.around(scale * dct(chunks, axis=1, norm="ortho")).astype(np.int64)


def _text(characters: NDArray[np.int64]) -> str:
    return "".join(map(chr, characters.reshape(-1).tolist()))


def _check_finite(chunks: NDArray[np.float64]) -> None:
    if not np.isfinite(chunks).all():
        raise TokenError("a chunk holds NaN or infinity: remove it from the data, or mend its source")


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): give the folder of a FAST tokeniser"
        ) from None
    except ValueError:
        raise BundleError(f"{path} is not JSON: copy it again") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path} is not a JSON object: copy it again")
    return value


def _agree(folder: Path, key: str, config: dict, given: int | None) -> int:
    stored = config.get(key)
    if None not in (stored, given) and stored != given:
        raise BundleError(f"{folder / CONFIG} has {key} {stored} where {given} is wanted: use matching files")
    value = given if stored is None else stored
    if value is None:
        raise BundleError(f"{folder / CONFIG} leaves {key} open: give chunk and dimensions")
    return int(value)
