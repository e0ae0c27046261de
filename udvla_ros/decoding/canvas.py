"""What every decoder writes on: a batch of suffixes behind their prefixes, and forwards over any part of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.interface import Decoded, DecodeOptions, Foreseen, Guess, StepStatistics
from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone, Cache
from udvla_ros.tokens.action_lattice import Lattice
from udvla_ros.tokens.layout import Prefix

OPEN = -1
Committed = tuple[Tensor | float, Tensor | float]  # how many, and the sum of their confidences
NONE_COMMITTED: Committed = (0.0, 0.0)


@dataclass
class Note:
    """One forward, before its numbers are gathered."""

    tokens: int
    visual: Committed
    action: Committed
    when: float | torch.cuda.Event


@dataclass
class Slot:
    """A cache with what is known of its contents: the text that it holds, and whether it was ever used."""

    cache: Cache
    text: tuple | None = None
    fresh: bool = True

    def fits(self, batch: int, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether it can hold a batch of that model."""
        buffer = self.cache.buffer
        return (self.cache.batch, buffer.dtype, buffer.device) == (batch, dtype, device)


class Canvas:
    """State of one call: the codes so far, and the model's input that says the same.

    ``visual`` ``[B, V]`` and ``action`` ``[B, A]`` hold codes of their own codebook (EOA is number
    ``action_size``), OPEN where nothing is written; ``ids`` ``[B, S]`` is the suffix, MASK where they are OPEN.
    """

    converged: bool | None = None
    foreseen: tuple[Tensor, Tensor, Tensor] | None = None
    begun: float | torch.cuda.Event = 0.0

    def __init__(
        self, decoder: CanvasDecoder, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None
    ) -> None:
        model = self.model = decoder.backbone
        device = model.device
        self.options, self.lattice, self.expected = options, decoder.lattice, guess
        self.generator = torch.Generator(device).manual_seed(seed)
        self.prefix = prefix
        self.prefix_ids = torch.as_tensor(prefix.ids).to(device)
        self.batch, self.length = self.prefix_ids.shape
        self.ids = model.suffix_ids.expand(self.batch, -1).clone()
        self.visual = torch.full((self.batch, len(model.visual_slots)), OPEN, device=device)
        self.action = torch.full((self.batch, len(model.action_slots)), OPEN, device=device)
        self.eoa = model.layout.vocabulary.action_size
        self.cached = options.use_cache and model.kind.prefix_exact
        self.slot = decoder.cache_for(self.batch) if self.cached else None
        self.action_head = model.action_head()
        self.ready: float | None = None
        self.foresight = options.foresight != "off"
        self.sequence = model.sequence(prefix.positions, prefix.modality, self.foresight)
        self.noted: list[Note] = []
        self.started = 0.0

    def run(self) -> None:
        """Write the suffix, one forward after the other."""
        raise NotImplementedError

    # -- forwards ----------------------------------------------------------------------------------

    def prefill(self) -> None:
        """Write text and current images into the cache; text that is there from the last call is not run again.

        The text comes first and looks only back, so that its keys and values depend on nothing else.
        """
        if self.slot is None:
            return
        n, text = self.length, self.model.layout.text_slots
        if self.slot.fresh:
            self.slot.fresh = False
            suffix = n + self.ids.shape[1]
            boundary = n + self.model.layout.template.action_start
            spans = [(0, n), (text, n), (n, suffix), (n, boundary), (boundary, suffix)]
            self.model.prepare(self.sequence, self.slot.cache, spans)
        key = (self.model.version(), self.prefix.ids[:, :text].tobytes(), self.prefix.positions[:, :text].tobytes())
        first = text if self.slot.text == key else 0
        self.slot.text = None  # until what it says has been written
        nothing = torch.zeros(self.batch, 0, dtype=torch.long, device=self.ids.device)
        span = self.sequence.span(first, n)
        self.model.states(self.prefix_ids[:, first:], span, self.slot.cache, nothing)
        self.slot.text = key

    def forward(self, first: int, last: int, outputs: Tensor | None = None) -> Tensor:
        """Return hidden states of suffix positions ``[first, last)``, or of those among them that are asked for.

        With a cache, what stands before ``first`` must have been run, and nothing of it written since.

        Args:
            first, last: the rows to run.
            outputs: ``[B, m]`` suffix positions between them; None: all.

        Returns:
            ``[B, last - first or m, H]``.
        """
        n = self.length
        if self.slot is None:
            ids = torch.cat([self.prefix_ids, self.ids[:, :last]], 1)
            states = self.model.states(ids, self.sequence.span(0, n + last), None)[:, n:]
            return states[:, first:] if outputs is None else rows_of(states, outputs)
        span = self.sequence.span(n + first, n + last)
        rows = None if outputs is None else outputs - first
        return self.model.states(self.ids[:, first:last], span, self.slot.cache, rows)

    def forward_tokens(self, first: int, last: int) -> int:
        """Return how many tokens :meth:`forward` runs."""
        return last - first if self.cached else self.length + last

    def action_logits(self, states: Tensor) -> Tensor:
        """``[..., hidden] -> [..., action_size + 1]`` in float32, of a head gathered once per call."""
        return self.model.action_logits(states, self.action_head)

    # -- statistics --------------------------------------------------------------------------------

    def note(self, tokens: int, visual: Committed, action: Committed) -> None:
        """Note one forward and its commitments; numbers stay on the device until :meth:`statistics`."""
        self.noted.append(Note(tokens, visual, action, self._now()))

    def _now(self) -> float | torch.cuda.Event:
        if self.ids.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def statistics(self) -> list[StepStatistics]:
        """Gather the notes, in one transfer."""
        if not self.noted:
            return []
        values = [value for note in self.noted for value in (*note.visual, *note.action)]
        if any(isinstance(value, Tensor) for value in values):
            device = self.ids.device
            values = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device) for v in values]).tolist()
        gathered, before = [], self.begun
        for number, note in enumerate(self.noted):
            visual, visual_sum, action, action_sum = values[4 * number : 4 * number + 4]
            gathered.append(
                StepStatistics(
                    note.tokens, int(visual), visual_sum / max(visual, 1), int(action), action_sum / max(action, 1),
                    _seconds(before, note.when),
                )
            )  # fmt: skip
            before = note.when
        return gathered

    # -- codes -------------------------------------------------------------------------------------

    def write_visual(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, V]`` the images."""
        v = self.model.layout.vocabulary
        self.visual = codes
        self.ids[:, self.model.visual_slots] = torch.where(codes == OPEN, v.mask, codes + v.visual_first)

    def write_action(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, A]`` the action."""
        mask = self.model.layout.vocabulary.mask
        ids = self.model.action_rows[codes.clamp_min(0)]
        self.action = codes
        self.ids[:, self.model.action_slots] = torch.where(codes == OPEN, mask, ids)

    def action_sequences(self) -> list[list[int]]:
        """Return the FAST codes before EOA of every sample."""
        sequences = []
        for row in self.action.cpu().numpy():
            ends = np.flatnonzero(row == self.eoa)
            codes = row[: ends[0]] if len(ends) else row
            sequences.append([int(code) for code in codes if code != OPEN])
        return sequences


