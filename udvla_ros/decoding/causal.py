"""What the decoders of the causal model share: slots in their order, and the token that each of them gets.

The token of a slot depends on the logits at that slot, on the action codes before it (well-formed decoding)
and on noise that is drawn per slot before the first forward. A decoder that assumes many slots at once
therefore ends where one that goes slot by slot does, at any temperature.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.base import OPEN, Call
from udvla_ros.decoding.sampling import gumbel
from udvla_ros.errors import ConfigError

ENDED = -1


class CausalRun:
    """One call whose free slots are numbered: those of the images, then those of the action.

    ``codes`` ``[B, N]`` holds all of them. ``cells`` ``[B, A + 1]`` is where each sample stands among the
    well-formed sequences before each action slot, ENDED behind EOA.
    """

    def __init__(self, call: Call, decoder: str) -> None:
        options, model, suffix = call.options, call.model, call.suffix
        if options.foresight == "sketch":
            raise ConfigError(f"decoder '{decoder}' cannot sketch: use foresight full or off")
        self.call, self.batch, self.eoa = call, call.forwards.batch, suffix.eoa
        self.slots = torch.cat([model.visual_slots, model.action_slots])
        self.places = self.slots.tolist()
        self.images = len(model.visual_slots)
        self.begin = 0 if call.foresight else self.images
        self.codes = torch.cat([suffix.visual, suffix.action], 1)
        self.cells = np.zeros((self.batch, suffix.action.shape[1] + 1), np.int64)
        sizes = (model.layout.vocabulary.visual_size, self.eoa + 1)
        shapes = [(*codes.shape, size) for codes, size in zip((suffix.visual, suffix.action), sizes, strict=True)]
        self.noise = [
            options.temperature * gumbel(torch.Size(shape), call.generator, model.device)
            for shape in shapes
            if options.temperature > 0
        ]

    def predict(self, first: int, last: int) -> tuple[Tensor, Tensor, int]:
        """Run one forward for slots ``first`` to ``last - 1``; every earlier one must be final.

        Markers need no forward of their own: the one that predicts the code behind them runs them along.

        Returns:
            codes and their probabilities ``[B, last - first]``, and the tokens run.
        """
        call, forwards = self.call, self.call.forwards
        start = 0 if call.foresight else forwards.boundary
        known = start if first == self.begin else self.places[first - 1]
        end = self.places[last - 1]
        states = forwards(call.suffix.ids, known, end, (self.slots[first:last] - 1).expand(self.batch, -1))
        images = max(min(last, self.images) - first, 0)
        found = []
        if images:
            found.append(self._image_codes(call.model.visual_logits(states[:, :images]), first))
        if last > self.images:
            logits = call.action_logits(states[:, images:])
            found.append(self._action_codes(logits, first + images - self.images))
        codes, confidence = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return codes, confidence, forwards.tokens(known, end)

    def _noisy(self, logits: Tensor, codebook: int, first: int) -> Tensor:
        return logits + self.noise[codebook][:, first : first + logits.shape[1]] if self.noise else logits

    def _image_codes(self, logits: Tensor, first: int) -> tuple[Tensor, Tensor]:
        codes = self._noisy(logits, 0, first).argmax(-1)
        return codes, _probability(logits, codes)

    def _action_codes(self, logits: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Walk from left to right: in each slot the best code that may follow the ones before it."""
        scores = self._noisy(logits, 1, first).cpu().numpy()
        codes, rules = np.full(scores.shape[:2], OPEN, np.int64), self.call.lattice
        for row, table in enumerate(scores):
            for index, slot in enumerate(range(first, first + len(table))):
                cell = int(self.cells[row, slot])
                if cell != ENDED:
                    code = int(np.where(rules.following(slot, cell), table[index], -np.inf).argmax())
                    codes[row, index] = code
                    cell = ENDED if code == self.eoa else rules.after(cell, code)
                self.cells[row, slot + 1] = cell
        found = torch.as_tensor(codes, device=logits.device)
        return found, _probability(logits, found)

    def write(self, codes: Tensor, first: int = 0) -> None:
        """Make ``codes`` ``[B, N]`` what is written; they are new from slot ``first`` on."""
        self.codes = codes
        if first < self.images:
            self.call.suffix.write_visual(codes[:, : self.images])
        self.call.suffix.write_action(codes[:, self.images :])

    def ends(self) -> np.ndarray:
        """Return ``[B]``: how many slots count, EOA's the last of them; all where there is no EOA yet."""
        ended = self.cells == ENDED
        length = np.where(ended.any(1), ended.argmax(1), self.call.suffix.action.shape[1])
        return self.images + length

    def record(self, tokens: int, before: np.ndarray, after: np.ndarray, confidence: Tensor, first: int) -> None:
        """Note a forward that made slots ``before`` to ``after - 1`` of each sample final.

        ``confidence`` ``[B, n]`` belongs to the slots from ``first`` on.
        """
        values = confidence.cpu().numpy()
        slots = np.arange(first, first + values.shape[1])
        final = (slots >= before[:, None]) & (slots < after[:, None])
        visual, action = (values[final & part] for part in (slots < self.images, slots >= self.images))
        self.call.note(tokens, *((float(part.size), float(part.sum())) for part in (visual, action)))


def _probability(logits: Tensor, codes: Tensor) -> Tensor:
    chosen = logits.gather(-1, codes.clamp_min(0)[..., None])[..., 0]
    return (chosen - logits.logsumexp(-1)).exp()
