"""A policy run from its parts: configuration, tokenisers and episodes in, a bundle out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from udvla_ros.errors import ConfigError
from udvla_ros.model.attention import attention_kind
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig, ImageConvention
from udvla_ros.rollouts.episodes import read_description
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View, Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer
from udvla_ros.training.dataset import Sequences, TokenShard
from udvla_ros.training.inherit import inherit
from udvla_ros.training.kept import Brought, bring
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining
from udvla_ros.training.lora import plain_state
from udvla_ros.training.tokenize import PUBLISHED, convention_of, tokenize
from udvla_ros.training.validation import Validation

# What a file with ``keep_layout`` need not say: it is the bundle's that is begun from.
TAKEN_OVER: Mapping[str, Any] = {"text_slots": 0, "action_slots": 0, "backbone": {}, "action": {}, "decoding": {}}


@dataclass(frozen=True)
class Recipe:
    """A training file such as ``config/training/nano.yaml``."""

    name: str
    attention: str
    text_slots: int
    action_slots: int
    backbone: Mapping[str, Any]
    action: ActionConvention
    decoding: Mapping[str, Any]
    training: PolicyTraining
    only: str | None = None  # regular expression: learn from instructions that it finds something in
    tasks: tuple[str, ...] = ()  # kinds of task the bundle is for; those of the data if empty
    images: ImageConvention = field(default_factory=ImageConvention)  # how the data's pictures were made
    keep_layout: bool = False  # fine-tune a bundle as it is: its ids, tokenisers and conventions; attention may change

    @classmethod
    def load(cls, path: Path, settings: Sequence[str] = (), **changes: Any) -> Recipe:
        """Read a file; ``changes`` replace values of its ``training`` section, ``settings`` (``key=value``) any.

        A file that names another under ``extends`` holds only what differs from it.

        Raises:
            ConfigError: the file is missing, or a key is missing or unknown.
        """
        values = _read(path)
        for setting in settings:
            _set(values, setting)
        try:
            if values.get("keep_layout"):
                values = {**TAKEN_OVER, **values}
            chosen = {**values.pop("training"), **{k: v for k, v in changes.items() if v is not None}}
            training = PolicyTraining(**chosen, backbone=values["backbone"])
            values["tasks"] = tuple(values.get("tasks", ()))
            images = ImageConvention(**values.get("images", {}))
            action = ActionConvention(**values["action"])
            return cls(**{**values, "action": action, "images": images, "training": training})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no training file: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; see config/training/nano.yaml for an example")
    values = yaml.safe_load(path.read_text()) or {}
    parent = values.pop("extends", None)
    return _merge(_read(path.parent / parent), values) if parent else values


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``; sections are merged key by key."""
    both = dict(base)
    for key, value in changes.items():
        both[key] = _merge(both[key], value) if isinstance(value, dict) and key in both else value
    return both


def _set(values: dict[str, Any], setting: str) -> None:
    """Apply ``training.omega=0.3``."""
    path, found, text = setting.partition("=")
    *sections, last = path.split(".")
    for section in sections:
        values = values.get(section, {})
    known = {f.name for f in dataclasses.fields(PolicyTraining)} if sections == ["training"] else values
    if not found or last not in known:
        raise ConfigError(f"--set {setting}: no value '{path}' in the training file; write section.key=value")
    values[last] = yaml.safe_load(text)


def build_layout(
    recipe: Recipe,
    sizes: Mapping[str, tuple[int, int]],
    vision: VisionTokenizer,
    fast: FastTokenizer,
    text: TextTokenizer,
) -> Layout:
    """Return the compact layout of cameras with image ``sizes`` (height, width)."""
    views = tuple(
        View(name, height, width, *vision.grid(height, width)) for name, (height, width) in sizes.items()
    )
    vocabulary = Vocabulary.compact(text.vocab_size, vision.codebook_size, fast.vocab_size)
    return Layout(vocabulary, views, recipe.text_slots, recipe.action_slots)


