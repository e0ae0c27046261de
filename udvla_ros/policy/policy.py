"""The policy: one observation in, one chunk of actions and the future it expects out.

No ROS and no robot in here: images are arrays, actions are numbers in the bundle's convention, and time is
whatever clock stamped the observation.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from udvla_ros.decoding.interface import Decoded, DecodeOptions, Decoder
from udvla_ros.decoding.registry import make_decoder
from udvla_ros.errors import BundleError, ObservationError
from udvla_ros.model.checkpoint import Bundle, BundleConfig
from udvla_ros.resources import find
from udvla_ros.tokens.layout import Prefix, View


@dataclass(frozen=True)
class Observation:
    """What the policy sees.

    Attributes:
        images: uint8 RGB ``[H, W, 3]`` by camera name; resized to the bundle's sizes where they differ.
        instruction: the sentence.
        stamp: seconds, of the newest image.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    stamp: float = 0.0


@dataclass(frozen=True)
class ActionChunk:
    """What the policy wants.

    Attributes:
        actions: float32 ``[K, D]`` in the bundle's convention and physical units; action ``k`` is due at
            ``stamp + (k + 1) * dt``.
        dt, stamp: seconds.
        predicted: uint8 RGB future image per camera; empty unless ``foresight`` is ``full``.
        timings_ms: ``image_encode``, ``prefill``, ``denoise``, ``detokenise``, ``total``.
        statistics: forwards, steps and confidences of the decoder, and whether Jacobi ``converged``.
    """

    actions: np.ndarray
    dt: float
    stamp: float
    predicted: dict[str, np.ndarray]
    timings_ms: dict[str, float]
    statistics: dict[str, Any] = field(default_factory=dict)


class Policy:
    """A loaded bundle with a decoder. Not thread-safe: one inference at a time."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._decoders: dict[str, Decoder] = {}

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "cpu", threads: int | None = None
    ) -> Policy:
        """Load a bundle by path or shipped name (``models/...``).

        Raises:
            BundleError: see :meth:`udvla_ros.model.checkpoint.Bundle.load`.
            ConfigError: there is no such folder.
        """
        if threads:
            torch.set_num_threads(threads)
        return cls(Bundle.load(find(folder), device))

    @property
    def config(self) -> BundleConfig:
        """The bundle's configuration."""
        return self.bundle.config

    @property
    def hash(self) -> str:
        """Identity of the bundle, for reports and rosbags."""
        return self.bundle.hash

    def options(self, **changes: Any) -> DecodeOptions:
        """Return the bundle's own decoding options, with changes."""
        try:
            stored = DecodeOptions(**self.config.decoding)
        except TypeError as error:
            raise BundleError(f"the bundle's decoding options are not ours: {error}") from error
        return dataclasses.replace(stored, **changes)

    def unknown_words(self, instruction: str) -> list[str]:
        """Return the words this bundle never saw; a caller should warn about them."""
        return self.bundle.text.unknown_words(instruction)

    def warm_up(self, options: DecodeOptions | None = None, runs: int = 2) -> float:
        """Run on a grey observation until nothing is cold; return the last run's total in ms."""
        images = {v.name: np.full((v.height, v.width, 3), 127, np.uint8) for v in self.config.views}
        words = self.bundle.text.decode([1]) or "go"
        chunk = [self.infer(Observation(images, words), options) for _ in range(runs)][-1]
        return chunk.timings_ms["total"]

    def infer(
        self, observation: Observation, options: DecodeOptions | None = None, seed: int = 0
    ) -> ActionChunk:
        """Return the chunk for one observation. See :meth:`infer_batch` for errors."""
        return self.infer_batch([observation], options, seed)[0]

    @torch.inference_mode()
    def infer_batch(
        self, observations: Sequence[Observation], options: DecodeOptions | None = None, seed: int = 0
    ) -> list[ActionChunk]:
        """Return one chunk per observation, decoded together.

        Raises:
            ObservationError: a camera is missing or an image is not uint8 RGB.
            TokenError: the instruction is empty or too long, or the decoded codes are malformed.
        """
        options = options or self.options()
        started = time.perf_counter()
        codes = self._encode(observations)
        text = [self.bundle.text.encode(o.instruction) for o in observations]
        prefix: Prefix = self.config.layout.prefix(text, codes)
        encoded = time.perf_counter()
        decoded = self._decoder(options.decoder)(prefix, options, seed)
        denoised = time.perf_counter()
        actions = [self._actions(sequence) for sequence in decoded.actions]
        predicted = self._images(decoded) if options.foresight == "full" else {}
        finished = time.perf_counter()
        timings = {
            "image_encode": 1e3 * (encoded - started),
            **decoded.timings_ms,
            "detokenise": 1e3 * (finished - denoised),
            "total": 1e3 * (finished - started),
        }
        statistics = {
            "forwards": decoded.forwards,
            "converged": decoded.converged,
            "forward_tokens": sum(step.forward_tokens for step in decoded.steps),
            "steps": [dataclasses.asdict(step) for step in decoded.steps],
            "action_codes": [len(sequence) for sequence in decoded.actions],
        }
        dt = 1.0 / self.config.control_hz
        return [
            ActionChunk(a, dt, o.stamp, {n: i[row] for n, i in predicted.items()}, timings, statistics)
            for row, (a, o) in enumerate(zip(actions, observations, strict=True))
        ]

    # -- parts -------------------------------------------------------------------------------------

    def _decoder(self, name: str) -> Decoder:
        if name not in self._decoders:
            self._decoders[name] = make_decoder(name, self.bundle)
        return self._decoders[name]

    def _encode(self, observations: Sequence[Observation]) -> dict[str, np.ndarray]:
        """Return VQ codes ``[B, rows, cols]`` per camera."""
        return {
            view.name: self.bundle.vision.encode(
                np.stack([fitted(o.images.get(view.name), view) for o in observations])
            ).cpu().numpy()
            for view in self.config.views
        }  # fmt: skip

    def _actions(self, codes: list[int]) -> np.ndarray:
        actions = self.bundle.normalizer.denormalize(self.bundle.fast.decode(codes)).astype(np.float32)
        gripper = self.config.action.gripper
        if gripper is not None:
            actions[:, gripper] = np.where(actions[:, gripper] > 0, 1.0, -1.0)
        return actions

    def _images(self, decoded: Decoded) -> dict[str, np.ndarray]:
        codes = self.config.layout.split_views(decoded.visual)
        return {name: self.bundle.vision.decode(grid) for name, grid in codes.items()}


def fitted(image: np.ndarray | None, view: View) -> np.ndarray:
    """Return the image at the view's size (area-averaged when shrunk, so that small objects keep colour).

    Raises:
        ObservationError: no image, or not uint8 RGB, or another aspect ratio than the view's by over 2%.
    """
    if image is None:
        raise ObservationError(f"no image of camera {view.name}; the bundle needs it")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ObservationError(
            f"camera {view.name} gave {image.dtype} {image.shape}; convert it to uint8 RGB [H, W, 3]"
        )
    height, width = image.shape[:2]
    if (height, width) == (view.height, view.width):
        return image
    if abs(height * view.width - width * view.height) > 0.02 * width * view.height:
        raise ObservationError(
            f"camera {view.name} is {width}x{height} and the bundle wants the shape of "
            f"{view.width}x{view.height}; crop it in the robot file"
        )
    shrink = height >= view.height
    return cv2.resize(
        image, (view.width, view.height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
