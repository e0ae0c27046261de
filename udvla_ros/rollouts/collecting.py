"""The plan of a collection: which sentence comes next, how many are done, where the arm has started from so far."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError

UNDONE = "-undone"  # behind the name of the episodes' folder: where those go that were taken back
NEAR = 0.03  # m within which a start is the same as an earlier one


@dataclass
class Kept:
    """One recorded episode: its folder, sentence, outcome and the TCP's place at its start, m [3]."""

    folder: Path
    sentence: str
    outcome: str
    start: np.ndarray


@dataclass
class Collection:
    """Episodes of one task as they come.

    Args:
        sentences: taken in turn, so that the policy learns the task and not the words.
        wanted: successes to collect.
    """

    sentences: Sequence[str]
    wanted: int
    kept: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.sentences or any(not line.strip() for line in self.sentences):
            raise ConfigError('a task needs a sentence: udvla collect --task "fold the cloth"')
        if self.wanted < 1:
            raise ConfigError(f"--episodes {self.wanted}: at least 1")

    @property
    def good(self) -> int:
        """Successes so far."""
        return sum(episode.outcome == "success" for episode in self.kept)

    @property
    def done(self) -> bool:
        """Whether there are enough."""
        return self.good >= self.wanted

    def sentence(self) -> str:
        """Return the sentence that has been shown least."""
        shown = Counter(episode.sentence for episode in self.kept if episode.outcome == "success")
        return min(self.sentences, key=lambda line: shown[line])

    def add(self, folder: Path, sentence: str, outcome: str, start: np.ndarray) -> str:
        """Take an episode in and return a line about what is covered."""
        near = self.nearest(start)
        self.kept.append(Kept(folder, sentence, outcome, start))
        line = f"{self.good} of {self.wanted}: {folder.name}, {outcome}"
        if near is not None and near < NEAR:
            line += f"; it started {1e3 * near:.0f} mm from an earlier one: start elsewhere for the next"
        return line

    def nearest(self, start: np.ndarray) -> float | None:
        """Return the distance to the nearest start of a success, m; None for the first."""
        starts = [episode.start for episode in self.kept if episode.outcome == "success"]
        return min((float(np.linalg.norm(start - other)) for other in starts), default=None)

    def undo(self) -> str:
        """Take the last episode back: its bag goes to a folder beside the others', and is not counted.

        Raises:
            ConfigError: there is none.
        """
        if not self.kept:
            raise ConfigError("there is no episode to take back")
        last = self.kept.pop()
        if last.folder.is_dir():
            parent = last.folder.parent.resolve()
            target = parent.with_name(parent.name + UNDONE) / last.folder.name
            target.parent.mkdir(exist_ok=True)
            names = (target.with_name(f"{target.name}-{k}") if k else target for k in itertools.count())
            shutil.move(last.folder, next(name for name in names if not name.exists()))
        return f"took back {last.folder.name} ({last.outcome}); {self.good} of {self.wanted}"

    def covered(self) -> str:
        """Return a line on sentences and start poses of the successes."""
        good = [episode for episode in self.kept if episode.outcome == "success"]
        if not good:
            return "nothing is covered yet"
        said = Counter(episode.sentence for episode in good)
        starts = np.array([episode.start for episode in good])
        span = 1e3 * (starts.max(axis=0) - starts.min(axis=0))
        lines = ", ".join(f"'{line}' {count}" for line, count in said.items())
        return f"sentences: {lines}; starts spread over {span[0]:.0f} x {span[1]:.0f} x {span[2]:.0f} mm"
