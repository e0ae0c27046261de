"""Image messages to arrays and back: what bags are read with too (:mod:`udvla_ros.rollouts.images`)."""

from udvla_ros.rollouts.images import (
    ENCODINGS,
    compressed_to_rgb,
    fill_compressed,
    fill_image,
    message_to_rgb,
    to_array,
    to_rgb,
)

__all__ = [
    "ENCODINGS",
    "compressed_to_rgb",
    "fill_compressed",
    "fill_image",
    "message_to_rgb",
    "to_array",
    "to_rgb",
]
