"""What the decoders have in common: one call from prefixes to tokens, its codes, its times and its statistics."""

from __future__ import annotations

import time
from typing import ClassVar

import torch
from torch import Tensor

from udvla_ros.decoding.forwards import Caches, Forwards
from udvla_ros.decoding.interface import Decoded, DecodeOptions, Foreseen, StepStatistics
from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.tokens.action_lattice import Lattice
from udvla_ros.tokens.layout import Prefix

OPEN = -1  # in codes: a slot that holds MASK
Committed = tuple[Tensor | float, Tensor | float]  # how many, and the sum of their confidences
NONE_COMMITTED: Committed = (0.0, 0.0)


class Suffix:
    """The slots of a batch: codes of their own codebooks, and the model's input ``ids`` ``[B, S]`` that says the same.

    ``visual`` ``[B, V]`` and ``action`` ``[B, A]`` hold OPEN where MASK stands; EOA is code number ``action_size``.
    """

    def __init__(self, model: Backbone, batch: int) -> None:
        self.model, self.eoa = model, model.layout.vocabulary.action_size
        self.ids = model.suffix_ids.expand(batch, -1).clone()
        self.visual = self.ids.new_full((batch, len(model.visual_slots)), OPEN)
        self.action = self.ids.new_full((batch, len(model.action_slots)), OPEN)

    def write_visual(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, V]`` the images."""
        v = self.model.layout.vocabulary
        self.visual = codes
        self.ids[:, self.model.visual_slots] = torch.where(codes == OPEN, v.mask, codes + v.visual_first)

    def mask_frames(self) -> None:
        """Put MASK in the place of size headers, IMG and EOF."""
        self.ids[:, self.model.frame_slots] = self.model.layout.vocabulary.mask

    def write_frames(self, chosen: Tensor) -> None:
        """Put the known ids back where ``chosen`` ``[B, F]``."""
        slots = self.model.frame_slots
        self.ids[:, slots] = torch.where(chosen, self.model.suffix_ids[slots], self.ids[:, slots])

    def write_action(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, A]`` the action."""
        self.action = codes
        ids = self.model.action_rows[codes.clamp_min(0)]
        self.ids[:, self.model.action_slots] = torch.where(codes == OPEN, self.model.layout.vocabulary.mask, ids)

    def sequences(self) -> list[list[int]]:
        """Return the FAST codes before EOA of every sample."""
        rows = [row.tolist() for row in self.action.cpu()]
        rows = [row[: row.index(self.eoa)] if self.eoa in row else row for row in rows]
        return [[code for code in row if code != OPEN] for row in rows]


class Call:
    """One call of a decoder: what it works on, and what it has to tell of itself."""

    def __init__(self, decoder: TokenDecoder, prefix: Prefix, options: DecodeOptions, seed: int) -> None:
        self.model, self.lattice, self.options = decoder.backbone, decoder.lattice, options
        self.foresight = options.foresight != "off"
        self.forwards = Forwards(decoder.caches, prefix, options.use_cache, self.foresight)
        self.suffix = Suffix(self.model, self.forwards.batch)
        self.generator = torch.Generator(self.model.device).manual_seed(seed)
        self._action_head = self.model.action_head()  # gathered once per call
        self.action_ready: float | None = None  # when the action was final, where images go on after it
        self.converged: bool | None = None
        self.foreseen: tuple[Tensor, Tensor, Tensor] | None = None
        self._notes: list[tuple[Tensor | float, ...]] = []

    def action_logits(self, states: Tensor) -> Tensor:
        """``[..., hidden] -> [..., action_size + 1]`` in float32."""
        return self.model.action_logits(states, self._action_head)

    def note(self, tokens: int, visual: Committed, action: Committed) -> None:
        """Note one forward and its commitments; numbers stay on the device until :meth:`statistics`."""
        self._notes.append((tokens, *visual, *action))

    def statistics(self) -> list[StepStatistics]:
        """Return what was noted."""
        gathered = []
        for tokens, *numbers in self._notes:
            visual, visual_sum, action, action_sum = map(float, numbers)
            means = visual_sum / max(visual, 1), action_sum / max(action, 1)
            gathered.append(StepStatistics(int(tokens), int(visual), means[0], int(action), means[1]))
        return gathered

    def synchronised(self) -> float:
        """Return the time once the device has done what it was given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()


class TokenDecoder:
    """Decoder over one backbone. ``lattice`` says which action-code sequences are well-formed.

    Subclasses name themselves and the attention they need (None: any), and write the suffix.

    Raises:
        ConfigError: the backbone has another attention than the decoder needs.
    """

    name: ClassVar[str]
    attention: ClassVar[str | None] = None

    def __init__(self, backbone: Backbone, lattice: Lattice) -> None:
        if self.attention not in (None, backbone.kind.name):
            raise ConfigError(
                f"decoder '{self.name}' needs attention '{self.attention}' and the bundle has "
                f"'{backbone.kind.name}': use jd3p or independent, or train with attention: {self.attention}"
            )
        self.backbone, self.lattice, self.caches = backbone, lattice, Caches(backbone)

    def write(self, call: Call) -> None:
        """Write the suffix, one forward after the other."""
        raise NotImplementedError

    @torch.inference_mode()
    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int) -> Decoded:
        """Write the suffix behind ``prefix`` (a batch). See :class:`~udvla_ros.decoding.interface.Decoder`."""
        call = Call(self, prefix, options, seed)
        started = call.synchronised()
        call.forwards.prefill()
        writing = call.synchronised()
        self.write(call)
        visual = call.suffix.visual.cpu().numpy()  # waits for the device
        finished = time.perf_counter()
        timings = {"prefill": 1e3 * (writing - started), "denoise": 1e3 * (finished - writing)}
        if call.action_ready is not None:
            timings["action_ready"] = 1e3 * (call.action_ready - writing)
        foreseen = None if call.foreseen is None else Foreseen(*(part.cpu().numpy() for part in call.foreseen))
        told = call.statistics(), call.forwards.cached, call.converged, foreseen
        return Decoded(visual, call.suffix.sequences(), timings, *told)