@torch.no_grad()
def start_from_codebook(backbone: Backbone, embeddings: torch.Tensor, seed: int) -> None:
    """Start the rows of visual tokens as a random projection of the codebook's vectors.

    Codes that look alike then start alike, in the embedding and in the head: the decoder need not learn
    the geometry of the codebook from scratch.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = embeddings.float() - embeddings.float().mean(0)
    codes = codes / codes.norm(dim=1).mean()
    v = backbone.layout.vocabulary
    rows = slice(v.visual_first, v.visual_first + v.visual_size)
    for table in (backbone.decoder.embedding, backbone.decoder.head):
        projection = torch.randn(codes.shape[1], table.shape[1], generator=generator)
        table[rows] += (codes @ projection) * table.std()


class PolicyRun:
    """One run in a folder: ``tokens/``, ``log.jsonl``, ``checkpoint.pt``, pictures and ``bundle/``."""

    def __init__(
        self,
        recipe: Recipe,
        episodes: Sequence[Path],
        vision: Path | None,
        actions: Path | None,
        out: Path,
        tokens: Path | None = None,
        start: Path | None = None,
        fresh_actions: bool = False,
    ) -> None:
        """Prepare the run; it goes on from ``checkpoint.pt`` if there is one.

        Args:
            recipe: the training file.
            episodes: folders of episodes; they may have grown since the run was last stopped.
            vision, actions: folders of the vision and of the action tokeniser; None with ``keep_layout``.
            out: the run's folder.
            tokens: the same episodes' tokens, made by another run with the same tokenisers.
            start: a bundle to begin from instead of fresh weights; its backbone and action codes are this run's.
            fresh_actions: these action codes are not those of ``start``.
        """
        self.out, self._token_file = out, tokens
        parent = Bundle.load(start) if start is not None else None
        if recipe.keep_layout:
            shard = self._keep(recipe, parent, episodes)
        else:
            shard = self._anew(recipe, parent, episodes, vision, actions, fresh_actions)
        config = self.bundle.config
        training = replace(recipe.training, backbone=dict(config.backbone))
        data = Sequences.assemble(shard, config.layout, self.bundle.text, foresight=training.foresight)
        self.trainer = PolicyTrainer(self.bundle.backbone.train(), data, training, out)
        self.validate = Validation(self.bundle, data, out, config.decoding)

    def _keep(self, recipe: Recipe, parent: Bundle | None, episodes: Sequence[Path]) -> TokenShard:
        """Make the bundle that is begun from this run's, but for its name, its attention and how it decodes."""
        if parent is None:
            raise ConfigError("keep_layout fine-tunes a bundle as it is: name it with --start")
        brought = {Path(folder): bring(folder, parent.config) for folder in episodes}
        slots = parent.config.layout.action_slots
        shard = self._tokens(episodes, parent.vision, parent.fast, parent.normalizer, slots, brought)
        if recipe.only:
            shard = shard.only(recipe.only)
        config = replace(
            parent.config, name=recipe.name, attention=recipe.attention, parts={}, tasks=recipe.tasks,
            decoding={**parent.config.decoding, **recipe.decoding},
        )  # fmt: skip
        parent.backbone.kind = attention_kind(recipe.attention)
        sentences = tuple(sorted({*parent.sentences, *shard.instructions}))
        self.bundle = replace(parent, config=config, sentences=sentences, hash="")
        return shard

    def _anew(
        self, recipe: Recipe, parent: Bundle | None, episodes: Sequence[Path], vision: Path | None,
        actions: Path | None, fresh_actions: bool,
    ) -> TokenShard:  # fmt: skip
        """Make a bundle of the data's own words and codes, with what a parent knows of them."""
        if vision is None or actions is None:
            raise ConfigError("--vision and --actions say with which tokenisers to train")
        agreed_crops(recipe, episodes)
        recipe = replace(recipe, action=agreed_action(recipe, episodes))
        eyes = VisionTokenizer.load(vision)
        fast = FastTokenizer.load(actions, recipe.action.chunk, recipe.action.dimensions)
        normalizer = QuantileNormalizer.load(actions)
        shard = self._tokens(episodes, eyes, fast, normalizer, recipe.action_slots)
        if recipe.only:
            shard = shard.only(recipe.only)
        sentences = tuple(sorted({*shard.instructions, *(parent.sentences if parent else ())}))
        text = TextTokenizer.train(sentences, size_limit=128, spare=16)
        layout = build_layout(recipe, agreed_sizes(episodes), eyes, fast, text)
        torch.manual_seed(recipe.training.seed)
        backbone = Backbone(recipe.backbone, layout, recipe.attention)
        start_from_codebook(backbone, eyes.embeddings, recipe.training.seed)
        kinds = dict.fromkeys(kind for folder in episodes for kind in read_description(folder)["episodes_per_task"])
        tasks = recipe.tasks or tuple(kinds)
        config = BundleConfig(
            recipe.name, recipe.backbone, layout, recipe.attention, recipe.action, recipe.decoding, tasks=tasks,
            images=recipe.images,
        )  # fmt: skip
        self.bundle = Bundle(config, backbone, eyes, text, fast, normalizer, sentences=sentences)
        self.bundle.check()
        if parent is not None:
            fresh = inherit(self.bundle, parent, fresh_actions)
            print(f"starts from {parent.config.name}; {fresh} of {layout.vocabulary.size} vocabulary rows are fresh")
        return shard

    def _tokens(
        self, episodes: Sequence[Path], vision: VisionTokenizer, fast: FastTokenizer, normalizer: QuantileNormalizer,
        slots: int, brought: Mapping[Path, Brought] | None = None,
    ) -> TokenShard:  # fmt: skip
        if self._token_file is not None:
            return TokenShard.load(self._token_file)
        processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # of CPUs too, as in Accelerator
        with processes.main_process_first():  # the others find the files
            return tokenize(episodes, vision, fast, normalizer, slots, self.out / "tokens", brought)

    def run(self) -> Path:
        """Train (or go on) to the end and write the bundle with the averaged weights."""
        if self.trainer.resume():
            print(f"resumed at step {self.trainer.step} of {self.trainer.config.steps}")
        self.trainer.run(self.validate)
        return self.export()

    def export(self) -> Path:
        """Write ``bundle/`` from the averaged weights as they stand (one process of several does)."""
        folder, model, config = self.out / "bundle", self.bundle.backbone, self.bundle.config
        with self.trainer.averaged(gathered=False):
            state = plain_state(model)
            if self.trainer.accelerator.is_main_process:
                plain = Backbone(config.backbone, config.layout, config.attention, empty=True)
                plain.load_state_dict(state, assign=True)
                replace(self.bundle, backbone=plain).save(folder, self.card())
        self.trainer.accelerator.wait_for_everyone()
        return folder

    def card(self) -> str:
        """Return the model card's skeleton: what was trained on what, with which values."""
        config = dataclasses.asdict(self.trainer.config)
        lines = "\n".join(f"- {key}: {value}" for key, value in config.items())
        count = self.bundle.backbone.shape.parameters
        return (
            f"# {self.bundle.config.name}\n\n{count:,} parameters, trained for {self.trainer.step} steps in "
            f"{self.trainer.seconds / 60:.0f} minutes.\n\n## Training\n\n{lines}\n"
        )


