"""What a policy is shown, wherever it runs: no torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Observation:
    """What the policy sees.

    Attributes:
        images: uint8 RGB ``[H, W, 3]`` by camera name; resized to the bundle's sizes where they differ.
        instruction: the sentence.
        stamp: seconds, of the newest image.
        prepared: the images are turned already where the bundle's convention turns them.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    stamp: float = 0.0
    prepared: bool = False
