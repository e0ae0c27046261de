"""Pictures of evaluated episodes, to see what a policy does: a contact sheet and a film of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from udvla_ros.evaluation import pictures
from udvla_ros.evaluation.closed_loop import Outcome, Trace

FILM_HZ = 10.0


def dump(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Draw every outcome that kept its pictures; returns the files."""
    written: list[Path] = []
    for outcome in outcomes:
        if outcome.trace is None or not outcome.trace.moments:
            continue
        words = re.sub(r"[^a-z0-9]+", "-", outcome.case.instruction.lower())
        name = f"{outcome.case.seed}-{words}-{'success' if outcome.success else 'failure'}"
        written.append(pictures.write_png(folder / f"{name}.png", episode_sheet(outcome, outcome.trace)))
        film = pictures.write_film(folder / f"{name}.mp4", episode_film(outcome, outcome.trace), FILM_HZ)
        written += [film] if film else []
    return written


def describe_actions(actions: np.ndarray) -> str:
    """Return a chunk in a few words: the way of the TCP in mm, the turn in degrees, the gripper per step."""
    way = 1e3 * actions[:, :3].sum(axis=0)
    turn = np.rad2deg(np.linalg.norm(actions[:, 3:6].sum(axis=0)))
    fingers = "".join("c" if closed else "o" for closed in actions[:, 6] > 0)
    return f"wants {way[0]:+.0f} {way[1]:+.0f} {way[2]:+.0f} mm, {turn:.0f} deg, gripper {fingers}"


def episode_sheet(outcome: Outcome, trace: Trace, scale: int = pictures.SCALE) -> np.ndarray:
    """Return one row per inference: seen, foreseen for the end of the chunk, and what came then."""
    rows = []
    for moment in trace.moments:
        came = min(moment.due, len(trace.frames) - 1)
        at = " ".join(f"{1e3 * v:.0f}" for v in trace.tcp[moment.step])
        text = f"step {moment.step} (TCP {at} mm): {describe_actions(moment.actions)}; right: step {came}"
        rows.append(pictures.Row(text, trace.frames[moment.step], moment.predicted, trace.frames[came]))
    sheet = pictures.contact_sheet(rows, scale)
    verdict = "succeeded" if outcome.success else "failed"
    refused = f", refused chunks {outcome.refusals}" if outcome.refusals else ""
    title = f"{outcome.case.instruction} | seed {outcome.case.seed} | {verdict}: {outcome.reason}{refused}"
    return pictures.stacked([pictures.text_band(title, sheet.shape[1]), sheet])


def episode_film(outcome: Outcome, trace: Trace, scale: int = pictures.SCALE) -> list[np.ndarray]:
    """Return the film's frames: one per control step, with the future foreseen last."""
    frames, predicted = [], {}
    cameras, sizes = list(trace.frames[0]), pictures.sizes_of(trace.frames[0])
    moments = {moment.step: moment for moment in trace.moments}
    for step, seen in enumerate(trace.frames):
        if step in moments:
            predicted = moments[step].predicted
        text = f"{outcome.case.instruction}   {step / FILM_HZ:.1f} s"
        frames.append(pictures.video_frame(seen, predicted, text, cameras, sizes, scale))
    return frames
