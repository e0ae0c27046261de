"""The policy: one observation in, one chunk of actions and the future it expects out.

No ROS and no robot in here: images are arrays, actions are numbers in the bundle's convention, and time is
whatever clock stamped the observation.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from udvla_ros.decoding.interface import DecodeOptions, Decoder, Foreseen
from udvla_ros.decoding.registry import make_decoder
from udvla_ros.errors import BundleError, TokenError
from udvla_ros.model.checkpoint import Bundle, BundleConfig
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.policy import words
from udvla_ros.policy.coherence import ahead, nearest
from udvla_ros.policy.convention import binarised, fitted, physical
from udvla_ros.policy.observation import Observation
from udvla_ros.resources import find
from udvla_ros.tokens.layout import Prefix, View


@dataclass(frozen=True)
class ActionChunk:
    """What the policy wants.

    Attributes:
        actions: float32 ``[K, D]`` in the bundle's convention and physical units; action ``k`` is due at
            ``stamp + (k + 1) * dt``.
        dt, stamp: seconds.
        timings_ms: ``image_encode``, ``prefill``, ``denoise``, ``detokenise`` (of the actions), ``action_ready``
            (until all actions are final), ``total``. ``image_decode`` joins them when the pictures are asked for.
        statistics: forwards, steps and confidences of the decoder, whether Jacobi ``converged``, and whether the plan
            in force had a say (``continued``).
        codes: what was decoded: VQ codes of the future ``[V]``, FAST codes.
        seen: VQ codes ``[V]`` of the images it was made of, in the order of those of the future.
        foreseen: how likely each code of the future was held (of one sample, without the batch), if that is known.
        native: the same actions in the units and signs of the bundle's data, which a benchmark of that data takes.
    """

    actions: np.ndarray
    dt: float
    stamp: float
    timings_ms: dict[str, float]
    statistics: dict[str, Any] = field(default_factory=dict)
    codes: tuple[np.ndarray, list[int]] | None = None
    seen: np.ndarray | None = None
    foreseen: Foreseen | None = None
    native: np.ndarray | None = None
    _paint: Callable[[], dict[str, np.ndarray]] = field(default=dict, repr=False)

    @cached_property
    def predicted(self) -> dict[str, np.ndarray]:
        """The future as uint8 RGB image per camera, painted when it is first asked for, which takes longer than
        anything but denoising; empty where the future was not decoded to its end.
        """
        started = time.perf_counter()
        images = self._paint()
        if images:
            self.timings_ms["image_decode"] = 1e3 * (time.perf_counter() - started)
        return images


class Policy:
    """A loaded bundle with a decoder. Not thread-safe: one inference at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._decoders: dict[str, Decoder] = {}
        self._text_ids = lru_cache(maxsize=64)(lambda words: tuple(bundle.text.encode(words)))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        threads: int | None = None,
        runtime: RuntimeOptions | None = None,
    ) -> Policy:
        """Load a bundle by path or shipped name (``models/...``).

        ``threads`` is ``runtime.threads`` for those who want nothing else of it.

        Raises:
            BundleError: see :meth:`udvla_ros.model.checkpoint.Bundle.load`.
            ConfigError: there is no such folder.
        """
        runtime = runtime or RuntimeOptions()
        if threads:
            runtime = dataclasses.replace(runtime, threads=threads)
        return cls(Bundle.load(find(folder), device, runtime=runtime))

    @property
    def config(self) -> BundleConfig:
        """The bundle's configuration."""
        return self.bundle.config

    @property
    def runtime(self) -> RuntimeOptions:
        """How it is run here."""
        return self.bundle.backbone.runtime

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.bundle.backbone.device

    @cached_property
    def codebook(self) -> np.ndarray:
        """The vectors of the VQ codes, float32 ``[N, D]``."""
        return self.bundle.vision.embeddings.cpu().float().numpy()

    @property
    def hash(self) -> str:
        """Identity of the bundle, for reports and rosbags."""
        return self.bundle.hash

    def options(self, **changes: Any) -> DecodeOptions:
        """Return the bundle's own decoding options, with changes.

        Raises:
            BundleError: the bundle's own are not known here.
            ConfigError: a change is out of range.
        """
        try:
            stored = DecodeOptions(**self.config.decoding)
        except TypeError as error:
            raise BundleError(f"the bundle's decoding options are not ours: {error}") from error
        return dataclasses.replace(stored, **changes)

    def check(self, options: DecodeOptions) -> DecodeOptions:
        """Return the options if this bundle can be decoded with them.

        Raises:
            ConfigError: there is no such decoder, or it needs another attention than the bundle has.
        """
        self._decoder(options.decoder)
        return options

    def unknown_words(self, instruction: str) -> list[str]:
        """Return the words this bundle never saw; a caller should warn about them."""
        return self.bundle.text.unknown_words(instruction)

    def refuses(self, instruction: str) -> str:
        """Return why there is nothing to act on in a sentence, or nothing; see :mod:`udvla_ros.policy.words`."""
        return words.meaning(instruction, self.unknown_words(instruction) if instruction.strip() else ()).refused

    def warm_up(self, options: DecodeOptions | None = None, runs: int = 2) -> float:
        """Run on a grey observation until nothing is cold, pictures included; return the last run's total in ms."""
        options = options or self.options()
        images = {v.name: np.full((v.height, v.width, 3), 127, np.uint8) for v in self.config.views}
        said = (self.bundle.text.decode([i]) for i in range(1, min(64, self.bundle.text.vocab_size)))
        grey = Observation(images, next((word for word in said if not self.refuses(word)), "go"))
        chunk = self.infer(grey, options)
        for _ in range(runs - 1):
            chunk = self.infer(grey, options)
        _ = chunk.predicted
        return chunk.timings_ms["total"]

    def infer(
        self,
        observation: Observation,
        options: DecodeOptions | None = None,
        seed: int = 0,
        previous: ActionChunk | None = None,
    ) -> ActionChunk:
        """Return the chunk for one observation. See :meth:`infer_batch`."""
        return self.infer_batch([observation], options, seed, [previous])[0]

    @torch.inference_mode()
    def infer_batch(
        self,
        observations: Sequence[Observation],
        options: DecodeOptions | None = None,
        seed: int = 0,
        previous: Sequence[ActionChunk | None] | None = None,
    ) -> list[ActionChunk]:
        """Return one chunk per observation, decoded together.

        Args:
            observations: any number.
            options: the bundle's own where there are none.
            seed: of the samples.
            previous: the chunk in force of each observation's episode. Of several ``samples`` the one that goes on
                most like it is taken; without it, as after a new instruction, the first.

        Raises:
            ObservationError: a camera is missing or an image is not uint8 RGB.
            TokenError: the instruction is empty or too long, or the decoded codes are malformed.
        """
        options = options or self.options()
        started = time.perf_counter()
        for observation in observations:
            refused = self.refuses(observation.instruction)
            if refused:
                raise TokenError(refused)
        rows = np.repeat(np.arange(len(observations)), options.samples)
        codes = {name: grids[rows] for name, grids in self._encode(observations).items()}
        text = [list(self._text_ids(observations[row].instruction)) for row in rows.tolist()]
        prefix: Prefix = self.config.layout.prefix(text, codes)
        encoded = time.perf_counter()
        decoded = self._decoder(options.decoder)(prefix, options, seed)
        denoised = time.perf_counter()
        actions = np.stack([self._actions(sequence) for sequence in decoded.actions])
        drawn = actions.reshape(len(observations), options.samples, *actions.shape[1:])
        plans = [self._ahead(*pair) for pair in zip(previous or [None] * len(observations), observations, strict=True)]
        taken = [0 if plan is None else self._nearest(*pair) for plan, *pair in zip(plans, drawn, plans, strict=True)]
        finished = time.perf_counter()
        own = dict(decoded.timings_ms)
        # A decoder that goes on with the images after the last action says when the actions were final.
        after = own["denoise"] - own.pop("action_ready", own["denoise"])
        timings = {
            "image_encode": 1e3 * (encoded - started),
            **own,
            "detokenise": 1e3 * (finished - denoised),
            "action_ready": 1e3 * (finished - started) - after,
            "total": 1e3 * (finished - started),
        }
        statistics = {
            "forwards": decoded.forwards,
            "converged": decoded.converged,
            "forward_tokens": sum(step.forward_tokens for step in decoded.steps),
            "steps": [dataclasses.asdict(step) for step in decoded.steps],
            "action_codes": [len(sequence) for sequence in decoded.actions],
        }
        dt, chunks = 1.0 / self.config.control_hz, []
        for number, (observation, plan, sample) in enumerate(zip(observations, plans, taken, strict=True)):
            row = number * options.samples + sample
            chunks.append(
                ActionChunk(
                    physical(actions[row], self.config.action), dt, observation.stamp, dict(timings),
                    {**statistics, "continued": options.samples > 1 and plan is not None},
                    (decoded.visual[row], decoded.actions[row]),
                    np.concatenate([codes[view.name][row].ravel() for view in self.config.views]),
                    None if decoded.foreseen is None else decoded.foreseen.of(row),
                    actions[row], partial(self._paint, decoded.visual[row]),
                )
            )  # fmt: skip
        return chunks

    # -- parts -------------------------------------------------------------------------------------

    def _decoder(self, name: str) -> Decoder:
        if name not in self._decoders:
            self._decoders[name] = make_decoder(name, self.bundle)
        return self._decoders[name]

    def _encode(self, observations: Sequence[Observation]) -> dict[str, np.ndarray]:
        """Return VQ codes ``[B, rows, cols]`` per camera; views of one size go through the network together.

        Others do not: padded to one size they would see each other's borders in every group norm.
        """
        sizes: dict[tuple[int, int], list[View]] = {}
        for view in self.config.views:
            sizes.setdefault((view.height, view.width), []).append(view)
        codes: dict[str, np.ndarray] = {}
        for views in sizes.values():
            images = np.stack([self._fitted(o, view) for view in views for o in observations])
            parts = np.split(self.bundle.vision.encode(images).cpu().numpy(), len(views))
            codes |= {view.name: part for view, part in zip(views, parts, strict=True)}
        return codes

    def _fitted(self, observation: Observation, view: View) -> np.ndarray:
        return fitted(observation.images.get(view.name), view, self.config.images, observation.prepared)

    def _ahead(self, chunk: ActionChunk | None, observation: Observation) -> np.ndarray | None:
        """Return the actions of a chunk that are still to be played at an observation; None where there are none."""
        if chunk is None or chunk.native is None:
            return None
        first = ahead((observation.stamp - chunk.stamp) / chunk.dt, len(chunk.native))
        return None if first is None else chunk.native[first:]

    def _nearest(self, drawn: np.ndarray, plan: np.ndarray) -> int:
        action, normalizer = self.config.action, self.bundle.normalizer
        width = normalizer.q99 - normalizer.q01
        return nearest(drawn, plan, np.where(width > 0, width / 2, 1.0), action.space, action.gripper)

    def _actions(self, codes: list[int]) -> np.ndarray:
        return binarised(self.bundle.normalizer.denormalize(self.bundle.fast.decode(codes)), self.config.action)

    def _paint(self, visual: np.ndarray) -> dict[str, np.ndarray]:
        """Return the images of the codes ``[V]`` of one future; none where a code is missing."""
        if (visual < 0).any():
            return {}
        codes = self.config.layout.split_views(visual[None])
        return {name: self.bundle.vision.decode(grid)[0] for name, grid in codes.items()}
