"""What a run shows while it trains: likelihood, the error of chunks decoded as the bundle decodes, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.registry import make_decoder
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy.convention import physical
from udvla_ros.tokens.layout import Prefix
from udvla_ros.training.corruption import Corrupted, uncorrupted
from udvla_ros.training.dataset import Sequences
from udvla_ros.training.loop import PolicyTrainer
from udvla_ros.training.objective import JD3PObjective

FRAMES = 96
ROWS = 6
LEVELS = 8  # shares of hidden tokens that the likelihood is averaged over
NEARER = 0.02  # m by which a demonstration must come nearer to its cube to say which one it is after


class Validation:
    """Callable for :meth:`PolicyTrainer.run`; always looks at the same held-out steps."""

    def __init__(
        self,
        bundle: Bundle,
        data: Sequences,
        folder: Path,
        decoding: Mapping[str, Any] | None = None,
        frames: int = FRAMES,
    ) -> None:
        """``decoding``: the bundle's own options, its temperature too: what is measured is what will be run."""
        self.bundle, self.data, self.folder = bundle, data, folder
        self.options = DecodeOptions(**(decoding or {}))
        pick = np.random.default_rng(1).permutation(len(data.validation))[:frames]
        self.steps = np.sort(data.validation[pick])
        self.decoder = make_decoder(self.options.decoder, bundle)

    def __call__(self, trainer: PolicyTrainer) -> dict[str, Any]:
        """Return the losses and the decoded chunks' errors; write ``predictions.png``."""
        scores = self._losses(trainer)
        if trainer.config.objective != "next_token" and trainer.config.copies:
            scores |= self.likelihood()
        decoded = self._decode(self.options)
        scores |= self._chunk_errors(decoded, "")
        if trainer.config.blind_copies and self.options.foresight != "off":
            blind = self._decode(replace(self.options, foresight="off"))
            scores |= self._chunk_errors(blind, "blind_")
        if self.options.foresight == "full" and trainer.accelerator.is_main_process:
            self._draw(decoded, trainer.folder / "predictions.png")
        return scores

    def _prefix(self, rows: slice | np.ndarray = slice(None)) -> Prefix:
        steps = self.steps[rows]
        return self.data.prefixes(steps, np.zeros(len(steps), bool))

    def _tensors(self, rows: slice | np.ndarray = slice(None)) -> list[torch.Tensor]:
        prefix, device = self._prefix(rows), self.bundle.backbone.device
        return [torch.as_tensor(part, device=device) for part in (prefix.ids, prefix.positions, prefix.modality)]

    @torch.inference_mode()
    def _losses(self, trainer: PolicyTrainer) -> dict[str, float]:
        """Return the loss where it is hardest: everything masked; or of the next token, where that is trained."""
        model, v, config = self.bundle.backbone, self.bundle.config.layout.vocabulary, trainer.config
        target = torch.as_tensor(self.data.suffix[self.steps].astype(np.int64), device=model.device)
        alone: dict[str, Any] = {"copies": min(config.copies, 1), "blind": int(not config.copies)}
        asked = uncorrupted(target, model.visual_slots, model.action_slots, v.mask, **alone)
        name = "next_token"
        if config.objective != "next_token":
            name = "full_mask"
            empty = model.suffix_ids.expand(len(target), 1, -1)
            block = empty[..., int(model.action_slots[0]) - 1 :][..., : len(model.action_slots) + 1]
            asked = replace(asked, ids=empty[:, : alone["copies"]], action_ids=block[:, : alone["blind"]])
        losses = JD3PObjective(model, config.omega)(*self._tensors(), target, asked)
        return {f"{name}_visual": losses.visual.item(), f"{name}_action": losses.action.item()}

    @torch.inference_mode()
    def likelihood(self) -> dict[str, float]:
        """Return bounds on the negative log-likelihood in nats per token, of the images and of the action.

        With tokens hidden independently with probability t, the mean of -log p over the hidden ones, averaged over
        t in [0, 1], bounds it from above (arXiv 2406.07524); t is the same for both, in :data:`LEVELS` even steps.
        """
        model, v = self.bundle.backbone, self.bundle.config.layout.vocabulary
        objective, generator = JD3PObjective(model), torch.Generator().manual_seed(2)
        seen, acted = model.visual_slots.cpu(), model.action_slots.cpu()
        sums, counts = np.zeros((LEVELS, 2)), np.zeros((LEVELS, 2))
        for rows in np.array_split(np.arange(len(self.steps)), -(-len(self.steps) // 32)):
            target = torch.as_tensor(self.data.suffix[self.steps[rows]].astype(np.int64))
            known = target[:, acted] != v.mask
            for level in range(LEVELS):
                t = (level + 0.5) / LEVELS
                hidden = torch.rand(target.shape, generator=generator) < t
                ids = target.clone()
                for slots in (seen, acted):
                    ids[:, slots] = ids[:, slots].masked_fill(hidden[:, slots], v.mask)
                asked = Corrupted(
                    ids[:, None], ids.new_empty(len(rows), 0, len(acted) + 1),
                    hidden[:, None, seen], (hidden[:, acted] & known)[:, None],
                ).to(model.device)  # fmt: skip
                losses = objective(*self._tensors(rows), target.to(model.device), asked, 1.0, 1.0)
                sums[level] += losses.visual.item(), losses.action.item()
                counts[level] += int(asked.visual.sum()), int(asked.action.sum())
        visual, action = (sums / counts.clip(1)).mean(0)
        return {"nll_visual": float(visual), "nll_action": float(action)}

    def _decode(self, options: DecodeOptions) -> Decoded:
        return self.decoder(self._prefix(), options, seed=0)

    def _chunk_errors(self, decoded: Decoded, prefix: str) -> dict[str, float]:
        """Errors against the expert's intention: of the chunk's whole way (mm, or mrad of joints), and gripper."""
        bundle, convention = self.bundle, self.bundle.config.action
        told = (bundle.normalizer.denormalize(bundle.fast.decode(codes)) for codes in decoded.actions)
        actions = np.stack([physical(chunk, convention) for chunk in told])
        truth = np.stack([physical(chunk, convention) for chunk in self.data.shard.chunks[self.steps]])
        unit = "mm" if convention.space == "tcp_delta" else "mrad"
        moving = [i for i in range(convention.dimensions) if i != convention.gripper]
        moving = moving[:3] if unit == "mm" else moving
        missed = (actions - truth)[..., moving]
        way = missed if convention.space == "joint_absolute" else missed.cumsum(1)
        travel, first = (1e3 * np.linalg.norm(way[:, k - 1], axis=-1) for k in (way.shape[1], way.shape[1] // 2))
        scores = {
            f"{prefix}travel_{unit}_median": float(np.median(travel)),
            f"{prefix}travel_{unit}_mean": float(travel.mean()),
            f"{prefix}half_travel_{unit}_mean": float(first.mean()),
        }
        if convention.gripper is not None:
            agree = np.sign(actions[..., convention.gripper]) == np.sign(truth[..., convention.gripper])
            scores[f"{prefix}gripper_agreement"] = float(agree.mean())
        return scores | {f"{prefix}{name}": value for name, value in self._right_cube(actions, truth).items()}

    def _right_cube(self, actions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Return how often a chunk comes nearest to the named cube, of those where the demonstration goes for it.

        Chance is one in three. Nothing where nobody knows the cubes' places.
        """
        if self.bundle.config.action.space != "tcp_delta":
            return {}
        places, named = self.data.shard.places[self.steps], self.data.shard.named[self.steps]

        def nearer(chunks: np.ndarray) -> np.ndarray:
            """Return [N, C], m: how much nearer to each cube the chunk ends than it began, in the plane."""
            begin = places[:, :1, :2] - places[:, 1:, :2]
            end = begin + chunks[..., :2].sum(1)[:, None]
            return np.linalg.norm(begin, axis=-1) - np.linalg.norm(end, axis=-1)

        row = np.arange(len(named))
        asked = (named >= 0) & (nearer(truth)[row, named] > NEARER)
        if not asked.any():
            return {}
        right = nearer(actions)[asked].argmax(1) == named[asked]
        return {"right_cube": float(right.mean()), "right_cube_of": int(asked.sum())}

    def _draw(self, decoded: Decoded, path: Path) -> None:
        """One row per step: current, predicted and real future, of every camera."""
        layout, vision = self.bundle.config.layout, self.bundle.vision
        chosen = np.linspace(0, len(self.steps) - 1, ROWS).astype(int)
        steps = self.steps[chosen]
        shard = self.data.shard
        sources = [
            shard.at(shard.current[steps]),
            {n: c.reshape(len(c), -1)[chosen] for n, c in layout.split_views(decoded.visual).items()},
            shard.at(shard.future[steps]),
        ]
        columns = []
        for view in layout.views:
            for codes in sources:
                images = vision.decode(codes[view.name].reshape(-1, view.rows, view.cols).astype(np.int64))
                scaled = [cv2.resize(i, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST) for i in images]
                tall = max(v.height for v in layout.views) * 4
                pad = ((0, tall - scaled[0].shape[0] + 4), (0, 4), (0, 0))
                columns.append(np.concatenate([np.pad(i, pad, constant_values=255) for i in scaled]))
        cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(columns, 1), cv2.COLOR_RGB2BGR))
