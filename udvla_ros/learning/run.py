"""``udvla learn``: bags and a parent in, a judged child out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError, TokenError
from udvla_ros.evaluation.report import command_line, write_report
from udvla_ros.learning import card
from udvla_ros.learning.judge import judge_open_loop
from udvla_ros.learning.plan import LearnOptions, prepare, why_other_codes
from udvla_ros.learning.sets import is_set, prepare_sets
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.resources import find
from udvla_ros.rollouts.episodes import read_description
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.training.policy import PolicyRun, Recipe
from udvla_ros.training.tokenize import PUBLISHED, fit_actions

STAGE1 = 0.1  # share of the budget for future images alone: the parent has learnt to see
STEPS = 100_000  # more than any time budget allows: the clock decides
RATE = 1e-3  # a trained parent is not thrown off its weights
SCALES = (8, 6, 4, 3, 2, 1)  # FAST's quantiser steps per unit
SPARE_SLOTS = 4  # of the text, beyond the longest sentence


class Learn:
    """One child in a folder: ``data/``, ``held_out/``, ``run/``, ``report.json``, and ``bundle/`` once released."""

    def __init__(self, parent: str, out: Path, options: LearnOptions) -> None:
        self.parent_path = find(parent)
        self.parent = Bundle.load(self.parent_path)
        self.out, self.options = out, options
        out.mkdir(parents=True, exist_ok=True)

    def prepare(self, folders: Sequence[Path]) -> dict[str, Any]:
        """Export the bags, or share out the data sets, and return what was taken and left out."""
        made = prepare_sets if all(is_set(folder) for folder in folders) else prepare
        reports = made(folders, self.parent.config, self.out, self.options)
        return {name: report.as_dict() for name, report in reports.items()}

    @property
    def data(self) -> Path:
        """What is learnt from."""
        return self.out / "data"

    def train(self) -> Path:
        """Train (or go on) and return the candidate."""
        vision, actions = self._vision(), self._actions()
        run = PolicyRun(
            self._recipe(actions), self._folders, vision, actions, self.out / "run", start=self.parent_path,
            fresh_actions=actions != self.parent_path / "action",
        )  # fmt: skip
        return run.run()

    @property
    def _folders(self) -> list[Path]:
        return [self.data, *(Path(folder) for folder in self.options.rehearse)]

    def _vision(self) -> Path:
        minutes, out = self.options.vision_minutes, self.out / "vision"
        if not minutes:
            return self.parent_path / "vision"
        if not (out / "report.json").is_file():
            from udvla_ros.training.vq import VqOptions, VqTrainer
            from udvla_ros.training.vq_data import load_data

            how = VqOptions(minutes=minutes, stability=2.0, merge_every=25, seed=self.options.seed)
            VqTrainer(load_data(self.data), how, out, resume=(out / "checkpoint.pt").is_file(),
                      start=self.parent.vision).run()  # fmt: skip
        return out / "vision"

    def _actions(self) -> Path:
        out = self.out / "actions"
        if (out / "tokenizer.json").is_file():
            return out
        why = why_other_codes(self.parent, self.data)
        if not why:
            return self.parent_path / "action"
        print(f"action codes are fitted again: {why}", flush=True)
        for scale in SCALES:  # as fine as the parent's number of codes allows
            try:
                fast, normalizer, scores = fit_actions(
                    self.data, self.parent.fast.vocab_size, scale, seed=self.options.seed
                )
                break
            except TokenError:
                if scale == SCALES[-1]:
                    raise
        fast.save(out)
        normalizer.save(out, "udvla")
        (out / "scores.json").write_text(json.dumps(scores) + "\n")
        return out

    def _recipe(self, actions: Path) -> Recipe:
        """Return the parent's sizes and decoding with the training file's values for a start from a bundle."""
        options, config = self.options, self.parent.config
        steps = options.steps or STEPS
        recipe = Recipe.load(find(options.config), options.settings)
        training = replace(
            recipe.training, steps=steps, stage1_steps=round(STAGE1 * steps), seed=options.seed, lr=RATE,
            minutes=None if options.steps else options.minutes, corrections=options.corrections,
            backbone=dict(config.backbone),
        )  # fmt: skip
        longest = _longest(self._folders, self.parent.text)
        slots = config.layout.action_slots
        if actions != self.parent_path / "action":
            scores = json.loads((actions / "scores.json").read_text())
            slots = max(slots, int(scores["codes_max"]) + 2)
        own = actions != self.parent_path / "action"
        return replace(
            recipe, name=options.name or self.out.resolve().name, attention=config.attention, backbone=config.backbone,
            text_slots=max(config.layout.text_slots, longest + SPARE_SLOTS), action_slots=slots,
            # Refitted codes speak the data's convention; the published one is what a training file means by none.
            action=PUBLISHED if own else replace(config.action, joints=()), decoding=config.decoding,
            training=training, only=None, tasks=(),
        )  # fmt: skip

    def judge(self, candidate: Path, device: str = "cpu") -> dict[str, Any]:
        """Compare candidate and parent and return the verdict."""
        data = self.out / "held_out"
        if not (data / "dataset.json").is_file():
            return {"released": True, "why": "a single episode: nothing was held out to judge by", "child": None}
        verdict = judge_open_loop(self.parent_path, candidate, data, device)
        if self.options.scenes:
            from udvla_ros.learning.scenes import judge_closed_loop

            loop = judge_closed_loop(self.parent_path, candidate, read_description(data), self.options)
            verdict["closed_loop"] = loop
            if loop["paired"]["p"] < 0.05:  # what it does says more than what it would do, where it is no chance
                verdict["released"] = loop["paired"]["difference"] > 0
            of = loop["paired"]["pairs"]
            verdict["why"] += f"; in simulation {loop['parent']:.0%} -> {loop['child']:.0%} of {of} scenes"
        return verdict

    def release(self, candidate: Path, verdict: dict[str, Any], exported: dict[str, Any]) -> Path | None:
        """Write report, card and, where the verdict allows, ``bundle/``; return it."""
        report = {
            "command": command_line(), "parent": {"name": self.parent.config.name, "hash": self.parent.hash},
            "options": asdict(self.options), "exported": exported, "data": read_description(self.data), **verdict,
        }  # fmt: skip
        write_report(self.out / "report.json", report)
        card.picture(self.out / "report.png", verdict, self.out / "run" / "log.jsonl")
        target = self.out / "bundle"
        shutil.rmtree(target, ignore_errors=True)
        if not verdict["released"]:
            return None
        text = (candidate / "README.md").read_text(encoding="utf-8")
        shutil.copytree(candidate, target)
        (target / "README.md").write_text(card.text(text, report), encoding="utf-8")
        return target


def _longest(folders: Sequence[Path], text: TextTokenizer) -> int:
    """Return how many ids the longest sentence of some data takes."""
    from udvla_ros.rollouts.episodes import read_episodes

    lines = {episode.instruction for folder in folders for episode in read_episodes(folder)}
    if not lines:
        raise ConfigError(f"{folders[0]} holds no episode")
    return max(len(text.encode(line)) for line in lines)
