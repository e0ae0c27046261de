"""What the policy may look at: the newest images that belong together, or a reason why there are none.

Nothing is guessed and nothing is filled in. A camera that is absent, late, out of step, frozen or blind
stops the policy, and the refusal says which and why. Cameras are matched here by their stamps, and the commanded
joints are those of that very time (:class:`CommandHistory`): one way for all, with or without message_filters.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from udvla_ros.errors import ObservationError
from udvla_ros.motion.robot_file import Guards


class ObservationRefused(ObservationError):
    """There is no observation the policy may act on.

    ``kind`` is one word for counting: missing, unstamped, stale, future, skew, frozen, dark, bright, flat,
    encoding, command.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Frames:
    """Images of all cameras that belong together; ``stamp`` is that of the oldest, in seconds.

    ``stamps`` has each camera's own: with them a recording tells which images a chunk was made of.
    """

    images: Mapping[str, np.ndarray]
    stamp: float
    skew: float
    stamps: Mapping[str, float] = field(default_factory=dict)


def why_blind(image: np.ndarray, guards: Guards) -> tuple[str, str]:
    """Return the kind and the words for a picture that shows nothing, or two empty strings.

    Args:
        image: uint8 [h, w, 3]; looked at every few pixels, which is enough and takes 0.5 ms for VGA, not 9.
    """
    step = max(1, min(image.shape[:2]) // 64)
    image = image[::step, ::step]
    mean = float(image.mean())
    if guards.dark_below > 0 and mean < guards.dark_below:
        return "dark", f"is black (mean {mean:.1f} of 255); cap or exposure?"
    if guards.bright_above > 0 and mean > guards.bright_above:
        return "bright", f"is washed out (mean {mean:.1f} of 255); lower its exposure"
    if guards.flat_below > 0 and float(image.std()) < guards.flat_below:
        return "flat", f"shows one colour only (spread {image.std():.1f} of 255); is its lens covered?"
    return "", ""


class _Camera:
    def __init__(self, depth: int) -> None:
        self.frames: deque[tuple[float, np.ndarray]] = deque(maxlen=depth)
        self.unchanged_since = 0.0
        self.problem = ""


class ObservationBuffer:
    """Keeps the last few images of each camera and hands out the newest that fit together.

    Safe to fill from one thread and read from another.
    """

    def __init__(self, cameras: Sequence[str], guards: Guards | None = None, depth: int = 8) -> None:
        self.guards = guards or Guards()
        self._cameras = {name: _Camera(depth) for name in cameras}
        self._lock = threading.Lock()

    def add(self, camera: str, image: np.ndarray, stamp: float) -> None:
        """Take an image of a camera, uint8 [h, w, 3], with its stamp in seconds.

        An image that is not newer than the last is dropped, unless the clock has jumped back by more than a
        second: then everything older is forgotten.
        """
        with self._lock:
            state = self._cameras[camera]
            state.problem = ""
            if state.frames:
                last_stamp, last = state.frames[-1]
                if stamp <= last_stamp - 1.0:
                    state.frames.clear()
                elif stamp <= last_stamp:
                    return
                elif not np.array_equal(image, last):
                    state.unchanged_since = stamp
            if not state.frames:
                state.unchanged_since = stamp
            state.frames.append((stamp, image))

    def spoil(self, camera: str, problem: str) -> None:
        """Note that a camera sends what cannot be read; told by :meth:`take` until a good image comes."""
        with self._lock:
            self._cameras[camera].frames.clear()
            self._cameras[camera].problem = problem

    def newest(self) -> float | None:
        """Return the stamp up to which every camera has sent something, or None."""
        with self._lock:
            if not all(state.frames for state in self._cameras.values()):
                return None
            return min(state.frames[-1][0] for state in self._cameras.values())

    def ages(self, now: float) -> dict[str, float | None]:
        """Return the seconds since each camera's newest stamp, None for a camera without any."""
        with self._lock:
            return {n: now - s.frames[-1][0] if s.frames else None for n, s in self._cameras.items()}

    def take(self, now: float) -> Frames:
        """Return the newest images that belong together.

        Raises:
            ObservationRefused: with the camera, the reason and, where there is one, the mend.
        """
        with self._lock:
            for name, state in self._cameras.items():
                if state.problem:
                    raise ObservationRefused("encoding", state.problem)
                if not state.frames:
                    raise ObservationRefused("missing", f"no image of camera '{name}' has come yet; is it running?")
            newest = {name: state.frames[-1][0] for name, state in self._cameras.items()}
            together = min(newest.values())
            chosen = {
                name: min(state.frames, key=lambda frame: abs(frame[0] - together))
                for name, state in self._cameras.items()
            }
            unchanged = {name: state.unchanged_since for name, state in self._cameras.items()}
        # The newest first: beside a camera that is gone, the frames chosen to match it are old as well.
        self._check_times(newest, now)
        self._check_times({name: stamp for name, (stamp, _) in chosen.items()}, now)
        self._check(chosen, unchanged)
        stamps = {name: stamp for name, (stamp, _) in chosen.items()}
        images = {name: image for name, (_, image) in chosen.items()}
        first, last = min(stamps.values()), max(stamps.values())
        return Frames(images, first, last - first, stamps)

    def _check_times(self, stamps: Mapping[str, float], now: float) -> None:
        guards = self.guards
        for name, stamp in stamps.items():
            age = now - stamp
            if stamp <= 0.0:
                raise ObservationRefused(
                    "unstamped", f"images of camera '{name}' carry no time; let its driver fill in header.stamp"
                )
            if not age <= guards.max_age:
                raise ObservationRefused(
                    "stale", f"camera '{name}' is {age:.2f} s old, {guards.max_age:g} s are allowed; is it running?"
                )
            if age < -guards.max_skew:
                raise ObservationRefused(
                    "future", f"camera '{name}' is stamped {-age:.2f} s in the future; synchronise the clocks"
                )

    def _check(self, chosen: Mapping[str, tuple[float, np.ndarray]], unchanged: Mapping[str, float]) -> None:
        guards = self.guards
        for name, (stamp, image) in chosen.items():
            frozen = stamp - unchanged[name]
            if guards.frozen_after > 0 and frozen > guards.frozen_after:
                raise ObservationRefused(
                    "frozen", f"camera '{name}' has sent the very same picture for {frozen:.1f} s; restart it"
                )
            kind, text = why_blind(image, guards)
            if kind:
                raise ObservationRefused(kind, f"camera '{name}' {text}")
        stamps = {name: stamp for name, (stamp, _) in chosen.items()}
        first, last = min(stamps, key=stamps.__getitem__), max(stamps, key=stamps.__getitem__)
        skew = stamps[last] - stamps[first]
        if skew > guards.max_skew:
            raise ObservationRefused(
                "skew",
                f"cameras '{first}' and '{last}' are {skew * 1e3:.0f} ms apart, {guards.max_skew * 1e3:.0f} ms "
                "are allowed; trigger them together or raise max_skew",
            )


class CommandHistory:
    """The commanded joints of the last seconds: TCP deltas start from what was commanded, never measured."""

    def __init__(self, size: int, seconds: float = 2.0, max_gap: float = 0.2) -> None:
        self._size, self._seconds, self._max_gap = size, seconds, max_gap
        self._entries: deque[tuple[float, np.ndarray]] = deque()
        self._lock = threading.Lock()

    def add(self, stamp: float, position: np.ndarray) -> None:
        """Take the commanded positions [d] at ``stamp`` seconds; a clock that jumps back clears the rest."""
        position = np.asarray(position, dtype=float)
        if position.shape != (self._size,):
            raise ValueError(f"{self._size} joints are commanded, got shape {position.shape}")
        with self._lock:
            if self._entries and stamp <= self._entries[-1][0]:
                if stamp > self._entries[-1][0] - 1.0:
                    return
                self._entries.clear()
            self._entries.append((stamp, position))
            while stamp - self._entries[0][0] > self._seconds:
                self._entries.popleft()

    def clear(self) -> None:
        """Forget everything, because the arm was put elsewhere."""
        with self._lock:
            self._entries.clear()

    def at(self, stamp: float) -> np.ndarray:
        """Return the commanded positions [d] at a time, linear between its neighbours.

        Raises:
            ObservationRefused: what was commanded then is not known.
        """
        with self._lock:
            entries = list(self._entries)
        if not entries:
            raise ObservationRefused("command", "no commanded joints have come; is arbiter_node running?")
        times = np.array([t for t, _ in entries])
        if stamp < times[0] - 1e-9 or stamp > times[-1] + self._max_gap:
            raise ObservationRefused(
                "command",
                f"commanded joints are known from {times[0] - stamp:+.2f} to {times[-1] - stamp:+.2f} s about the "
                "observation, not at it; is arbiter_node running and its clock synchronised?",
            )
        k = int(np.searchsorted(times, stamp))
        if k == 0 or k == len(times):
            return entries[min(k, len(times) - 1)][1]
        if times[k] - times[k - 1] > self._max_gap:
            raise ObservationRefused(
                "command", f"commanded joints paused for {times[k] - times[k - 1]:.2f} s about the observation"
            )
        share = (stamp - times[k - 1]) / (times[k] - times[k - 1])
        return (1.0 - share) * entries[k - 1][1] + share * entries[k][1]