def agreed_sizes(episodes: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Return (height, width) of each camera of data sets to learn from together.

    Raises:
        ConfigError: they differ.
    """
    first, *others = [{n: (int(h), int(w)) for n, (h, w) in read_description(e)["cameras"].items()} for e in episodes]
    for folder, sizes in zip(episodes[1:], others, strict=True):
        if sizes != first:
            raise ConfigError(f"{episodes[0]} has cameras {first}, {folder} {sizes}; export both with the same --size")
    return first


def agreed_action(recipe: Recipe, episodes: Sequence[Path]) -> ActionConvention:
    """Return what the actions mean: as the data tell, where the training file does not say otherwise.

    Raises:
        ConfigError: data sets differ, or the training file names another convention than the data were written in.
    """
    told = {str(folder): convention_of(folder, recipe.action) for folder in episodes}
    if replace(recipe.action, joints=()) != PUBLISHED:
        told = {"the training file": recipe.action, **told}
    (first, action), *others = told.items()
    for folder, other in others:
        apart = [f.name for f in dataclasses.fields(action) if getattr(action, f.name) != getattr(other, f.name)]
        if action.space == "tcp_delta" or not (action.joints and other.joints):
            apart = [name for name in apart if name != "joints"]
        if apart:
            values = ", ".join(f"{name} {getattr(action, name)} and {getattr(other, name)}" for name in apart)
            raise ConfigError(
                f"{first} and {folder} differ in {values}; a number means what it was recorded as: export the bags "
                "again with the --space, --hz and --chunk you want"
            )
    return next(reversed(told.values()))


def agreed_crops(recipe: Recipe, episodes: Sequence[Path]) -> None:
    """Raise ConfigError where data and training file look at other parts of a picture."""
    ours = {name: [float(share) for share in part] for name, part in recipe.images.crops.items()}
    for folder in episodes:
        told = read_description(folder).get("crops", {})
        theirs = {name: list(part) for name, part in told.items() if list(part) != [0.0, 0.0, 1.0, 1.0]}
        if theirs != ours:
            raise ConfigError(f"{folder} has crops {theirs} and the training file {ours}; name another with --config")
