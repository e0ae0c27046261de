"""Instructions to text ids and back, by a Hugging Face ``tokenizer.json`` of any kind.

The published backbone brings its own byte-pair file; :meth:`TextTokenizer.train` makes a word list of a
few dozen entries for a small bundle, whose training data names few things.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import Whitespace

from udvla_ros.errors import BundleError, TokenError

FILE = "tokenizer.json"
UNKNOWN = "[UNK]"


class TextTokenizer:
    """Wraps a ``tokenizers.Tokenizer``; ids are 0..vocab_size - 1, and no special token is ever added."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Only a word-level model stands for unseen text by one id; byte-level ones have no unknown text.
        self._unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or UNKNOWN)

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; words that are not in the vocabulary become the unknown id.

        Raises :class:`TokenError` for blank text, which says nothing about what to do.
        """
        ids = self._encoding(text).ids
        if not ids:
            raise TokenError(f"the instruction {text!r} holds no word: say what the robot shall do")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; raises :class:`TokenError` for an id outside the vocabulary."""
        ids = [int(i) for i in ids]
        for i in ids:
            if i < 0 or self._tokenizer.id_to_token(i) is None:
                raise TokenError(
                    f"text id {i} is not in a vocabulary of {self.vocab_size}: use the bundle's file"
                )
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text``, as written and in order, that the vocabulary does not have."""
        if self._unknown is None:
            return []
        found = self._encoding(text)
        spans = [span for i, span in zip(found.ids, found.offsets, strict=True) if i == self._unknown]
        return [text[first:last] for first, last in spans]

    def words(self) -> dict[str, int]:
        """Return the vocabulary, added tokens included: token to id."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def _encoding(self, text: str) -> Encoding:
        if not text.strip():
            raise TokenError("the instruction is empty: say what the robot shall do")
        return self._tokenizer.encode(text, add_special_tokens=False)

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        size_limit: int = 256,
        header_words: Sequence[str] = (),
        spare: int = 8,
    ) -> TextTokenizer:
        """Word list over lower-cased words and punctuation, the most frequent first.

        ``header_words`` (such as ``"1*6*8"``, an image's size) are one id each, whatever they hold.
        ``spare`` ids are kept unused, so that a later vocabulary of the same size can name new things.
        Words beyond ``size_limit`` (all ids counted) become unknown.
        """
        normalizer = Normalizers([NFKC(), Lowercase()])
        counts: Counter[str] = Counter()
        for sentence in sentences:
            pieces = Whitespace().pre_tokenize_str(normalizer.normalize_str(sentence))
            counts.update(word for word, _ in pieces)
        headers = list(dict.fromkeys(header_words))
        room = size_limit - 1 - len(headers) - spare
        if not counts:
            raise TokenError("no words to train on: give at least one sentence")
        if room < 1 or spare < 0:
            raise TokenError(
                f"{size_limit} ids leave no room for words beside {len(headers)} headers and {spare} spare "
                "ones: raise size_limit"
            )
        for word in headers:
            counts.pop(word, None)
        # Ties by the alphabet, so that the same sentences always give the same file.
        words = sorted(counts, key=lambda word: (-counts[word], word))[:room]
        # The pattern splits at "<", so no text can reach a spare id.
        entries = [UNKNOWN, *headers, *words, *(f"<spare {i}>" for i in range(spare))]
        tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(entries)}, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.add_tokens([AddedToken(word, normalized=False) for word in headers])
        return cls(tokenizer)

    def save(self, path: str | Path) -> Path:
        """Write ``tokenizer.json`` (``path`` is the file or its folder)."""
        path = _file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(path))
        return path

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Read any ``tokenizer.json`` (``path`` is the file or its folder); raises :class:`BundleError`."""
        path = _file(path)
        if not path.is_file():
            raise BundleError(f"{path} does not exist: give the bundle's text folder or its {FILE}")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{path} is not a tokeniser file ({error}): copy it again") from None


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / FILE
