"""A recorded episode at the control rate: what was seen at each step, and what was commanded from there on.

Steps are taken at stamps of the first camera's images, the ones nearest to an even grid. Joints, commands and the
labels are interpolated to exactly those stamps, so a camera that runs at another rate than the policy blurs nothing
but the spacing of the pictures, by half of its period at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from udvla_ros.rollouts import frames
from udvla_ros.rollouts.actions import actions_of
from udvla_ros.rollouts.bags.episode import RecordedEpisode, nearest
from udvla_ros.rollouts.bags.hands import BEFORE, whose
from udvla_ros.rollouts.bags.topic import BagError

ACTIVE = ("POLICY", "TELEOP")
CONTROL_HZ = 10.0  # where no chunk says otherwise
CHUNK = 8  # steps of labels kept at each step
AFTER = 3  # still steps kept at the end, so that the ending is in the data
STILL = 1e-3  # rad/s of every joint; below it the command rests
SKEW = 0.1  # s two cameras may differ, where the robot file does not say


@dataclass
class Steps:
    """T steps of an episode.

    Attributes:
        dt: s of one step.
        time: [T+1] stamps, s.
        images: uint8 RGB [T+1, H, W, 3] by camera.
        measured, commanded: [T+1, d+1] joint positions, the gripper's last (d without one).
        targets: [T, K, d+1] commanded positions at ``(k + 1) dt`` after each step.
        actions: [T, K, D] the same in the action space asked for (:mod:`udvla_ros.rollouts.actions`).
        tcp: [T+1, 4, 4] commanded TCP pose in the base frame.
        by: [T] whose each step was (:mod:`udvla_ros.rollouts.bags.hands`).
    """

    dt: float
    time: np.ndarray
    images: dict[str, np.ndarray]
    measured: np.ndarray
    commanded: np.ndarray
    targets: np.ndarray
    actions: np.ndarray
    tcp: np.ndarray
    by: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)


def take_steps(
    episode: RecordedEpisode,
    hz: float | None = None,
    chunk: int = CHUNK,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    space: str = "tcp_delta",
    before: float = BEFORE,
) -> Steps:
    """Return an episode's steps from where the arm starts to move to shortly after it rests.

    Args:
        episode: must have been driven by the policy or by teleop.
        hz: control rate; without, that of the policy's chunks, or 10.
        chunk: K.
        sizes: (height, width) of cameras whose pictures are resized; the others keep theirs.
        space: of the actions.
        before: s that led to a takeover and are not to be learnt.

    Raises:
        BagError: cameras or commands are missing or pause, or nothing moved.
    """
    dt = 1.0 / (hz or control_hz(episode))
    cameras = tuple(episode.robot.cameras)
    begin, end = _span(episode, dt, chunk)
    stamps = _stamps(episode, cameras, begin, end, dt)
    first = stamps[cameras[0]]
    times = first[:-1, None] + dt * np.arange(1, chunk + 1)
    commanded = _positions(episode, "commanded", first)
    targets = _positions(episode, "commanded", times.reshape(-1)).reshape(*times.shape, -1)
    path = np.concatenate([commanded[:-1, None], targets], axis=1)  # [T, K+1, d+1]
    return Steps(
        dt=dt,
        time=first,
        images={name: _pictures(episode, name, stamps[name], (sizes or {}).get(name)) for name in cameras},
        measured=_positions(episode, "measured", first),
        commanded=commanded,
        targets=targets,
        actions=np.stack([actions_of(row, episode.robot, space) for row in path]),
        tcp=np.stack([episode.robot.kinematics.forward(row[: len(episode.robot.joints)]) for row in commanded]),
        by=whose(episode.modes, first[:-1], before),
    )


def by_sentence(steps: Steps, sentences: Sequence[tuple[float, str]]) -> Iterator[tuple[Steps, str]]:
    """Yield the steps under each sentence, and the sentence; labels that reach into the next one's time are left out.

    Args:
        sentences: from when on (s) which holds.
    """
    reach = steps.targets.shape[1] * steps.dt
    for (begin, sentence), (end, _) in pairwise([*sentences, (np.inf, "")]):
        inside = np.flatnonzero((steps.time[:-1] >= begin) & (steps.time[:-1] + reach <= end))
        if len(inside) < (2 if len(sentences) > 1 else 1):
            continue
        a, b = int(inside[0]), int(inside[-1]) + 1
        frames, actions = slice(a, b + 1), slice(a, b)
        yield Steps(
            steps.dt, steps.time[frames], {name: pictures[frames] for name, pictures in steps.images.items()},
            steps.measured[frames], steps.commanded[frames], steps.targets[actions], steps.actions[actions],
            steps.tcp[frames], steps.by[actions],
        ), sentence  # fmt: skip


def control_hz(episode: RecordedEpisode) -> float:
    """Return the rate of the policy's chunks in an episode."""
    rows = [chunk.get("dt") for chunk in episode.chunks]
    found = {round(1.0 / dt, 6) for dt in rows if isinstance(dt, (int, float)) and 1e-3 <= dt <= 1e3}
    if len(found) > 1:
        raise BagError(f"'{episode.bag.folder}' has chunks at {sorted(found)} Hz; choose one with --hz")
    return found.pop() if found else CONTROL_HZ


