"""How good a vision tokeniser is, in terms that a policy cares about: is each object there, and where?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from udvla_ros.tokens.vision import VisionTokenizer

# Hues of the objects that instructions name, in degrees.
HUES = {"red": 0.0, "green": 120.0, "blue": 240.0}
VIVID = 0.5  # saturation from which a pixel belongs to an object
FEWEST = 4  # pixels below which an object counts as hidden


def hue_saturation(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hue in degrees and saturation in 0..1 of RGB values 0..255 [..., 3]."""
    rgb = rgb.astype(np.float32) / 255.0
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = np.maximum(high - low, 1e-6)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    sector = np.select(
        [high == red, high == green], [(green - blue) / chroma, 2 + (blue - red) / chroma], 4 + (red - green) / chroma
    )
    return (sector * 60.0) % 360.0, (high - low) / np.maximum(high, 0.25)


def colour_mask(rgb: np.ndarray, colour: str) -> np.ndarray:
    """Return which pixels are vividly of this colour: [..., 3] -> bool [...]."""
    hue, saturation = hue_saturation(rgb)
    away = np.abs((hue - HUES[colour] + 180.0) % 360.0 - 180.0)
    return (away < 45.0) & (saturation > VIVID)


def psnr(original: np.ndarray, copy: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, over the pixels of a mask if given; NaN for no pixel."""
    error = np.square(original.astype(np.float32) - copy.astype(np.float32)).mean(-1)
    error = error if mask is None else error[mask]
    return float(10 * np.log10(255.0**2 / max(float(error.mean()), 1e-6))) if error.size else float("nan")


def object_scores(original: np.ndarray, copy: np.ndarray) -> dict[str, dict[str, float]]:
    """Return per colour, over images [N, H, W, 3]: how often the object was seen, kept its colour, and where.

    ``correct`` is the share whose mean colour inside the original's mask is still vividly the same colour;
    ``found`` the share of which at least a third of the pixels are that colour anywhere in the copy; ``offset_px`` the
    mean distance between the centres of both masks where found, ``offset_p95_px`` its 95th percentile.
    """
    scores = {}
    for colour in HUES:
        masks, copies = colour_mask(original, colour), colour_mask(copy, colour)
        seen = np.flatnonzero(masks.sum((1, 2)) >= FEWEST)
        correct, found, offsets = 0, 0, []
        for index in seen:
            correct += bool(colour_mask(copy[index][masks[index]].mean(0), colour))
            if copies[index].sum() * 3 >= masks[index].sum():
                found += 1
                centres = [np.argwhere(mask).mean(0) for mask in (masks[index], copies[index])]
                offsets.append(float(np.linalg.norm(centres[0] - centres[1])))
        count = max(len(seen), 1)
        scores[colour] = {
            "seen": len(seen),
            "correct": correct / count,
            "found": found / count,
            "offset_px": float(np.mean(offsets)) if offsets else float("nan"),
            "offset_p95_px": float(np.percentile(offsets, 95)) if offsets else float("nan"),
        }
    return scores


def flicker(images: np.ndarray, codes: np.ndarray, factor: int, still: int = 3) -> float:
    """Return the share of codes that change between consecutive frames although their own pixels do not.

    Args:
        images: uint8 [N, H, W, 3], consecutive frames.
        codes: [N, rows, cols] of the same frames.
        factor: pixels per side of a code's patch.
        still: largest change of a pixel (of 255) that counts as none.
    """
    if len(images) < 2:
        return float("nan")
    change = np.abs(images[1:].astype(np.int16) - images[:-1]).max(-1)
    count, rows, cols = codes[1:].shape
    quiet = change.reshape(count, rows, factor, cols, factor).max((2, 4)) <= still
    return float((codes[1:] != codes[:-1])[quiet].mean()) if quiet.any() else float("nan")


def evaluate(tokenizer: VisionTokenizer, images: dict[str, np.ndarray]) -> dict:
    """Return all scores per camera, and the use of the codebook over all of them together.

    ``images`` holds consecutive frames, uint8 [N, H, W, 3] per camera.
    """
    report: dict = {"cameras": {}}
    uses = np.zeros(tokenizer.codebook_size)
    for name, original in images.items():
        codes = tokenizer.encode(original).numpy()
        copy = tokenizer.decode(codes)
        uses += np.bincount(codes.ravel(), minlength=len(uses))
        vivid = np.any([colour_mask(original, colour) for colour in HUES], axis=0)
        report["cameras"][name] = {
            "psnr_db": psnr(original, copy),
            "psnr_vivid_db": psnr(original, copy, vivid),
            "objects": object_scores(original, copy),
            "flicker": flicker(original, codes, tokenizer.factor),
        }
    share = uses[uses > 0] / max(uses.sum(), 1)
    report["codes_used"] = int((uses > 0).sum())
    report["perplexity"] = float(np.exp(-(share * np.log(share)).sum()))
    return report


def headline(report: dict) -> str:
    """Return one line that sums up a report of :func:`evaluate`."""
    parts = [f"{report['codes_used']} codes used, perplexity {report['perplexity']:.0f}"]
    for name, camera in report["cameras"].items():
        correct = " ".join(f"{colour[0]}{100 * s['correct']:.0f}" for colour, s in camera["objects"].items())
        offsets = [s["offset_px"] for s in camera["objects"].values() if s["found"]]
        offset = float(np.mean(offsets)) if offsets else float("nan")
        parts.append(
            f"{name} {camera['psnr_db']:.1f} dB, vivid {camera['psnr_vivid_db']:.1f} dB, colours {correct} %, "
            f"offset {offset:.2f} px, flicker {100 * camera['flicker']:.1f} %"
        )
    return "; ".join(parts)


def save_comparison(path: Path, tokenizer: VisionTokenizer, images: np.ndarray, scale: int = 6) -> None:
    """Write a picture of originals (odd rows) over their reconstructions (even rows), six to a row."""
    copies = tokenizer.decode(tokenizer.encode(images))
    rows = []
    for start in range(0, len(images) - len(images) % 6 or len(images), 6):
        for part in (images, copies):
            rows.append(np.concatenate(list(np.pad(part[start : start + 6], ((0, 0), (1, 1), (1, 1), (0, 0)))), 1))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    picture = Image.fromarray(np.concatenate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)
