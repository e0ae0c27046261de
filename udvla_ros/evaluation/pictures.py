"""Pictures for people: what the cameras saw, what the policy foresaw, and what came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

SCALE = 6  # policies look at postage stamps
GAP = 6  # px between pictures
BAND = 26  # px of a line of text
WHITE, INK, PALE = (255, 255, 255), (30, 30, 30), (225, 225, 225)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def enlarge(image: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """Return the image with every pixel ``scale`` times as large, nothing smoothed."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def blank(height: int, width: int, colour: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Return a uint8 RGB picture of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def text_band(text: str, width: int, height: int = BAND, colour: tuple[int, int, int] = INK) -> np.ndarray:
    """Return one line of text [height, width, 3], made smaller until it fits."""
    band, size = blank(height, width), 0.5
    while size > 0.25 and cv2.getTextSize(text, FONT, size, 1)[0][0] > width - 8:
        size -= 0.05
    cv2.putText(band, text, (4, height - 8), FONT, size, colour, 1, cv2.LINE_AA)
    return band


def side_by_side(images: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Return the pictures in a row, aligned at the top, on white."""
    height = max(image.shape[0] for image in images)
    columns: list[np.ndarray] = []
    for image in images:
        if columns:
            columns.append(blank(height, gap))
        columns.append(np.vstack([image, blank(height - image.shape[0], image.shape[1])]))
    return np.hstack(columns)


def stacked(images: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Return the pictures below each other, aligned at the left, on white."""
    width = max(image.shape[1] for image in images)
    rows: list[np.ndarray] = []
    for image in images:
        if rows and gap:
            rows.append(blank(gap, width))
        rows.append(np.hstack([image, blank(image.shape[0], width - image.shape[1])]))
    return np.vstack(rows)


def views(
    images: Mapping[str, np.ndarray], cameras: Sequence[str], sizes: Mapping[str, tuple[int, int]], scale: int = SCALE
) -> np.ndarray:
    """Return the cameras' pictures side by side, enlarged; pale where there is none.

    Args:
        images: uint8 RGB by camera name.
        cameras: which, in which order.
        sizes: (height, width) of the place of each camera; other images are resized to it, pixels kept hard.
    """
    tiles = []
    for name in cameras:
        height, width = sizes[name]
        image = images.get(name)
        if image is None:
            tiles.append(blank(height * scale, width * scale, PALE))
            continue
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        tiles.append(enlarge(image, scale))
    return side_by_side(tiles)


def sizes_of(images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Return (height, width) of each image."""
    return {name: (image.shape[0], image.shape[1]) for name, image in images.items()}


@dataclass
class Row:
    """One moment of a contact sheet: images by camera that were seen, foreseen and came; ``text`` above them."""

    text: str
    saw: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]
    came: Mapping[str, np.ndarray]


TITLES = ("what the cameras saw", "what the model predicted they would see", "what came")


def contact_sheet(rows: Sequence[Row], scale: int = SCALE) -> np.ndarray:
    """Return the sheet, uint8 RGB; one row per moment: seen, foreseen, came.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    cameras, sizes = list(rows[0].saw), sizes_of(rows[0].saw)
    lines: list[np.ndarray] = []
    for row in rows:
        triple = [views(images, cameras, sizes, scale) for images in (row.saw, row.predicted, row.came)]
        strip = side_by_side(triple, 4 * GAP)
        lines += [text_band(row.text, strip.shape[1]), strip]
    heads = [text_band(title, triple[0].shape[1]) for title in TITLES]
    return stacked([side_by_side(heads, 4 * GAP), *lines])


def video_frame(
    seen: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    text: str,
    cameras: Sequence[str],
    sizes: Mapping[str, tuple[int, int]],
    scale: int = SCALE,
) -> np.ndarray:
    """Return one frame of a film: the views above, the predicted future below, text at the foot.

    Width and height are even, as video codecs ask.
    """
    now, future = views(seen, cameras, sizes, scale), views(predicted, cameras, sizes, scale)
    width = now.shape[1]
    frame = stacked(
        [
            text_band("now", width),
            now,
            text_band("predicted", width),
            future,
            text_band(text, width),
        ]
    )
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")


def write_png(path: Path, image: np.ndarray) -> Path:
    """Write an RGB picture. Raises OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} cannot be written; is the folder writable?")
    return path


def write_film(path: Path, frames: Iterable[np.ndarray], hz: float) -> Path | None:
    """Write RGB frames of one size as MP4 (MPEG-4 part 2); a GIF beside it where OpenCV brings no encoder.

    Returns the path written, None without frames.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), hz, (width, height))
    if not writer.isOpened():
        path.unlink(missing_ok=True)
        return write_gif(path.with_suffix(".gif"), chain([first], stream), hz)
    for frame in chain([first], stream):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_gif(path: Path, frames: Iterable[np.ndarray], hz: float, shrink: int = 2) -> Path | None:
    """Write a small looping GIF; None where Pillow is not installed or there are no frames."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        return None
    small = [Image.fromarray(np.ascontiguousarray(frame[::shrink, ::shrink])) for frame in frames]
    if not small:
        return None
    pictures = [picture.quantize(64) for picture in small]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / hz), loop=0)
    return path