def _span(episode: RecordedEpisode, dt: float, chunk: int) -> tuple[float, float]:
    """Return the times between which there is something to learn."""
    folder, modes, commands = episode.bag.folder, episode.modes, episode.commanded
    if len(commands.time) < 2:
        raise BagError(f"'{folder}' has no commands of the arbiter; there are no actions to export")
    bounds = [*modes.time, max(episode.bag.end * 1e-9, commands.time[-1])]
    active = [(a, b) for a, b, mode in zip(bounds[:-1], bounds[1:], modes.text, strict=True) if mode in ACTIVE]
    if not active:
        raise BagError(f"'{folder}': neither the policy nor teleop ever had the arm; there are no actions to export")
    begin, end = active[0][0], active[-1][1]
    inside = (commands.time >= begin) & (commands.time <= end)
    change = np.abs(np.diff(commands.position, axis=0, prepend=commands.position[:1]))
    period = np.diff(commands.time, prepend=commands.time[0] - 1.0)
    moves = commands.time[inside & (change > STILL * np.maximum(period, 1e-3)[:, None]).any(axis=1)]
    if not len(moves):
        raise BagError(f"'{folder}': nothing was commanded to move; there are no actions to export")
    begin, end = max(begin, moves[0] - dt), min(end, moves[-1] + (AFTER + 0.5) * dt)
    # Labels reach ``chunk`` steps ahead: known, or the command rests and stays where it is.
    if moves[-1] > commands.time[-1] - dt:
        end = min(end, commands.time[-1] - (chunk - 1) * dt)
    return begin, end


def _stamps(
    episode: RecordedEpisode, cameras: tuple[str, ...], begin: float, end: float, dt: float
) -> dict[str, np.ndarray]:
    """Return the stamps of the pictures of each step, by camera [T+1]."""
    folder = episode.bag.folder
    for name in cameras:
        if name not in episode.robot.cameras or not len(episode.camera_stamps.get(name, ())):
            raise BagError(f"'{folder}' has no images of camera '{name}'; the export needs it")
    first = np.unique(episode.camera_stamps[cameras[0]])
    grid = np.arange(begin, end + 1e-6, dt)
    chosen = first[nearest(first, grid)]
    off = np.abs(chosen - grid) > 0.5 * dt + 1e-6
    inside = np.flatnonzero(~off)
    if len(inside) < 2:
        raise BagError(f"'{folder}': camera '{cameras[0]}' has no images while the arm moved")
    if off[inside[0] : inside[-1] + 1].any() or (np.diff(chosen[inside]) <= 0).any():
        raise BagError(
            f"'{folder}': camera '{cameras[0]}' pauses, or is slower than {1 / dt:g} Hz; choose a lower rate with --hz"
        )
    stamps = {cameras[0]: chosen[inside]}
    most = float(episode.robot.observation.get("max_skew", SKEW))
    for name in cameras[1:]:
        times = np.unique(episode.camera_stamps[name])
        stamps[name] = times[nearest(times, stamps[cameras[0]])]
        apart = np.abs(stamps[name] - stamps[cameras[0]]).max()
        if apart > most:
            raise BagError(
                f"'{folder}': cameras '{cameras[0]}' and '{name}' are {apart * 1e3:.0f} ms apart; "
                f"{most * 1e3:.0f} ms are allowed"
            )
    return stamps


def _positions(episode: RecordedEpisode, which: str, times: np.ndarray) -> np.ndarray:
    joints = getattr(episode, which)
    if len(joints.time) < 2:
        raise BagError(f"'{episode.bag.folder}' has no {which} joints")
    fine = np.isfinite(joints.position[:, : len(episode.robot.joints)]).all(axis=1)
    if not fine.all():
        raise BagError(f"'{episode.bag.folder}': {which} joints are missing or not finite; see udvla bag check")
    around = nearest(np.sort(joints.time), times)
    inside = (times >= joints.time.min()) & (times <= joints.time.max())
    apart = np.abs(np.sort(joints.time)[around] - times)[inside]
    if len(apart) and apart.max() > 0.2:
        raise BagError(f"'{episode.bag.folder}': {which} joints pause for {2 * apart.max():.2f} s; see udvla bag check")
    return joints.at(times)


def _pictures(
    episode: RecordedEpisode, camera: str, stamps: np.ndarray, size: tuple[int, int] | None
) -> np.ndarray:
    entry = episode.robot.cameras[camera]
    found = {
        stamp: image if size is None else frames.fitted(image, camera, *size, entry)
        for stamp, image in episode.frames(camera, stamps)
    }
    known = np.array(sorted(found))
    images = [found[known[k]] for k in nearest(known, stamps)]
    if len({image.shape for image in images}) > 1:
        raise BagError(f"'{episode.bag.folder}': camera '{camera}' changes its size; give one for the export")
    return np.stack(images)
