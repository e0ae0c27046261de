"""What data of another making need before a bundle that is kept as it is can learn from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import ActionConvention, BundleConfig, ImageConvention
from udvla_ros.policy.convention import conventional, fitted
from udvla_ros.rollouts.episodes import TURNED_AROUND, read_description
from udvla_ros.training.tokenize import PUBLISHED, convention_of

NUMBERS = ("gripper_threshold", "gripper_opens", "scale", "rotation")  # how a motion is written, not which it is
WHOLE = [0.0, 0.0, 1.0, 1.0]


@dataclass(frozen=True)
class Brought:
    """How one data set's arrays become a bundle's: ``images`` is what is still to be done to its pictures."""

    bundle: BundleConfig
    images: ImageConvention
    physical: bool  # labels are in m and rad, and the bundle's data are not

    def pictures(self, camera: str, images: np.ndarray) -> np.ndarray:
        """Return pictures ``[N, H, W, 3]`` as the bundle's view of that camera."""
        view = next(view for view in self.bundle.views if view.name == camera)
        return np.stack([fitted(image, view, self.images) for image in images])

    def labels(self, chunks: np.ndarray) -> np.ndarray:
        """Return chunks ``[..., D]`` in the numbers of the bundle's data."""
        return conventional(chunks, self.bundle.action) if self.physical else chunks


def bring(folder: Path, bundle: BundleConfig) -> Brought:
    """Hold a data set's description against the bundle.

    Raises:
        ConfigError: it lacks a camera, or its actions or pictures are others than the bundle can be given.
    """
    told, wanted = read_description(folder), bundle.action
    lacking = [name for name in bundle.cameras if name not in told["cameras"]]
    if lacking:
        raise ConfigError(
            f"{bundle.name} sees {', '.join(bundle.cameras)}; {folder} has {', '.join(told['cameras'])} and no "
            f"{', '.join(lacking)}"
        )
    found = convention_of(folder, _unnamed(told))
    same = ["space", "chunk", "dimensions", "control_hz", "gripper"]
    same += ["frame"] if wanted.space == "tcp_delta" else ["joints"] if wanted.joints and found.joints else []
    _agree(folder, bundle.name, found, wanted, same)
    physical = all(getattr(found, name) == getattr(PUBLISHED, name) for name in NUMBERS)
    if not physical:
        _agree(folder, bundle.name, found, wanted, NUMBERS)
    changed = any(getattr(found, name) != getattr(wanted, name) for name in NUMBERS)
    return Brought(bundle, _left_to_do(folder, bundle), physical and changed)


def _unnamed(told: Mapping[str, Any]) -> ActionConvention:
    """Return the convention of data that do not name theirs."""
    chunk, dimensions = told["intention_shape"]
    return dataclasses.replace(PUBLISHED, chunk=chunk, dimensions=dimensions, control_hz=float(told["control_hz"]))


def _agree(folder: Path, name: str, found: ActionConvention, wanted: ActionConvention, fields: Sequence[str]) -> None:
    apart = [field for field in fields if getattr(found, field) != getattr(wanted, field)]
    if apart:
        values = ", ".join(f"{field} {getattr(wanted, field)} and {getattr(found, field)}" for field in apart)
        raise ConfigError(
            f"{name} and {folder} differ in {values}; export the bags again with the bundle's --space, --hz and --chunk"
        )


def _left_to_do(folder: Path, bundle: BundleConfig) -> ImageConvention:
    """Return the bundle's rule less what the data's pictures have had done to them already."""
    told, rule = read_description(folder), bundle.images
    turned = str(told.get("images", "")) == TURNED_AROUND
    cut = {name: list(part) for name, part in told.get("crops", {}).items() if list(part) != WHOLE}
    if not cut:
        return dataclasses.replace(rule, turned=rule.turned != turned)
    ours = {name: [float(share) for share in part] for name, part in rule.crops.items()}
    if cut != ours or turned != rule.turned:
        raise ConfigError(f"{folder} has crops {cut} and {bundle.name} {ours}; generate or export it with the bundle's")
    return dataclasses.replace(rule, turned=False, crops={})
