"""One page per recorded episode: what was seen, foreseen and came; who had the arm; joints, limits, latencies."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from udvla_ros.evaluation import pictures
from udvla_ros.evaluation.recording import SAME_TIME, Film
from udvla_ros.rollouts.bags.episode import SAME_STAMP, RecordedEpisode, robot_of
from udvla_ros.rollouts.bags.reader import Bag

MOMENTS = 6
COLOURS = {"HOLD": "#d9d9d9", "POLICY": "#9ecae1", "TELEOP": "#fdd0a2", "STOPPED": "#fb9a99"}
LINES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
HEIGHT_OF_PICTURES = 150  # px of the tallest camera on the page


def draw(folder: Path, out: Path, robot: str = "") -> Path:
    """Draw the page of one episode as PNG and return its path.

    Raises:
        BagError: the bag is broken, or does not say which robot it is of.
    """
    with Bag(folder) as bag:
        figure = _page(RecordedEpisode(bag, robot_of(bag, robot)))
    path = out / f"{Path(folder).resolve().name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def _page(episode: RecordedEpisode) -> Figure:
    figure = Figure(figsize=(15, 17.5))
    FigureCanvasAgg(figure)
    grid = GridSpec(
        6,
        2,
        figure,
        height_ratios=[5.2, 0.5, 2.2, 2.2, 1.6, 1.6],
        hspace=0.34,
        wspace=0.12,
        left=0.055,
        right=0.985,
        top=0.945,
        bottom=0.035,
    )
    figure.suptitle(_title(episode), x=0.055, y=0.985, ha="left", fontsize=13)
    _pictures(figure, grid, episode)
    _modes(figure.add_subplot(grid[1, :]), episode)
    _positions(figure.add_subplot(grid[2, 0]), episode)
    _velocities(figure.add_subplot(grid[2, 1]), episode)
    _following(figure.add_subplot(grid[3, 0]), episode)
    _tcp(figure.add_subplot(grid[3, 1]), episode)
    _gripper(figure.add_subplot(grid[4, :]), episode)
    _latencies(figure.add_subplot(grid[5, :]), episode)
    return figure


def _title(episode: RecordedEpisode) -> str:
    bag = episode.bag
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(bag.start * 1e-9))
    bundle = bag.labels.get("bundle") or bag.labels.get("bundle_hash") or "no bundle"
    line = f'"{episode.instruction or "no instruction"}"   {episode.outcome}'
    return f"{line}\n{bag.folder.name}: {began}, {bag.duration:.1f} s, {episode.robot.name}, {bundle}"


# -- pictures ------------------------------------------------------------------------------------------------
def _pictures(figure: Figure, grid: GridSpec, episode: RecordedEpisode) -> None:
    """Columns of moments; rows: what the cameras saw at t, what was foreseen then, what they saw at t + horizon."""
    cameras = [name for name, stamps in episode.camera_stamps.items() if len(stamps)]
    film = Film(cameras) if cameras else None
    moments = _moments(episode)
    rows = ("saw", "predicted", "came") if any(due is not None for _, due in moments) else ("saw",)
    inner = grid[0, :].subgridspec(len(rows), max(1, len(moments)), wspace=0.04, hspace=0.06)
    if film is None or not moments:
        axes = figure.add_subplot(grid[0, :])
        axes.text(0.5, 0.5, "no images were recorded", ha="center", va="center")
        axes.set_axis_off()
        return
    wanted = {name: _needed(episode.camera_stamps[name], moments) for name in cameras}
    for name, found in episode.pictures(wanted).items():
        for stamp in sorted(found):
            film.add(name, stamp, found[stamp])
    foreseen = _foreseen(episode, cameras, [due for _, due in moments if due is not None])
    first = {name: next(iter(dict(_first(film, name)).values())) for name in cameras}
    sizes, scale = _sizes(first)
    begin = episode.bag.start * 1e-9
    for column, (stamp, due) in enumerate(moments):
        shown = {"saw": film.at(stamp), "predicted": {}, "came": {}}
        if due is not None:
            near = min(foreseen, key=lambda time_: abs(time_ - due), default=None)
            shown["predicted"] = foreseen[near] if near is not None and abs(near - due) <= SAME_STAMP else {}
            shown["came"] = film.at(due)
        for row, name in enumerate(rows):
            axes = figure.add_subplot(inner[row, column])
            axes.imshow(pictures.views(shown[name], cameras, sizes, scale), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            at = stamp if name == "saw" else due
            label = "" if at is None else f" {at - begin:.2f} s"
            words = {"saw": "saw at", "predicted": "predicted for", "came": "came at"}[name]
            axes.set_title(words + label, fontsize=8, pad=2)


def _moments(episode: RecordedEpisode) -> list[tuple[float, float | None]]:
    """Return (time seen, time foreseen) of a few chunks whose future came; times alone without chunks."""
    stamps = next((s for s in episode.camera_stamps.values() if len(s)), np.zeros(0))
    if not len(stamps):
        return []
    chunks = [
        (float(c["stamp"]), float(c["stamp"]) + float(c["horizon"]))
        for c in episode.chunks
        if "horizon" in c
        and np.abs(stamps - c["stamp"]).min() <= SAME_TIME
        and np.abs(stamps - c["stamp"] - c["horizon"]).min() <= SAME_TIME
    ]
    if chunks:
        picks = np.unique(np.linspace(0, len(chunks) - 1, MOMENTS).round().astype(int))
        return [chunks[k] for k in picks]
    picks = np.unique(np.linspace(0, len(stamps) - 1, MOMENTS).round().astype(int))
    return [(float(stamps[k]), None) for k in picks]


def _needed(stamps: np.ndarray, moments: list[tuple[float, float | None]]) -> np.ndarray:
    times = np.array([time_ for moment in moments for time_ in moment if time_ is not None])
    return np.array([stamps[np.abs(stamps - time_).argmin()] for time_ in times])


def _foreseen(episode: RecordedEpisode, cameras: list[str], dues: list[float]) -> dict[float, dict[str, np.ndarray]]:
    """Return predicted pictures by the time they are pictures of, and camera."""
    found: dict[float, dict[str, np.ndarray]] = {due: {} for due in dues}
    for name in cameras:
        for stamp, _, image in episode.predicted(name):
            for due in dues:
                if abs(stamp - due) <= SAME_STAMP:
                    found[due][name] = image
    return found


def _first(film: Film, name: str) -> list[tuple[str, np.ndarray]]:
    return [(name, film.at(stamp, np.inf)[name]) for stamp in film.stamps()[:1]]


def _sizes(images: dict[str, np.ndarray]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return the size at which each camera is shown, and how many times its pixels are enlarged."""
    sizes = pictures.sizes_of(images)
    tallest = max(height for height, _ in sizes.values())
    if tallest <= HEIGHT_OF_PICTURES:
        return sizes, max(1, HEIGHT_OF_PICTURES // tallest)
    shrink = HEIGHT_OF_PICTURES / tallest
    return {n: (max(1, round(h * shrink)), max(1, round(w * shrink))) for n, (h, w) in sizes.items()}, 1


# -- curves --------------------------------------------------------------------------------------------------
def _bands(axes: Axes, episode: RecordedEpisode, alpha: float = 0.35) -> list[tuple[float, float, str]]:
    """Colour the background by mode and set the common time axis; return the bands."""
    begin, end = episode.bag.start * 1e-9, episode.bag.end * 1e-9
    bounds = [0.0, *(max(0.0, t - begin) for t in episode.modes.time[1:]), end - begin]
    bands = [(a, b, m) for a, b, m in zip(bounds[:-1], bounds[1:], episode.modes.text, strict=False) if b > a]
    for a, b, mode in bands:
        axes.axvspan(a, b, color=COLOURS.get(mode, "#ffffff"), alpha=alpha, lw=0)
    axes.set_xlim(0.0, max(end - begin, 1e-3))
    axes.tick_params(labelsize=8)
    return bands


def _modes(axes: Axes, episode: RecordedEpisode) -> None:
    bands = _bands(axes, episode, alpha=1.0)
    begin, length = episode.bag.start * 1e-9, max(episode.bag.duration, 1e-3)
    for a, b, mode in bands:
        why = episode.reasons.at(begin + a + 1e-3)
        room = int((b - a) / length * 190)
        text = f"{mode}: {why}" if why else mode
        if room >= 3:
            axes.text(a + 0.002 * length, 0.5, text[:room], va="center", fontsize=8, clip_on=True)
    for chunk in episode.chunks:
        axes.axvline(chunk["stamp"] - begin, color="#08519c", lw=0.6, ymax=0.25)
    axes.set_yticks([])
    axes.set_title("mode and its reason; ticks: observations of chunks", fontsize=9, loc="left", pad=3)


def _positions(axes: Axes, episode: RecordedEpisode) -> None:
    limits, begin = episode.robot.limits, episode.bag.start * 1e-9
    middle, half = (limits.hard_upper + limits.hard_lower) / 2, (limits.hard_upper - limits.hard_lower) / 2
    _bands(axes, episode)
    for k, joint in enumerate(episode.robot.joints):
        colour = LINES[k % len(LINES)]
        for joints, style in ((episode.commanded, "-"), (episode.measured, ":")):
            if len(joints.time):
                share = (joints.position[:, k] - middle[k]) / half[k]
                label = joint if style == "-" else None
                axes.plot(joints.time - begin, share, style, color=colour, lw=1.1, label=label)
        for bound in (limits.lower[k], limits.upper[k]):
            axes.axhline((bound - middle[k]) / half[k], color="black", lw=0.4, ls="--")
    for bound in (-1.0, 1.0):
        axes.axhline(bound, color="black", lw=1.4)
    axes.set_ylim(-1.12, 1.12)
    axes.legend(fontsize=6.5, ncol=3, loc="upper right", framealpha=0.6)
    _name(axes, "joint positions within their limits (±1): commanded, measured dotted, soft limits dashed")


def _velocities(axes: Axes, episode: RecordedEpisode) -> None:
    limits, begin = episode.robot.limits, episode.bag.start * 1e-9
    _bands(axes, episode)
    top = 0.0
    for k in range(len(episode.robot.joints)):
        for joints, style, width in ((episode.measured, ":", 0.9), (episode.commanded, "-", 1.1)):
            if len(joints.time) and np.isfinite(joints.velocity[:, k]).any():
                share = np.abs(joints.velocity[:, k]) / limits.velocity[k]
                top = max(top, float(np.nanmax(share)))
                axes.plot(joints.time - begin, share, style, color=LINES[k % len(LINES)], lw=width)
    if top > 0.6:
        axes.axhline(1.0, color="black", lw=1.4)
    axes.set_ylim(0.0, 1.15 * max(top, 0.05))
    _name(axes, f"joint speeds as a share of their limits: at most {top:.2f}")


def _following(axes: Axes, episode: RecordedEpisode) -> None:
    begin, joints = episode.bag.start * 1e-9, len(episode.robot.joints)
    _bands(axes, episode)
    measured, commanded = episode.measured, episode.commanded
    if len(measured.time) and len(commanded.time) > 1:
        error = np.abs(commanded.at(measured.time)[:, :joints] - measured.position[:, :joints])
        inside = (measured.time >= commanded.time.min()) & (measured.time <= commanded.time.max())
        for k in range(joints):
            axes.plot((measured.time - begin)[inside], 1e3 * error[inside, k], color=LINES[k % len(LINES)], lw=1.0)
    most = episode.robot.arbiter.get("following_error")
    _name(axes, "measured behind commanded (mrad)" + (f"; the arbiter stops at {1e3 * most:.0f}" if most else ""))


def _tcp(axes: Axes, episode: RecordedEpisode) -> None:
    begin, arm, robot = episode.bag.start * 1e-9, len(episode.robot.joints), episode.robot
    _bands(axes, episode)
    for joints, style in ((episode.commanded, "-"), (episode.measured, ":")):
        fine = np.isfinite(joints.position[:, :arm]).all(axis=1)
        if not fine.any():
            continue
        points = robot.kinematics.positions(joints.position[fine, :arm])
        for k, name in enumerate("xyz"):
            label = name if style == "-" else None
            axes.plot((joints.time - begin)[fine], points[:, k], style, color=LINES[k], lw=1.1, label=label)
    low, high = axes.get_ylim()
    for k in range(3):
        for bound in robot.workspace.box[:, k]:
            if low - 0.05 < bound < high + 0.05:
                axes.axhline(bound, color=LINES[k], lw=0.8, ls="--")
    axes.legend(fontsize=7, ncol=3, loc="upper right", framealpha=0.6)
    _name(axes, "TCP in the base frame (m): commanded, measured dotted, workspace dashed")


def _gripper(axes: Axes, episode: RecordedEpisode) -> None:
    gripper, begin = episode.robot.gripper, episode.bag.start * 1e-9
    _bands(axes, episode)
    if gripper is not None:
        for joints, style, who in ((episode.commanded, "-", "commanded"), (episode.measured, ":", "measured")):
            if len(joints.time):
                axes.plot(joints.time - begin, gripper.fraction(joints.position[:, -1]), style, lw=1.2, label=who)
        axes.legend(fontsize=7, loc="upper right", framealpha=0.6)
    axes.set_ylim(-0.05, 1.05)
    _name(axes, "gripper, closed fraction")


def _latencies(axes: Axes, episode: RecordedEpisode) -> None:
    begin = episode.bag.start * 1e-9
    _bands(axes, episode)
    told = [(c["stamp"] - begin, c["timings_ms"]) for c in episode.chunks if c.get("timings_ms")]
    for stage, mark in (("frame_to_trajectory", "o-"), ("total", "s-"), ("denoise", "^-"), ("frame_wait", ".:")):
        found = [(at, timings[stage]) for at, timings in told if stage in timings]
        if found:
            times, values = zip(*found, strict=True)
            p50, p99 = np.percentile(values, [50, 99])
            axes.plot(times, values, mark, ms=3, lw=0.8, label=f"{stage}: p50 {p50:.0f}, p99 {p99:.0f} ms")
    if told:
        axes.legend(fontsize=7, ncol=4, loc="upper right", framealpha=0.6)
        axes.set_ylim(0.0, 1.35 * axes.get_ylim()[1])  # room for the legend
    _name(axes, "latency of each chunk (ms), at the time of its observation" if told else "no chunks")
    axes.set_xlabel("s since the recording began", fontsize=8)


def _name(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, loc="left", pad=3)
    axes.grid(alpha=0.25, lw=0.5)
