"""Train a small vision tokeniser from scratch (a VQ autoencoder; Emu3's architecture, a CPU's size).

Most batches are crops: the decoder's cost grows with the area, and a crop shows an object as well as a
whole image does. Towards the end whole images come more often, since the norms see the whole image.
The encoder runs with its batch norms frozen, so that each image's codes never depend on its batch.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Emu3VQVAE

from udvla_ros.errors import ConfigError
from udvla_ros.tokens.vision import (
    VisionTokenizer,
    latents,
    prefer_channels_last,
    reconstruct,
    small_config,
    to_pixels,
)
from udvla_ros.training.claim import claimed
from udvla_ros.training.vq_codebook import EmaCodebook
from udvla_ros.training.vq_data import VqData, sample_pairs
from udvla_ros.training.vq_losses import (
    commitment_loss,
    pixel_weights,
    reconstruction_loss,
    stability_loss,
    straight_through,
)
from udvla_ros.training.vq_metrics import evaluate, headline, save_comparison


@dataclass(frozen=True)
class VqOptions:
    """How to train; ``minutes`` and ``steps`` are budgets, and the learning rate falls over the nearer one."""

    minutes: float | None = None
    steps: int | None = None
    batch: int = 48
    crop: int = 32
    whole_every: int = 8  # one batch in so many is whole images ...
    whole_every_late: int = 2  # ... and in the last ``late`` of the training one in so many
    late: float = 0.35
    apart: int = 8  # most frames between the two of a pair
    rate: float = 2e-3
    warm_up: int = 100
    commitment: float = 0.25
    vivid: float = 12.0
    moving: float = 2.0
    stability: float = 0.0  # 2 is a lot; 0 leaves it out
    stability_from: float = 0.2  # grows until this share of the training; at once when going on from a tokeniser
    decay: float = 0.97
    merge_every: int = 0  # steps between merges of codes that mean the same; 0 for never
    merges_until: float = 0.6
    restarts_until: float = 0.75
    log_every: int = 25
    checkpoint_minutes: float = 2.0
    picture_minutes: float = 3.0
    seed: int = 0
    base: int = 32
    multipliers: tuple[int, ...] = (1, 1, 2, 2)
    codes: int = 512
    width: int = 8

    def __post_init__(self) -> None:
        if not self.minutes and not self.steps:
            raise ConfigError("a training needs a budget: give minutes, steps or both")


class VqTrainer:
    """One training that can be interrupted: model, codebook, optimiser and clock in one checkpoint.

    Args:
        data: the frames.
        options: how to train.
        output: folder for ``checkpoint.pt``, ``metrics.jsonl``, pictures, ``report.json`` and ``vision/``.
        resume: go on from ``checkpoint.pt`` if there is one.
        start: a trained tokeniser to begin from; its sizes take the place of those in ``options``.
    """

    def __init__(
        self,
        data: VqData,
        options: VqOptions,
        output: Path,
        resume: bool = False,
        start: VisionTokenizer | None = None,
    ) -> None:
        self.data, self.options, self.output = data, options, Path(output)
        self.output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        config = small_config(options.base, options.multipliers, options.codes, options.width)
        self.model = start.model.requires_grad_(True) if start else Emu3VQVAE(config)
        self.model.eval()  # the batch norms stay frozen; everything else behaves the same in both modes
        prefer_channels_last(self.model)
        self.model.quantize.requires_grad_(False)
        with torch.no_grad():  # as initialised it answers far beyond [-1, 1]: hundreds of steps to unlearn
            self.model.decoder.conv_out.weight.mul_(1.0 if start else 0.05)
        self.codebook = EmaCodebook(self.model.quantize.embedding.weight.data, options.decay)
        self.started = start is not None
        if self.started:
            self.codebook.adopt()
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4)
        self.random = np.random.default_rng(options.seed)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.step, self.elapsed = 0, 0.0
        self.factor = 2 ** (len(self.model.config.channel_multiplier) - 1)
        if resume and (self.output / "checkpoint.pt").is_file():
            self._restore(self.output / "checkpoint.pt")

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        options = self.options
        shares = [self.step / options.steps] if options.steps else []
        shares += [self.elapsed / (60.0 * options.minutes)] if options.minutes else []
        return min(1.0, max(shares))

    def run(self) -> dict:
        """Train to the end of the budget; write the tokeniser and return its scores on held-out frames.

        Raises:
            ConfigError: another training is at work in the folder.
        """
        with claimed(self.output):
            return self._run()

    def _run(self) -> dict:
        options = self.options
        started = time.monotonic() - self.elapsed
        saved = drawn = self.elapsed
        logged = (self.elapsed, self.step)
        recent: list[dict[str, float]] = []
        with tqdm(total=100, initial=int(100 * self.progress), unit="%", desc="vision tokeniser") as bar:
            while self.progress < 1.0:
                recent.append(self.train_step())
                self.elapsed = time.monotonic() - started
                if self.step % options.log_every == 0:
                    means = {key: float(np.mean([row[key] for row in recent])) for key in recent[0]}
                    speed = (self.step - logged[1]) / max(self.elapsed - logged[0], 1e-9)
                    logged, recent = (self.elapsed, self.step), []
                    self._log({"step": self.step, "seconds": self.elapsed, "steps_per_s": speed, **means})
                    bar.set_postfix(loss=f"{means['loss']:.4f}", steps_per_s=f"{speed:.2f}", refresh=False)
                if self.elapsed - saved > 60 * options.checkpoint_minutes:
                    self.checkpoint()
                    saved = self.elapsed
                if self.elapsed - drawn > 60 * options.picture_minutes:
                    bar.write(f"{self.elapsed / 60:.1f} min, step {self.step}: {headline(self.assess())}")
                    drawn = self.elapsed
                bar.update(int(100 * self.progress) - bar.n)
        self.checkpoint()
        return self.finish()

    def train_step(self) -> dict[str, float]:
        """Make one step on one batch and return its loss and parts."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        loss, seen = torch.zeros(()), []
        ramp = options.stability * (1.0 if self.started else min(1.0, self.progress / options.stability_from))
        batches = self._batches()
        total = sum(len(pixels) * pixels.shape[-1] * pixels.shape[-2] for pixels, _ in batches)
        outcomes = {"pixel_loss": 0.0, "commitment": 0.0, "stability": 0.0}
        for pixels, background in batches:
            share = pixels.shape[0] * pixels.shape[-1] * pixels.shape[-2] / total
            found = latents(self.model, pixels)  # [B, 1, width, rows, cols]
            flat = found.permute(0, 1, 3, 4, 2).reshape(-1, found.shape[2])
            if not self.codebook.ready:
                self.codebook.update(flat.detach(), self.generator)
            quantised = self._quantised(found)
            output = reconstruct(self.model, straight_through(found, quantised))
            weights = pixel_weights(pixels, background, options.vivid, options.moving)
            pixel_loss = reconstruction_loss(output, pixels, weights)
            committed = commitment_loss(found, quantised)
            loss = loss + share * (pixel_loss + options.commitment * committed)
            if options.stability:
                stable = stability_loss(found, *pixels.chunk(2))
                loss = loss + share * ramp * stable
                outcomes["stability"] += share * float(stable.detach())
            outcomes["pixel_loss"] += share * float(pixel_loss.detach())
            outcomes["commitment"] += share * float(committed.detach())
            seen.append(flat.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        restarted = self.codebook.update(
            torch.cat(seen), self.generator, restart=self.progress < options.restarts_until
        )
        merged = 0
        if options.merge_every and self.step % options.merge_every == 0 and self.progress < options.merges_until:
            merged = self.codebook.merge()
        self.step += 1
        return {"loss": float(loss.detach()), **outcomes, "restarted": float(restarted), "merged": float(merged)}

    def assess(self, frames: int = 600) -> dict:
        """Write pictures of held-out frames and return the scores on the first ``frames`` of them."""
        tokenizer = VisionTokenizer(self._frozen_copy())
        held_out = {name: images[:frames] for name, images in self.data.held_out.items()}
        for name, images in self.data.held_out.items():
            spread = images[np.linspace(0, len(images) - 1, 18).astype(int)]
            save_comparison(self.output / f"{name}.png", tokenizer, spread)
        report = evaluate(tokenizer, held_out)
        self._log({"step": self.step, "seconds": self.elapsed, "held_out": report})
        return report

    def finish(self) -> dict:
        """Write ``vision/`` and ``report.json``; return the report."""
        report = self.assess(frames=3000)
        VisionTokenizer(self._frozen_copy()).save(self.output / "vision")
        report |= {"steps": self.step, "seconds": self.elapsed, "options": asdict(self.options)}
        report["parameters"] = sum(parameter.numel() for parameter in self.model.parameters())
        (self.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        return report

    def checkpoint(self) -> None:
        """Write everything needed to go on, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "codebook": self.codebook.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        draft = self.output / "checkpoint.tmp"
        torch.save(state, draft)
        draft.replace(self.output / "checkpoint.pt")

    def _restore(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            self.model.load_state_dict(state["model"])
            self.codebook.load_state_dict(state["codebook"])
        except RuntimeError as error:
            raise ConfigError(
                f"'{path}' is of a network of another size: give the options it was started with, or another folder"
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        # Other batches than those already seen, not the first ones again.
        self.random = np.random.default_rng((self.options.seed, self.step))
        self.generator.manual_seed(self.options.seed + self.step)

    def _rate(self) -> float:
        options = self.options
        warm = min(1.0, (self.step + 1) / options.warm_up)
        return options.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        options = self.options
        every = options.whole_every if self.progress < 1 - options.late else options.whole_every_late
        whole = self.step % every == every - 1
        batches = sample_pairs(
            self.data,
            self.random,
            options.batch,
            options.crop,
            whole,
            grid=self.factor,
            apart=options.apart if options.stability else None,
        )
        return [(to_pixels(images), to_pixels(backgrounds)) for images, backgrounds in batches]

    def _quantised(self, found: Tensor) -> Tensor:
        batch, slots, width, rows, cols = found.shape
        flat = found.detach().permute(0, 1, 3, 4, 2).reshape(-1, width)
        chosen = self.codebook.weight[self.codebook.nearest(flat)]
        return chosen.view(batch, slots, rows, cols, width).permute(0, 1, 4, 2, 3)

    def _frozen_copy(self) -> Emu3VQVAE:
        copy = Emu3VQVAE(self.model.config)
        copy.load_state_dict(self.model.state_dict())
        return copy

    def _log(self, row: dict) -> None:
        with (self.output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
