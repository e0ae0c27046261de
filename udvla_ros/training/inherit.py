"""Start a run from a trained bundle: its weights carried over by what they mean, not by where they lie.

A robot's own recordings bring words, objects and codes that the bundle has never met, so the two vocabularies
differ. Layers are taken as they are; the rows of the embedding and of the head follow their meaning: markers by
name, text by word, visual codes by the nearest code of the old codebook, action codes as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from udvla_ros.errors import ConfigError
from udvla_ros.model import weights
from udvla_ros.model.checkpoint import Bundle

PROBE = 8  # random chunks by which two action tokenisers are told apart


@torch.no_grad()
def inherit(child: Bundle, parent: Bundle, fresh_actions: bool = False) -> int:
    """Overwrite the child's weights with the parent's; returns how many rows of the vocabulary stayed fresh.

    Both embedding tables follow :func:`same_meaning`; rows without a parent keep what they were built with.

    Args:
        fresh_actions: the child's action codes are its own, and their rows start fresh.

    Raises:
        ConfigError: the backbones differ in size, or the action tokenisers in their codes.
    """
    ours, theirs = dict(weights.named(child.backbone.decoder)), dict(weights.named(parent.backbone.decoder))
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    if ours.keys() != theirs.keys():
        raise ConfigError("the bundle to start from has another number of layers: use its own backbone section")
    for name, value in theirs.items():
        wanted = ours[name].shape[1:] if name in tables else ours[name].shape
        if (value.shape[1:] if name in tables else value.shape) != wanted:
            raise ConfigError(
                f"the bundle to start from has {name} as {tuple(value.shape)}, this run as {tuple(ours[name].shape)}: "
                "use its own backbone section"
            )
    if not fresh_actions:
        _check_actions(child, parent)
    pairs = torch.tensor(sorted(same_meaning(child, parent, not fresh_actions)))
    for name, value in theirs.items():
        if name in tables:
            ours[name][pairs[:, 0]] = value[pairs[:, 1]].to(ours[name])
        else:
            ours[name].copy_(value)
    return child.config.layout.vocabulary.size - len(pairs)


def same_meaning(child: Bundle, parent: Bundle, actions: bool = True) -> Iterator[tuple[int, int]]:
    """Yield (the child's id, the parent's id) of tokens that mean the same."""
    new, old = child.config.layout.vocabulary, parent.config.layout.vocabulary
    yield from ((new.markers[name], old.markers[name]) for name in new.markers)
    words = parent.text.words()
    yield from ((i, words[word]) for word, i in child.text.words().items() if word in words)
    nearest = nearest_codes(child.vision.embeddings, parent.vision.embeddings)
    yield from ((new.visual_first + i, old.visual_first + int(n)) for i, n in enumerate(nearest))
    for code in range(new.action_size if actions else 0):
        yield new.action_first + new.action_step * code, old.action_first + old.action_step * code


def nearest_codes(codes: Tensor, codebook: Tensor) -> Tensor:
    """Return for each code ``[N, width]`` the index ``[N]`` of the nearest in a codebook ``[M, width]``.

    Meaningful where one tokeniser was trained on from the other, and so shares its latent space.
    """
    return torch.cdist(codes.float(), codebook.float()).argmin(1)


def _check_actions(child: Bundle, parent: Bundle) -> None:
    """Refuse other codes: an action code's row says what the arm does, and nothing maps it to another's."""
    a, b = child.fast, parent.fast
    same = (a.vocab_size, a.chunk, a.dimensions) == (b.vocab_size, b.chunk, b.dimensions)
    if same:
        shape = (PROBE, a.chunk, a.dimensions)
        chunks = np.random.default_rng(0).uniform(-1, 1, shape)
        same = a.encode_batch(chunks, clip=True) == b.encode_batch(chunks, clip=True)
        actions = child.normalizer.denormalize(chunks), parent.normalizer.denormalize(chunks)
        same = same and np.allclose(*actions)
    if not same:
        raise ConfigError(
            "the bundle to start from speaks other action codes: train with its own, --actions BUNDLE/action"
        )
