"""The JD3P loss: cross-entropy on hidden tokens only, vision weighted by omega (arXiv 2511.01718, eq. 6).

Each modality is averaged over its own hidden tokens, so that omega does not change with image size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from udvla_ros.model.backbone import Backbone
from udvla_ros.training.corruption import Corrupted


class Losses(NamedTuple):
    """Scalars in nats per token: what is minimised, and its two parts."""

    total: Tensor
    visual: Tensor
    action: Tensor


class JD3PObjective(nn.Module):
    """Loss of the corrupted copies behind each of ``B`` prefixes, as one module to wrap."""

    def __init__(self, backbone: Backbone, omega: float = 0.5, chunk: int = 8192) -> None:
        """``omega`` weighs the vision term (0.5 in the released configuration).

        ``chunk``: most tokens whose logits exist at one time. Of more, they are computed again for the gradient;
        with a vocabulary of 32,768 codes they would be most of the memory.
        """
        super().__init__()
        self.backbone = backbone
        self.omega, self.chunk = omega, chunk

    @property
    def image_slots(self) -> Tensor:
        """The slots of the suffix whose hidden tokens :class:`Corrupted` counts as ``visual``."""
        return self.backbone.visual_slots

    def counts(self, target: Tensor, corrupted: Corrupted, world: int) -> dict[str, float]:
        """Return what :meth:`forward` averages over, of a whole batch: each process's share of it."""
        return {
            "visual_count": max(int(corrupted.visual.sum()) / world, 1),
            "action_count": max(int(corrupted.action.sum()) / world, 1),
        }

    def states(
        self, prefix_ids: Tensor, prefix_positions: Tensor, prefix_modality: Tensor, corrupted: Corrupted
    ) -> tuple[Tensor, Tensor]:
        """Return the states of the K suffixes ``[B, K, S, H]`` and of the M action blocks ``[B, M, 1 + A, H]``."""
        _, copies, size = corrupted.ids.shape
        blind = corrupted.action_ids.shape[1]
        length, split = prefix_ids.shape[1], prefix_ids.shape[1] + copies * size
        mask, positions = self.backbone.sequence_mask(prefix_modality, prefix_positions, copies, blind)
        ids = torch.cat([prefix_ids, corrupted.ids.flatten(1), corrupted.action_ids.flatten(1)], 1)
        hidden = self.backbone.hidden(ids, positions, mask)
        alone = hidden[:, split:].unflatten(1, (blind, -1)) if blind else hidden[:, None, split:]
        return hidden[:, length:split].unflatten(1, (copies, size)), alone

    def forward(
        self,
        prefix_ids: Tensor,
        prefix_positions: Tensor,
        prefix_modality: Tensor,
        target: Tensor,
        corrupted: Corrupted,
        visual_count: float | None = None,
        action_count: float | None = None,
    ) -> Losses:
        """Compute the loss.

        Args:
            prefix_ids, prefix_positions, prefix_modality: ``[B, P]``.
            target: uncorrupted suffixes ``[B, S]``.
            corrupted: the model's input, ``K`` suffixes and ``M`` action blocks, and the hidden slots.
            visual_count, action_count: hidden tokens to average over. Data-parallel processes give their
                share of the global count, so that any number of them minimises the same mean.
        """
        model, v = self.backbone, self.backbone.layout.vocabulary
        suffixes, alone = self.states(prefix_ids, prefix_positions, prefix_modality, corrupted)

        states = suffixes[:, :, model.visual_slots - 1][corrupted.visual]
        codes = hidden_ids(target, model.visual_slots, corrupted.visual) - v.visual_first
        visual = self._cross_entropy(model.visual_logits, states, codes, visual_count)

        action_states = suffixes[:, :, model.action_slots - 1]
        if corrupted.action_ids.shape[1]:
            action_states = torch.cat([action_states, alone[:, :, :-1]], 1)
        ids = hidden_ids(target, model.action_slots, corrupted.action)
        codes = ((ids - v.action_first) * v.action_step).masked_fill(ids == v.eoa, v.action_size)
        action = self._cross_entropy(model.action_logits, action_states[corrupted.action], codes, action_count)
        return Losses(self.omega * visual + action, visual, action)

    def _cross_entropy(
        self, head: Callable[[Tensor], Tensor], states: Tensor, target: Tensor, count: float | None
    ) -> Tensor:
        """Mean over tokens; zero (not NaN) where no token of a modality was hidden, as in stage (i)."""
        return self.summed(head, states, target) / max(len(target) if count is None else count, 1)

    def summed(self, head: Callable[[Tensor], Tensor], states: Tensor, target: Tensor) -> Tensor:
        """Return the sum over tokens."""
        if len(target) <= self.chunk:
            return _summed(head, states, target)
        parts = zip(states.split(self.chunk), target.split(self.chunk), strict=True)
        return torch.stack([checkpoint(_summed, head, *part, use_reentrant=False) for part in parts]).sum()


def hidden_ids(target: Tensor, slots: Tensor, hidden: Tensor) -> Tensor:
    """Return what was hidden: ids at ``slots`` of ``target`` ``[B, S]`` where ``hidden`` ``[B, K, n]``."""
    return target[:, None, slots].expand_as(hidden)[hidden]


def _summed(head: Callable[[Tensor], Tensor], states: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(head(states).float(), target, reduction="sum")
