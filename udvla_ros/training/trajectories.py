"""How a teacher denoises: the tokens it arrives at and the step at which it commits each, for many frames.

From these two arrays every state of the way follows: after step ``k`` a slot holds its final token if it was
committed before, else MASK. Labels are mixed (CEED-VLA, arXiv 2506.13725): where the teacher's action is further
than ``delta`` from the demonstration's, the demonstration takes its place, in the order the teacher would commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from udvla_ros.decoding.base import Call
from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.tokens.layout import Prefix
from udvla_ros.training.dataset import Sequences

SHARD = 512  # frames a file; an interrupted collection goes on behind the last one
NEVER = 127  # "step" of the slots that hold no token: those behind EOA


class TracingJD3P(JD3P):
    """JD3P that keeps what it wrote and when, so that a teacher's way can be read off it.

    ``ids`` ``[B, S]`` is the last call's suffix, ``when`` the step at which each slot was last written.
    """

    def write(self, call: Call) -> None:
        """Denoise, and look after each step."""
        self.ids = call.suffix.ids
        self.when = np.full(tuple(self.ids.shape), NEVER, np.int8)
        before = self.ids.clone()
        for step in self.steps(call):
            self.when[(self.ids != before).cpu().numpy()] = step
            before = self.ids.clone()


@dataclass
class Trajectories:
    """The teacher's ways for ``N`` steps of the data.

    Attributes:
        rows: ``[N]`` steps of the data set.
        tokens: ``[N, S]`` final suffix ids, MASK behind EOA.
        committed: ``[N, S]`` int8, denoising step at which a slot was written; :data:`NEVER` for markers and for
            what lies behind EOA.
        steps: denoising steps of the teacher.
        corrected: ``[N]`` bool, whether the demonstration replaced the teacher's action.
    """

    rows: np.ndarray
    tokens: np.ndarray
    committed: np.ndarray
    corrected: np.ndarray
    steps: int

    def state(self, index: np.ndarray, step: np.ndarray, slots: np.ndarray, mask: int) -> tuple[np.ndarray, np.ndarray]:
        """Return suffix ids ``[B, S]`` after ``step`` ``[B]`` steps, and which slots ``[B, S]`` are open then.

        ``slots`` are the positions that are generated at all; markers stand as they are.
        """
        free = np.zeros(self.tokens.shape[1], bool)
        free[slots] = True
        committed, tokens = self.committed[index], self.tokens[index]
        waiting = free & (committed >= step[:, None])
        known = waiting & (tokens != mask)
        return np.where(waiting, mask, tokens), known


def collect(
    teacher: Bundle,
    data: Sequences,
    rows: np.ndarray,
    folder: Path,
    options: DecodeOptions,
    delta: float,
    batch: int = 64,
    seed: int = 0,
) -> Trajectories:
    """Let the teacher decode the given steps of the data, shard by shard; shards that are there are kept.

    Args:
        delta: mean absolute distance of a chunk from the demonstration, in normalised units, above which the
            demonstration is the label.

    Raises:
        ConfigError: the folder holds ways of other options, or the options are not a teacher's.
    """
    if options.decoder != "jd3p" or options.foresight != "full":
        raise ConfigError("a teacher's ways are those of decoder jd3p with foresight full")
    folder.mkdir(parents=True, exist_ok=True)
    claim = f"{teacher.hash} {options} {delta} {seed} {len(rows)}\n"
    note = folder / "made_from.txt"
    if note.is_file() and note.read_text() != claim:
        raise ConfigError(f"{folder} holds trajectories of another teacher or other options; choose another --output")
    note.write_text(claim)
    decoder = TracingJD3P(teacher.backbone, teacher.fast.lattice(teacher.config.layout.action_slots))
    bar = tqdm(total=len(rows), unit="frame", desc="teacher", mininterval=2.0)
    parts = []
    for number, start in enumerate(range(0, len(rows), SHARD)):
        path = folder / f"trajectories-{number:04d}.npz"
        mine = rows[start : start + SHARD]
        if not path.is_file():
            _write(path, _decode(teacher, decoder, data, mine, options, delta, batch, seed + start, bar))
        else:
            bar.update(len(mine))
        with np.load(path, allow_pickle=False) as stored:
            parts.append({name: stored[name] for name in ("tokens", "committed", "corrected")})
    bar.close()
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Trajectories(rows, **joined, steps=options.steps)


def _write(path: Path, arrays: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)


def _decode(
    teacher: Bundle,
    decoder: TracingJD3P,
    data: Sequences,
    rows: np.ndarray,
    options: DecodeOptions,
    delta: float,
    batch: int,
    seed: int,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    made: dict[str, list[np.ndarray]] = {"tokens": [], "committed": [], "corrected": []}
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        parts = (data.prefix_ids, data.prefix_positions, data.prefix_modality)
        decoded = decoder(Prefix(*(part[some].astype(np.int64) for part in parts)), options, seed + first)
        tokens, when = decoder.ids.cpu().numpy(), decoder.when
        far = _distance(teacher, decoded.actions, data.shard.chunks[some]) > delta
        tokens, when = _corrected(teacher, tokens, when, data.suffix[some], far)
        for name, values in (("tokens", tokens.astype(np.int32)), ("committed", when), ("corrected", far)):
            made[name].append(values)
        bar.update(len(some))
    return {name: np.concatenate(values) for name, values in made.items()}


def _distance(teacher: Bundle, actions: list[list[int]], truth: np.ndarray) -> np.ndarray:
    """Return ``[B]``: mean absolute distance of decoded chunks from the demonstration's, normalised units."""
    chunks = np.stack([teacher.fast.decode(codes) for codes in actions])
    return np.abs(chunks - teacher.normalizer.normalize(truth)).mean((1, 2))


def _corrected(
    teacher: Bundle, tokens: np.ndarray, when: np.ndarray, truth: np.ndarray, far: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put the demonstration's action, in the teacher's order, where the teacher's is too far away."""
    slots = teacher.config.layout.template.action_slots
    mask = teacher.config.layout.vocabulary.mask
    tokens, when = tokens.copy(), when.copy()
    tokens[np.ix_(far, slots)] = truth[np.ix_(far, slots)]
    order = when[:, slots]
    last = np.where(order == NEVER, -1, order).max(1, keepdims=True).clip(0)
    # A longer sequence than the teacher's: its further codes come with the last ones.
    order = np.where((tokens[:, slots] != mask) & (order == NEVER), last, order)
    when[:, slots] = np.where(tokens[:, slots] == mask, NEVER, order)
    return tokens, when
