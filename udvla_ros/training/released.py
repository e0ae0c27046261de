"""The loss of the released recipe: one weighted mean over all hidden tokens, image codes by omega, all others by 1.

Size headers, IMG and EOF of the future images are hidden and learnt like any token (only BOI, EOI and BOA never are),
and the softmax is over the whole vocabulary. With several hundred image codes in front of some twenty action codes, the
action is about a tenth of it; :class:`~udvla_ros.training.objective.JD3PObjective` gives each modality its own mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from udvla_ros.training.corruption import Corrupted
from udvla_ros.training.objective import JD3PObjective, Losses, hidden_ids


class ReleasedObjective(JD3PObjective):
    """See the module. Its batches are of :meth:`image_slots`, without blind action blocks."""

    @property
    def image_slots(self) -> Tensor:
        """Every slot of the future images but BOI and EOI."""
        return torch.cat([self.backbone.visual_slots, self.backbone.frame_slots]).sort().values

    def counts(self, target: Tensor, corrupted: Corrupted, world: int) -> dict[str, float]:
        """Return what the hidden tokens weigh in all, beside their numbers: a process's share of each."""
        v, slots = self.backbone.layout.vocabulary, self.image_slots.cpu()
        codes = float((hidden_ids(target, slots, corrupted.visual) >= v.visual_first).sum())
        found = super().counts(target, corrupted, world)
        images, actions = float(corrupted.visual.sum()), float(corrupted.action.sum())
        return {**found, "weight": max(self.omega * codes + images - codes + actions, 1) / world}

    def forward(  # type: ignore[override]
        self,
        prefix_ids: Tensor,
        prefix_positions: Tensor,
        prefix_modality: Tensor,
        target: Tensor,
        corrupted: Corrupted,
        visual_count: float,
        action_count: float,
        weight: float,
    ) -> Losses:
        """Compute the loss; ``weight``: what all hidden tokens weigh together. See the superclass."""
        model, v = self.backbone, self.backbone.layout.vocabulary
        suffixes, _ = self.states(prefix_ids, prefix_positions, prefix_modality, corrupted)
        slots = self.image_slots
        states = suffixes[:, :, slots - 1][corrupted.visual]
        ids = hidden_ids(target, slots, corrupted.visual)
        code = ids >= v.visual_first
        codes, frames = (self.summed(model.logits, states[these], ids[these]) for these in (code, ~code))
        states = suffixes[:, :, model.action_slots - 1][corrupted.action]
        action = self.summed(model.logits, states, hidden_ids(target, model.action_slots, corrupted.action))
        total = (self.omega * codes + frames + action) / weight
        return Losses(total, (codes + frames) / visual_count, action / action_count)
