"""The one discrete space: which id means what, and where each block of a sequence lies.

UD-VLA (arXiv 2511.01718, section 3.1) puts text, current images, future images and actions into one
sequence over one vocabulary::

    BOS text | current images | future images | BOA action codes EOA MASK...
    `------- prefix --------'   `--------------- suffix ----------------'

The published checkpoints use 184,622 ids; a small model uses a few hundred. Both are instances of
:class:`Vocabulary`, and everything above this module asks it for ids and never writes one down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from udvla_ros.errors import BundleError, TokenError


class Modality(IntEnum):
    """What a position of the sequence belongs to; the attention table is indexed by it."""

    PAD = 0
    TEXT = 1
    CURRENT = 2
    FUTURE = 3
    ACTION = 4


@dataclass(frozen=True)
class Vocabulary:
    """Ids of text, visual and action tokens and of the markers between them.

    ``action_step`` is -1 where action code ``k`` has id ``action_first - k``: the published checkpoints
    overwrite the last text ids, downwards.
    """

    size: int
    text_size: int
    visual_first: int
    visual_size: int
    action_first: int
    action_size: int
    pad: int
    bos: int
    eos: int
    mask: int
    boa: int
    eoa: int
    boi: int
    eoi: int
    img: int
    eol: int
    eof: int
    action_step: int = 1

    def __post_init__(self) -> None:
        if self.action_step not in (1, -1):
            raise BundleError(f"action_step is {self.action_step}; it must be 1 or -1")
        visual = range(self.visual_first, self.visual_first + self.visual_size)
        actions = range(self.action_lowest, self.action_lowest + self.action_size)
        for name, ids in (("visual", visual), ("action", actions)):
            if not ids or ids[0] < 0 or ids[-1] >= self.size:
                raise BundleError(
                    f"{name} ids {ids.start}..{ids.stop - 1} do not fit a vocabulary of {self.size}"
                )
        if set(visual) & set(actions):
            raise BundleError("visual and action ids overlap; each needs a range of its own")
        text = range(self.text_size)
        if self.visual_first < self.text_size or (self.action_step == 1 and self.action_first in text):
            raise BundleError(
                f"visual or action ids overlap the {self.text_size} text ids; only action codes that count "
                "down (action_step -1) overwrite text"
            )
        for name, marker in self.markers.items():
            if not 0 <= marker < self.size or any(marker in ids for ids in (text, visual, actions)):
                raise BundleError(f"marker {name} has id {marker}, which is out of range or already taken")
        if len(set(self.markers.values())) != len(self.markers):
            raise BundleError("two markers share one id; give each marker an id of its own")

    @property
    def markers(self) -> dict[str, int]:
        """Every marker by name."""
        names = ("pad", "bos", "eos", "mask", "boa", "eoa", "boi", "eoi", "img", "eol", "eof")
        return {name: getattr(self, name) for name in names}

    @property
    def action_lowest(self) -> int:
        """The smallest action id, whichever way the codes count."""
        return self.action_first if self.action_step == 1 else self.action_first - self.action_size + 1

    @classmethod
    def published(cls, action_size: int = 1024) -> Vocabulary:
        """Return the layout of the released UD-VLA checkpoints (Emu3 ids, 184,622 rows)."""
        return cls(
            size=184_622, text_size=151_643, visual_first=151_854, visual_size=32_768,
            action_first=151_642, action_size=action_size, action_step=-1,
            pad=151_643, bos=151_849, eos=151_850, mask=151_848, boa=151_844, eoa=151_845,
            boi=151_852, eoi=151_853, img=151_851, eol=151_846, eof=151_847,
        )  # fmt: skip

    @classmethod
    def compact(cls, text_size: int, visual_size: int, action_size: int) -> Vocabulary:
        """Return a gapless layout: text, markers, action codes, visual codes."""
        names = ("pad", "bos", "eos", "mask", "boa", "eoa", "boi", "eoi", "img", "eol", "eof")
        markers = {name: text_size + offset for offset, name in enumerate(names)}
        action_first = text_size + len(names)
        visual_first = action_first + action_size
        return cls(
            size=visual_first + visual_size, text_size=text_size, visual_first=visual_first,
            visual_size=visual_size, action_first=action_first, action_size=action_size, **markers,
        )  # fmt: skip

    def visual_ids(self, codes: np.ndarray | Sequence[int]) -> np.ndarray:
        """Map VQ codes to ids. Raises TokenError on a code outside the codebook."""
        return self.visual_first + _checked(codes, self.visual_size, "visual")

    def visual_codes(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Map ids back to VQ codes. Raises TokenError on an id that is no visual token."""
        return _checked(np.asarray(ids, np.int64) - self.visual_first, self.visual_size, "visual")

    def action_ids(self, codes: np.ndarray | Sequence[int]) -> np.ndarray:
        """Map FAST codes to ids. Raises TokenError on a code outside the FAST vocabulary."""
        return self.action_first + self.action_step * _checked(codes, self.action_size, "action")

    def action_codes(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Map ids back to FAST codes. Raises TokenError on an id that is no action token."""
        offset = (np.asarray(ids, np.int64) - self.action_first) * self.action_step
        return _checked(offset, self.action_size, "action")


def _checked(codes: np.ndarray | Sequence[int], size: int, what: str) -> np.ndarray:
    array = np.asarray(codes, dtype=np.int64)
    if array.size and (array.min() < 0 or array.max() >= size):
        raise TokenError(f"{what} code outside 0..{size - 1}: {int(array.min())}..{int(array.max())}")
    return array


@dataclass(frozen=True)
class View:
    """One camera as the sequence sees it: a raster of ``rows x cols`` codes of a ``height x width`` image.

    ``header`` holds the text ids of the size header (``"1*rows*cols"`` in Emu3). A non-empty header also
    brings Emu3's IMG and EOF markers; an empty one is the compact frame ``BOI codes EOI``.
    """

    name: str
    height: int
    width: int
    rows: int
    cols: int
    header: tuple[int, ...] = ()

    @property
    def codes(self) -> int:
        """Number of visual codes of one image."""
        return self.rows * self.cols

    @property
    def lead(self) -> int:
        """Number of known tokens before the first code."""
        return 2 + len(self.header) if self.header else 1

    @property
    def length(self) -> int:
        """Number of tokens of the whole image block."""
        return self.lead + self.codes + (2 if self.header else 1)


@dataclass(frozen=True)
class Prefix:
    """Text and current images of a batch; PAD stands on the left so that shapes never depend on the text.

    ``ids``, ``positions`` and ``modality`` are ``[B, P]`` int64.
    """

    ids: np.ndarray
    positions: np.ndarray
    modality: np.ndarray


@dataclass(frozen=True)
class SuffixTemplate:
    """The suffix before denoising: markers filled in, MASK in every free slot (paper, section 3.3).

    ``ids`` and ``modality`` are ``[S]``; ``visual_slots`` ``[V]`` and ``action_slots`` ``[A]`` index into
    them, and so do ``frame_slots`` ``[F]``: size headers, IMG and EOF, known here and generated by the released code.
    The last action slot can only hold EOA or stay MASK.
    """

    ids: np.ndarray
    modality: np.ndarray
    visual_slots: np.ndarray
    action_slots: np.ndarray
    frame_slots: np.ndarray

    @property
    def action_start(self) -> int:
        """Index of BOA: images end here, and under `hybrid` nothing before it sees anything behind it."""
        return int(self.action_slots[0]) - 1


@dataclass(frozen=True)
class Layout:
    """Vocabulary, views and slot counts: enough to assemble and to read any sequence of a bundle.

    ``text_slots`` counts BOS; ``action_slots`` counts EOA but not BOA.
    """

    vocabulary: Vocabulary
    views: tuple[View, ...]
    text_slots: int
    action_slots: int
    template: SuffixTemplate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.views:
            raise BundleError("a layout needs at least one camera view")
        if self.text_slots < 2 or self.action_slots < 2:
            raise BundleError("text_slots and action_slots must both be at least 2 (BOS + text, code + EOA)")
        object.__setattr__(self, "template", self._template())

    @property
    def image_tokens(self) -> int:
        """Tokens of one set of images, markers included."""
        return sum(view.length for view in self.views)

    @property
    def prefix_length(self) -> int:
        """Tokens before the first generated block."""
        return self.text_slots + self.image_tokens

    @property
    def suffix_length(self) -> int:
        """Tokens of future images, BOA and the action slots."""
        return self.image_tokens + 1 + self.action_slots

    def image_block(self, view: View, codes: np.ndarray) -> np.ndarray:
        """Return ``[..., view.length]`` ids of images whose codes ``[..., rows*cols]`` are in raster order."""
        codes = np.asarray(codes, np.int64)
        codes = codes.reshape(*codes.shape[: codes.ndim - _raster_axes(codes, view)], view.codes)
        return self._framed(view, self.vocabulary.visual_ids(codes))

    def _framed(self, view: View, ids: np.ndarray) -> np.ndarray:
        v = self.vocabulary
        lead = [v.boi, *view.header, v.img] if view.header else [v.boi]
        tail = [v.eof, v.eoi] if view.header else [v.eoi]
        shape = ids.shape[:-1]
        return np.concatenate(
            [np.broadcast_to(lead, (*shape, len(lead))), ids, np.broadcast_to(tail, (*shape, len(tail)))], -1
        )

    def images(self, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return ``[..., image_tokens]`` ids of one set of images, views in the layout's order.

        Raises:
            TokenError: a view is missing, or its codes have another shape than the layout's.
        """
        missing = [view.name for view in self.views if view.name not in codes]
        if missing:
            raise TokenError(f"no image codes for camera {', '.join(missing)}; the bundle needs them all")
        return np.concatenate([self.image_block(view, codes[view.name]) for view in self.views], -1)

    def prefix(self, text: Sequence[Sequence[int]], codes: Mapping[str, np.ndarray]) -> Prefix:
        """Assemble ``BOS text | current images`` for a batch.

        Args:
            text: one list of text ids (without BOS) per sample.
            codes: per view ``[B, rows*cols]`` or ``[B, rows, cols]`` VQ codes.

        Raises:
            TokenError: a text is longer than ``text_slots - 1`` or a view does not fit.
        """
        v, batch = self.vocabulary, len(text)
        ids = np.full((batch, self.text_slots), v.pad, np.int64)
        modality = np.full((batch, self.prefix_length), Modality.CURRENT, np.int64)
        for row, tokens in enumerate(text):
            if len(tokens) > self.text_slots - 1:
                raise TokenError(
                    f"the instruction has {len(tokens)} tokens and the bundle takes {self.text_slots - 1}; "
                    "shorten it"
                )
            start = self.text_slots - 1 - len(tokens)
            ids[row, start:] = [v.bos, *tokens]
            modality[row, :start] = Modality.PAD
            modality[row, start : self.text_slots] = Modality.TEXT
        pads = (modality == Modality.PAD).sum(1, keepdims=True)
        positions = np.maximum(np.arange(self.prefix_length)[None] - pads, 0)
        return Prefix(np.concatenate([ids, self.images(codes)], 1), positions, modality)

    def suffix(self, future: Mapping[str, np.ndarray], actions: Sequence[Sequence[int]] | None) -> np.ndarray:
        """Assemble ``[B, S]`` target ids ``future images | BOA codes EOA MASK...``.

        ``actions`` holds FAST codes per sample; ``None`` (action-free video, stage i) leaves the action
        slots MASK.

        Raises:
            TokenError: a sample has more codes than ``action_slots - 1``.
        """
        v, images = self.vocabulary, self.images(future)
        tail = np.full((len(images), 1 + self.action_slots), v.mask, np.int64)
        tail[:, 0] = v.boa
        for row, codes in enumerate(actions or ()):
            if len(codes) > self.action_slots - 1:
                raise TokenError(f"{len(codes)} action codes do not fit {self.action_slots - 1} slots")
            tail[row, 1 : 1 + len(codes)] = v.action_ids(codes)
            tail[row, 1 + len(codes)] = v.eoa
        return np.concatenate([images, tail], 1)

    def split_views(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Split ``[..., V]`` codes of all visual slots into ``{view: [..., rows, cols]}``."""
        ends = np.cumsum([view.codes for view in self.views])[:-1]
        parts = np.split(np.asarray(codes), ends, axis=-1)
        return {
            view.name: part.reshape(*part.shape[:-1], view.rows, view.cols)
            for view, part in zip(self.views, parts, strict=True)
        }

    def _template(self) -> SuffixTemplate:
        v = self.vocabulary
        blocks = [self._framed(view, np.full(view.codes, v.mask, np.int64)) for view in self.views]
        ids = np.concatenate([*blocks, [v.boa], np.full(self.action_slots, v.mask, np.int64)])
        modality = np.full(len(ids), Modality.FUTURE, np.int64)
        modality[self.image_tokens :] = Modality.ACTION
        free = np.flatnonzero(ids == v.mask)
        images = np.arange(self.image_tokens)
        frames = images[~np.isin(ids[: self.image_tokens], [v.mask, v.boi, v.eoi])]
        return SuffixTemplate(
            ids, modality, free[free < self.image_tokens], free[free > self.image_tokens], frames
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``config.json`` stores."""
        return {
            "vocabulary": asdict(self.vocabulary),
            "views": [asdict(view) for view in self.views],
            "text_slots": self.text_slots,
            "action_slots": self.action_slots,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """Inverse of :meth:`to_dict`. Raises BundleError naming what is missing."""
        try:
            views = tuple(View(**{**view, "header": tuple(view["header"])}) for view in values["views"])
            return cls(
                Vocabulary(**values["vocabulary"]), views, values["text_slots"], values["action_slots"]
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the bundle's layout is incomplete or has unknown keys: {error}") from error


def _raster_axes(codes: np.ndarray, view: View) -> int:
    if codes.ndim >= 2 and codes.shape[-2:] == (view.rows, view.cols):
        return 2
    if codes.ndim >= 1 and codes.shape[-1] == view.codes:
        return 1
    raise TokenError(
        f"camera {view.name} has codes of shape {codes.shape}; the layout wants {view.rows}x{view.cols}"
    )


def emu3_header(rows: int, cols: int, encode: Any) -> tuple[int, ...]:
    """Return the text ids of Emu3's size header ``"1*rows*cols"`` (`encode`: text to ids)."""
    return tuple(encode(f"1*{rows}*{cols}"))
