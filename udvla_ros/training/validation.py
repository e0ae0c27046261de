"""What a run shows while it trains: losses at full mask, the error of decoded chunks, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.tokens.layout import Prefix
from udvla_ros.training.corruption import Corrupted
from udvla_ros.training.dataset import Sequences
from udvla_ros.training.loop import PolicyTrainer

FRAMES = 96
ROWS = 6


class Validation:
    """Callable for :meth:`PolicyTrainer.run`; always looks at the same held-out steps."""

    def __init__(self, bundle: Bundle, data: Sequences, folder: Path, steps: int = 8) -> None:
        self.bundle, self.data, self.folder = bundle, data, folder
        self.options = DecodeOptions(steps=steps)
        pick = np.random.default_rng(1).permutation(len(data.validation))[:FRAMES]
        self.steps = np.sort(data.validation[pick])
        self.decoder = JD3P(bundle.backbone, bundle.fast.lattice(bundle.config.layout.action_slots))

    def __call__(self, trainer: PolicyTrainer) -> dict[str, Any]:
        """Return losses at full mask and the decoded chunks' errors; write ``predictions.png``."""
        scores = self._full_mask_losses(trainer)
        decoded = self._decode(self.options)
        scores |= self._chunk_errors(decoded, "")
        blind = self._decode(DecodeOptions(steps=self.options.steps, foresight="off"))
        scores |= self._chunk_errors(blind, "blind_")
        self._draw(decoded, trainer.folder / "predictions.png")
        return scores

    def _prefix(self) -> Prefix:
        data = self.data
        parts = (data.prefix_ids, data.prefix_positions, data.prefix_modality)
        return Prefix(*(part[self.steps].astype(np.int64) for part in parts))

    @torch.inference_mode()
    def _full_mask_losses(self, trainer: PolicyTrainer) -> dict[str, float]:
        model, v = self.bundle.backbone, self.bundle.config.layout.vocabulary
        target = torch.as_tensor(self.data.suffix[self.steps].astype(np.int64), device=model.device)
        known = target[:, model.action_slots] != v.mask
        visual = known.new_ones(len(target), 1, len(model.visual_slots))
        corrupted = Corrupted(
            model.suffix_ids.expand(len(target), 1, -1), target.new_empty(len(target), 0, 1), visual, known[:, None]
        )
        prefix = self._prefix()
        parts = [torch.as_tensor(part, device=model.device) for part in (prefix.ids, prefix.positions, prefix.modality)]
        losses = trainer.objective(*parts, target, corrupted)
        return {"full_mask_visual": losses.visual.item(), "full_mask_action": losses.action.item()}

    def _decode(self, options: DecodeOptions) -> Decoded:
        return self.decoder(self._prefix(), options, seed=0)

    def _chunk_errors(self, decoded: Decoded, prefix: str) -> dict[str, float]:
        """Errors against the expert's intention: mm of the chunk's whole displacement, gripper agreement."""
        bundle, truth = self.bundle, self.data.shard.chunks[self.steps]
        actions = np.stack([bundle.normalizer.denormalize(bundle.fast.decode(c)) for c in decoded.actions])
        travel = 1e3 * np.linalg.norm((actions - truth)[..., :3].sum(1), axis=-1)
        first = 1e3 * np.linalg.norm((actions - truth)[:, :4, :3].sum(1), axis=-1)
        agree = np.sign(actions[..., 6]) == np.sign(truth[..., 6])
        return {
            f"{prefix}travel_mm_median": float(np.median(travel)),
            f"{prefix}travel_mm_mean": float(travel.mean()),
            f"{prefix}half_travel_mm_mean": float(first.mean()),
            f"{prefix}gripper_agreement": float(agree.mean()),
        }

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
