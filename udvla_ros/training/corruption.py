"""The forward process of JD3P: future-image and action tokens become MASK, markers never do.

Arxiv 2511.01718, section 3.3 and the released configuration (``fixbe``). Ratios are drawn per sample as
``max(0.1, cos(pi/2 * u))``. The public code draws ``u`` for image and action independently, the paper
speaks of one joint timestep; both are here by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOWEST_RATIO = 0.1


@dataclass(frozen=True)
class Corrupted:
    """Masked copies of a batch of suffixes.

    ``ids`` ``[B, K, S]`` are the model's input; ``visual`` ``[B, K, V]`` marks the slots whose token was
    hidden and enters the loss. ``action_ids`` ``[B, M, 1 + A]`` are the action blocks that see no future
    image (``foresight: off``), and ``action`` ``[B, K + M, A]`` marks their hidden slots and the suffixes'.
    """

    ids: Tensor
    action_ids: Tensor
    visual: Tensor
    action: Tensor

    def __getitem__(self, rows: slice) -> Corrupted:
        """Return some rows of the batch."""
        return Corrupted(self.ids[rows], self.action_ids[rows], self.visual[rows], self.action[rows])

    def to(self, device: torch.device) -> Corrupted:
        """Return it on a device."""
        parts = (self.ids, self.action_ids, self.visual, self.action)
        return Corrupted(*(part.to(device) for part in parts))


def mask_ratio(u: Tensor) -> Tensor:
    """Map uniform ``u`` in [0, 1) to the share of hidden tokens."""
    return torch.cos(math.pi / 2 * u).clamp_min(LOWEST_RATIO)


def _stratified(batch: int, copies: int, generator: torch.Generator) -> Tensor:
    """Uniform draws ``[B, K]`` whose copies cover [0, 1) evenly, in random order."""
    u = torch.rand(batch, copies, generator=generator)
    order = torch.rand(batch, copies, generator=generator).argsort(1)
    return (order + u) / copies


def corrupt(
    target: Tensor,
    visual_slots: Tensor,
    action_slots: Tensor,
    mask_id: int,
    *,
    copies: int = 1,
    blind: int = 0,
    joint: bool = False,
    generator: torch.Generator,
    draw_actions: bool = True,
    exact: bool = False,
) -> Corrupted:
    """Hide tokens of ``target`` ``[B, S]`` in ``copies`` independent ways, and ``blind`` more of the action.

    Each token is hidden with the drawn probability by itself; ``exact``: just ``round(n * ratio)`` of a modality's n
    tokens, as the released code does.

    Slots behind EOA hold MASK in the target already: they stay MASK and enter no loss. With
    ``draw_actions=False`` (stage i, action-free video) all action slots are MASK and none enters the loss.
    At least one visual token, and one action token where there are any, is hidden in every copy.
    """
    batch = target.shape[0]
    u = _stratified(batch, copies, generator)
    action_u = _stratified(batch, copies + blind, generator)
    if joint:
        action_u[:, :copies] = u
    hide = _share if exact else _bernoulli
    visual = hide(mask_ratio(u), len(visual_slots), generator)
    known = target[:, action_slots] != mask_id
    action = hide(mask_ratio(action_u), len(action_slots), generator, known)
    if not draw_actions:
        action = torch.zeros_like(action)
    actions = target[:, None, action_slots].repeat(1, copies + blind, 1).masked_fill(action, mask_id)
    if not draw_actions:
        actions.fill_(mask_id)
    ids = target[:, None].repeat(1, copies, 1)
    ids[..., visual_slots] = ids[..., visual_slots].masked_fill(visual, mask_id)
    ids[..., action_slots] = actions[:, :copies]
    boa = target[:, None, action_slots[:1] - 1].expand(-1, blind, -1)
    return Corrupted(ids, torch.cat([boa, actions[:, copies:]], -1), visual, action)


def uncorrupted(
    target: Tensor,
    visual_slots: Tensor,
    action_slots: Tensor,
    mask_id: int,
    *,
    copies: int = 1,
    blind: int = 0,
    draw_actions: bool = True,
) -> Corrupted:
    """Return copies of ``target`` ``[B, S]`` as they are, every known token in the loss: next-token prediction.

    Each slot is read from the position before it, so that under ``causal`` attention nothing sees its own answer.
    The arguments are those of :func:`corrupt`; in stage (i) the action is MASK and enters no loss.
    """
    batch = target.shape[0]
    visual = target.new_ones(batch, copies, len(visual_slots), dtype=torch.bool)
    known = (target[:, action_slots] != mask_id)[:, None].repeat(1, copies + blind, 1)
    ids = target[:, None].repeat(1, copies, 1)
    if not draw_actions:
        known = torch.zeros_like(known)
        ids[..., action_slots] = mask_id
    block = target[:, int(action_slots[0]) - 1 :][:, : len(action_slots) + 1]
    return Corrupted(ids, block[:, None].repeat(1, blind, 1), visual, known)


def _bernoulli(
    ratio: Tensor, slots: int, generator: torch.Generator, among: Tensor | None = None
) -> Tensor:
    """Hide each of ``slots`` tokens with probability ``ratio`` ``[B, K]``, and the likeliest one for sure."""
    noise = torch.rand(*ratio.shape, slots, generator=generator)
    if among is not None:
        noise = noise.masked_fill(~among[:, None], 2.0)
    hidden = noise < ratio[..., None]
    first = noise.argmin(-1, keepdim=True)
    return hidden.scatter(-1, first, noise.gather(-1, first) <= 1.0)


def _share(ratio: Tensor, slots: int, generator: torch.Generator, among: Tensor | None = None) -> Tensor:
    """Hide just that share of ``slots`` tokens, ``ratio`` ``[B, K]`` rounded, one at least where there is one."""
    noise = torch.rand(*ratio.shape, slots, generator=generator)
    count = ratio.new_full(ratio.shape, slots)
    if among is not None:
        noise = noise.masked_fill(~among[:, None], 2.0)
        count = among.sum(1)[:, None].to(ratio).expand_as(ratio)
    hidden = (count * ratio).round().maximum(count.clamp_max(1))
    return noise.argsort(-1).argsort(-1) < hidden[..., None]
