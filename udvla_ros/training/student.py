"""A distillation from its parts: a teacher's bundle and its episodes in, a student's bundle out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.training.dataset import Sequences, TokenShard
from udvla_ros.training.distill import Distillation, Distiller
from udvla_ros.training.tokenize import tokenize
from udvla_ros.training.trajectories import collect
from udvla_ros.training.validation import Validation


class StudentRun:
    """One run in a folder: ``ways/``, ``log.jsonl``, ``checkpoint.pt``, pictures and ``bundle/``.

    Args:
        teacher: the bundle to learn from.
        episodes: folder of the teacher's training episodes.
        config: the distillation.
        teacher_steps, student_steps: denoising steps of the ways, and those the student's bundle is set to.
        frames: steps of the data whose ways are collected.
        delta: see :func:`udvla_ros.training.trajectories.collect`.
        tokens: the episodes' token file, where a run of the teacher left one.
    """

    def __init__(
        self,
        teacher: Bundle,
        episodes: Path,
        out: Path,
        config: Distillation,
        teacher_steps: int,
        student_steps: int,
        frames: int,
        delta: float,
        tokens: Path | None = None,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.teacher_hash = out, teacher.hash
        shard = self._tokens(teacher, episodes, tokens)
        if teacher.sentences:  # it knows no others
            shard = shard.only(f"^({'|'.join(map(re.escape, teacher.sentences))})$")
        data = Sequences.assemble(shard, teacher.config.layout, teacher.text)
        temperature = float(teacher.config.decoding.get("temperature", 1.0))
        options = DecodeOptions(steps=teacher_steps, temperature=temperature)
        rows = np.sort(np.random.default_rng(config.seed).permutation(data.train)[:frames])
        ways = collect(teacher, data, rows, out / "ways", options, delta, seed=config.seed)
        self.corrected = float(ways.corrected.mean())
        decoding = {**teacher.config.decoding, "steps": student_steps}
        name = f"{teacher.config.name}-{student_steps}step"
        self.bundle = dataclasses.replace(
            teacher, config=dataclasses.replace(teacher.config, name=name, decoding=decoding)
        )
        self.trainer = Distiller(teacher.backbone.train(), data, ways, config, out)
        self.validate = Validation(self.bundle, data, out, decoding)

    def _tokens(self, teacher: Bundle, episodes: Path, given: Path | None) -> TokenShard:
        if given is not None:
            return TokenShard.load(given)
        slots = teacher.config.layout.action_slots
        return tokenize([episodes], teacher.vision, teacher.fast, teacher.normalizer, slots, self.out / "tokens")

    def run(self) -> Path:
        """Distil (or go on) to the end and write the student's bundle with the averaged weights."""
        if self.trainer.resume():
            print(f"resumed at step {self.trainer.step} of {self.trainer.config.steps}")
        self.trainer.run(self.validate)
        with self.trainer.averaged():
            return self.bundle.save(self.out / "bundle", self.card())

    def card(self) -> str:
        """Return the student's model card."""
        settings = "\n".join(f"- {key}: {value}" for key, value in dataclasses.asdict(self.trainer.config).items())
        return (
            f"# {self.bundle.config.name}\n\nDistilled from the bundle {self.teacher_hash[:12]} over "
            f"{len(self.trainer.ways.rows):,} of its ways of {self.trainer.ways.steps} steps "
            f"({self.corrected:.1%} of them corrected to the demonstration), {self.trainer.step} steps in "
            f"{self.trainer.seconds / 60:.0f} minutes.\n\n## Distillation\n\n{settings}\n"
        )
