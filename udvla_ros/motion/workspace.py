"""Where the TCP may be: one box, less the forbidden boxes inside it. Base frame, metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Workspace:
    """Axis-aligned boxes.

    Attributes:
        box: [2, 3] lower and upper corner of the allowed box.
        forbidden: [k, 2, 3] boxes the TCP may not enter.
    """

    box: np.ndarray
    forbidden: np.ndarray

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Return how far each point [n, 3] violates each box, m: positive is outside, [n, 1 + k]."""
        depth, axes = np.empty((1 + len(self.forbidden), points.shape[0])), points.T
        low, up = self.box[:, :, None]
        np.maximum(low - axes, axes - up).max(axis=0, out=depth[0])
        for row, (low, up) in zip(depth[1:], self.forbidden[:, :, :, None], strict=True):
            np.minimum(axes - low, up - axes).min(axis=0, out=row)
        return depth.T

    def validate(self) -> None:
        """Refuse boxes that are empty or exclude each other.

        Raises:
            ConfigError: one line naming the box.
        """
        named = [("box", self.box), *((f"forbidden[{i}]", box) for i, box in enumerate(self.forbidden))]
        for name, (lower, upper) in named:
            if not np.all(lower < upper):
                raise ConfigError(
                    f"workspace.{name}: the first corner {lower.tolist()} must be below the second "
                    f"{upper.tolist()} in x, y and z"
                )
        for i, (lower, upper) in enumerate(self.forbidden):
            if np.all(lower <= self.box[0]) and np.all(upper >= self.box[1]):
                raise ConfigError(f"workspace.forbidden[{i}] covers the whole box; make it smaller")
