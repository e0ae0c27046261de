"""Consistency distillation of JD3P: a student that arrives in a few steps where its teacher needs many.

CEED-VLA (arXiv 2506.13725) carried over to joint denoising. From any state of a teacher's way the student is to
say where the way ends: its distribution at open slots is drawn towards the one that its own average (a
stop-gradient target) has at a later state of the same way, and towards the way's final tokens. Image and action
keep their own weights, so that one may be let go for the other.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.training.dataset import Sequences
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining
from udvla_ros.training.objective import Losses
from udvla_ros.training.trajectories import Trajectories


@dataclass
class Distillation(PolicyTraining):
    """Everything that decides a distillation besides teacher and data.

    Attributes:
        consistency: weight of the divergence from the target at a later state.
        labels: weight of the cross-entropy with the way's final tokens (mixed labels).
    """

    stage1_steps: int = 0
    blind_copies: int = 0
    ema: float = 0.99
    consistency: float = 1.0
    labels: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.consistency < 0 or self.labels < 0 or self.consistency + self.labels == 0:
            raise ConfigError("consistency and labels are weights: not negative, and one of them above zero")


class ConsistencyObjective(nn.Module):
    """Loss of a student at one state of a way, against its target at a later one."""

    def __init__(self, student: Backbone, target: Backbone, config: Distillation) -> None:
        super().__init__()
        self.backbone = student
        self.config = config
        self._target = [target]  # no parameters of this module

    def forward(
        self,
        prefix_ids: Tensor,
        prefix_positions: Tensor,
        prefix_modality: Tensor,
        now: Tensor,
        later: Tensor,
        final: Tensor,
        open_now: Tensor,
        open_later: Tensor,
        visual_count: int,
        action_count: int,
    ) -> Losses:
        """Compute the loss.

        Args:
            prefix_ids, prefix_positions, prefix_modality: ``[B, P]``.
            now, later, final: suffix ids ``[B, S]`` at an earlier and a later state and at the end of the way.
            open_now, open_later: ``[B, S]`` bool, the slots still to be written that will hold a token.
            visual_count, action_count: open slots of the whole batch to average over.
        """
        prefix = (prefix_ids, prefix_positions, prefix_modality)
        student = _logits(self.backbone, *prefix, now)
        with torch.no_grad():
            target = _logits(self._target[0], *prefix, later)
        model, config = self.backbone, self.config
        labels = _labels(model, final)
        parts = []
        for modality, slots, count in (
            (0, model.visual_slots, visual_count), (1, model.action_slots, action_count),
        ):  # fmt: skip
            now_open, later_open = open_now[:, slots], (open_now & open_later)[:, slots]
            towards = _divergence(target[modality][later_open], student[modality][later_open])
            ends = nn.functional.cross_entropy(
                student[modality][now_open].float(), labels[modality][now_open], reduction="sum"
            )
            parts.append((config.consistency * towards + config.labels * ends) / max(count, 1))
        return Losses(config.omega * parts[0] + parts[1], parts[0], parts[1])


def _logits(model: Backbone, ids: Tensor, positions: Tensor, modality: Tensor, suffix: Tensor) -> tuple[Tensor, Tensor]:
    """Return image logits ``[B, V, codes]`` and action logits ``[B, A, codes + 1]`` of a suffix."""
    mask, positions = model.sequence_mask(modality, positions)
    states = model.hidden(torch.cat([ids, suffix], 1), positions, mask)[:, ids.shape[1] :]
    visual, action = states[:, model.visual_slots - 1], states[:, model.action_slots - 1]
    return model.visual_logits(visual), model.action_logits(action)


def _labels(model: Backbone, final: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes that head rows stand for, ``[B, V]`` and ``[B, A]``; nonsense where there is no token."""
    v = model.layout.vocabulary
    actions = final[:, model.action_slots]
    codes = ((actions - v.action_first) * v.action_step).masked_fill(actions == v.eoa, v.action_size)
    return final[:, model.visual_slots] - v.visual_first, codes


def _divergence(target: Tensor, student: Tensor) -> Tensor:
    """Return the sum over slots of KL(target || student), nats."""
    return nn.functional.kl_div(
        student.float().log_softmax(-1), target.float().log_softmax(-1), reduction="sum", log_target=True
    )


class Distiller(PolicyTrainer):
    """The policy's loop on a teacher's ways. The student starts as the teacher; its average is the target."""

    def __init__(
        self, student: Backbone, data: Sequences, ways: Trajectories, config: Distillation, folder: Path
    ) -> None:
        self.ways = ways
        self.target = copy.deepcopy(student).requires_grad_(False).eval()
        super().__init__(student, data, config, folder)

    def make_objective(self, backbone: Backbone) -> nn.Module:
        """Return the consistency loss."""
        assert isinstance(self.config, Distillation)
        return ConsistencyObjective(backbone, self.target, self.config)

    def draw(self) -> np.ndarray:
        """Return the ways of this step's batch."""
        rng = np.random.default_rng([self.config.seed, self.step])
        return rng.choice(len(self.ways.rows), self.config.batch)

    def batch(self, frames: np.ndarray, generator: torch.Generator, stage: int) -> dict[str, Any]:
        """Assemble this process's share: two states of each way, the later one up to its end."""
        ways, data, model = self.ways, self.data, self.backbone
        v = model.layout.vocabulary
        steps = ways.steps
        first = torch.randint(0, steps, (len(frames),), generator=generator).numpy()
        ahead = torch.rand(len(frames), generator=generator).numpy()
        second = first + 1 + (ahead * (steps - first)).astype(np.int64)
        slots = np.concatenate([model.visual_slots.cpu().numpy(), model.action_slots.cpu().numpy()])
        now, open_now = ways.state(frames, first, slots, v.mask)
        later, open_later = ways.state(frames, second, slots, v.mask)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = slice(rank * len(frames) // world, (rank + 1) * len(frames) // world)

        def mine(values: np.ndarray, kind: torch.dtype = torch.long) -> Tensor:
            return torch.as_tensor(values[share]).to(self.accelerator.device, kind)

        rows = ways.rows[frames]
        self.follow()
        return {
            "prefix_ids": mine(data.prefix_ids[rows]),
            "prefix_positions": mine(data.prefix_positions[rows]),
            "prefix_modality": mine(data.prefix_modality[rows]),
            "now": mine(now),
            "later": mine(later),
            "final": mine(ways.tokens[frames]),
            "open_now": mine(open_now, torch.bool),
            "open_later": mine(open_later, torch.bool),
            "visual_count": max(int(open_now[:, model.visual_slots.cpu()].sum()) / world, 1),
            "action_count": max(int(open_now[:, model.action_slots.cpu()].sum()) / world, 1),
        }  # fmt: skip

    @torch.no_grad()
    def follow(self) -> None:
        """Give the target the average as it stands."""
        for name, parameter in self.target.named_parameters():
            parameter.copy_(self.average.values[name])
