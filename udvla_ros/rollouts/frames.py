"""What part of a camera's picture is looked at, and how it comes to a bundle's size: one rule for live and for bags.

A camera of the robot file may say ``crop: [x, y, width, height]`` (px of the picture as it comes) and ``fit``: what is
done where its shape is not the bundle's. ``exact`` (the default) refuses, ``crop`` cuts the longer sides off equally,
``pad`` adds black to the shorter ones, ``stretch`` distorts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from udvla_ros.errors import ObservationError

SLACK = 0.02  # relative difference of shapes that counts as none


def cropped(image: np.ndarray, camera: str, entry: Mapping[str, Any]) -> np.ndarray:
    """Return the part of a picture [h, w, 3] that the camera's entry names.

    Raises:
        ObservationError: the part reaches beyond the picture.
    """
    if not entry.get("crop"):
        return image
    x, y, width, height = (int(number) for number in entry["crop"])
    if x + width > image.shape[1] or y + height > image.shape[0] or not width * height:
        raise ObservationError(
            f"camera {camera} is {image.shape[1]}x{image.shape[0]} and its crop {entry['crop']} reaches beyond; mend "
            f"cameras.{camera}.crop in the robot file: [x, y, width, height]"
        )
    return np.ascontiguousarray(image[y : y + height, x : x + width])


def portion(image: np.ndarray, part: Sequence[float]) -> np.ndarray:
    """Return the part [x, y, width, height] of a picture [h, w, 3], in shares of its sides; all of it if none."""
    if not part:
        return image
    h, w = image.shape[:2]
    x, y, width, height = part
    return image[round(y * h) : round((y + height) * h), round(x * w) : round((x + width) * w)]


def shaped(image: np.ndarray, camera: str, height: int, width: int, entry: Mapping[str, Any] | None = None
           ) -> np.ndarray:  # fmt: skip
    """Return a picture [h, w, 3] in the shape of a size, by the camera's ``fit``; of that very size if stretched.

    Raises:
        ObservationError: its shape is another and ``fit`` does not say what to do.
    """
    h, w = image.shape[:2]
    if abs(h * width - w * height) > SLACK * w * height:
        rule = (entry or {}).get("fit", "exact")
        if rule == "exact":
            raise ObservationError(
                f"camera {camera} is {w}x{h} and the bundle wants the shape of {width}x{height}; write fit: crop (or "
                f"pad, stretch), or crop: [x, y, width, height], under cameras.{camera} in the robot file"
            )
        if rule == "crop":
            keep_h, keep_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
            top, left = (h - keep_h) // 2, (w - keep_w) // 2
            image = image[top : top + keep_h, left : left + keep_w]
        if rule == "pad":
            more_h, more_w = max(0, round(w * height / width) - h), max(0, round(h * width / height) - w)
            image = np.pad(
                image, ((more_h // 2, more_h - more_h // 2), (more_w // 2, more_w - more_w // 2), (0, 0))
            )
        if rule == "stretch":
            return _resized(image, height, width)
    return image


def fitted(image: np.ndarray, camera: str, height: int, width: int, entry: Mapping[str, Any] | None = None
           ) -> np.ndarray:  # fmt: skip
    """Return a picture [h, w, 3] at a size, area-averaged where it shrinks, so that small objects keep their colour.

    Raises:
        ObservationError: as :func:`shaped` does.
    """
    return _resized(shaped(image, camera, height, width, entry), height, width)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    shrink = image.shape[0] >= height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
