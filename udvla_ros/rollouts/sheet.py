"""A contact sheet: one row of pictures per episode, to be looked at by people."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from udvla_ros.rollouts.episodes import Episode, read_episodes

SCALE = 3
SMALL = 160  # px: views narrower than this are drawn SCALE times larger
COLUMNS = 10
CAPTION = 14  # px


def _row(episode: Episode) -> np.ndarray:
    """Return one strip, uint8 RGB: the cameras below each other at evenly spread frames."""
    steps = np.unique(np.linspace(0, len(episode), COLUMNS).round().astype(int))
    views = list(episode.images.values())
    width = max(view.shape[2] for view in views)
    strip = np.full((sum(view.shape[1] + 2 for view in views) - 2, COLUMNS * (width + 2), 3), 255, np.uint8)
    for column, step in enumerate(steps):
        top = 0
        for view in views:
            height, narrow = view.shape[1:3]
            left = column * (width + 2) + (width - narrow) // 2
            strip[top : top + height, left : left + narrow] = view[step]
            top += height + 2
    scale = SCALE if width < SMALL else 1
    return strip.repeat(scale, axis=0).repeat(scale, axis=1)


def write_sheet(folder: Path, path: Path, episodes: int = 6) -> None:
    """Draw the first episodes of a data set to a PNG, ten moments each, captioned with the instruction."""
    rows = []
    for episode in islice(read_episodes(folder), episodes):
        strip = _row(episode)
        row = Image.new("RGB", (strip.shape[1], strip.shape[0] + CAPTION), "white")
        row.paste(Image.fromarray(strip), (0, CAPTION))
        text = f"{episode.instruction}   ({len(episode)} steps, fulfilled at {episode.success_step})"
        ImageDraw.Draw(row).text((2, 1), text, fill="black")
        rows.append(row)
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