class CanvasDecoder:
    """Decoder over one backbone. ``lattice`` says which action-code sequences are well-formed.

    Subclasses name themselves, the attention they need (None: any) and the canvas that does the work.

    Raises:
        ConfigError: the backbone has another attention than the decoder needs.
    """

    name: ClassVar[str]
    attention: ClassVar[str | None] = None
    canvas: ClassVar[type[Canvas]]

    def __init__(self, backbone: Backbone, lattice: Lattice) -> None:
        if self.attention not in (None, backbone.kind.name):
            raise ConfigError(
                f"decoder '{self.name}' needs attention '{self.attention}' and the bundle has "
                f"'{backbone.kind.name}': use jd3p or independent, or train with attention: {self.attention}"
            )
        self.backbone = backbone
        self.lattice = lattice
        self._slot: Slot | None = None

    def cache_for(self, batch: int) -> Slot:
        """Return a cache that is kept from call to call while batch, device and number type stay the same."""
        slot, model = self._slot, self.backbone
        if slot is None or not slot.fits(batch, model.dtype, model.device):
            slot = self._slot = Slot(model.new_cache(batch))
        return slot

    def new_canvas(self, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None) -> Canvas:
        """Return the canvas of one call."""
        return self.canvas(self, prefix, options, seed, guess)

    @torch.inference_mode()
    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None) -> Decoded:
        """Write the suffix behind ``prefix`` (a batch). See :class:`~udvla_ros.decoding.interface.Decoder`."""
        canvas = self.new_canvas(prefix, options, seed, guess)
        started = _synchronised(canvas)
        canvas.prefill()
        canvas.begun = canvas._now()
        writing = _synchronised(canvas)
        canvas.started = writing
        canvas.run()
        visual = canvas.visual.cpu().numpy()  # waits for the device
        finished = time.perf_counter()
        timings = {"prefill": 1e3 * (writing - started), "denoise": 1e3 * (finished - writing)}
        if canvas.ready is not None:
            timings["action_ready"] = 1e3 * (canvas.ready - writing)
        return Decoded(
            visual, canvas.action_sequences(), timings, canvas.statistics(), canvas.cached, canvas.converged,
            None if canvas.foreseen is None else Foreseen(*(part.cpu().numpy() for part in canvas.foreseen)),
        )  # fmt: skip


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Return rows ``index`` ``[B, m]`` of ``[B, n, H]``."""
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[-1]))


def _synchronised(canvas: Canvas) -> float:
    """Return the time once the device has done what it was given."""
    if canvas.ids.device.type == "cuda":
        torch.cuda.synchronize(canvas.ids.device)
    return time.perf_counter()


def _seconds(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, float) and isinstance(after, float):
        return after - before
    assert not isinstance(before, float) and not isinstance(after, float)
    return before.elapsed_time(after) / 1e3
