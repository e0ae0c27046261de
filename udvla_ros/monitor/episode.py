"""Episodes as the monitor knows them: scores with their times and an outcome, in files of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from udvla_ros.errors import ConfigError


@dataclass
class ScoredEpisode:
    """One attempt.

    Attributes:
        kind: what went wrong, ``plain`` where nothing was disturbed.
        task, seed: of the scene; empty and -1 where there is none.
        success, reason: the outcome.
        seconds: from the first observation to the end.
        times, scores: of each chunk, s from the beginning, and its scores by name.
        alarms: times of alarms, s, where somebody watched.
        of: what it was run with, where it was simulated: episodes of another bundle are none of these.
    """

    kind: str
    task: str
    seed: int
    success: bool
    reason: str
    seconds: float
    times: list[float]
    scores: list[dict[str, float]]
    alarms: list[float] = field(default_factory=list)
    of: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is known by among those that were run alike."""
        return self.kind, self.task, self.seed

    def line(self) -> str:
        """Return it as a line of a file."""
        plain = asdict(self)
        plain["scores"] = [{name: round(value, 5) for name, value in row.items()} for row in self.scores]
        return json.dumps(plain) + "\n"


def write_episodes(path: Path, episodes: Iterable[ScoredEpisode]) -> Path:
    """Write episodes, one a line."""
    path.write_text("".join(episode.line() for episode in episodes), encoding="utf-8")
    return path


def begun(path: Path, of: str) -> list[ScoredEpisode]:
    """Return what a run that was broken off has left in its file; a line cut short is cut away.

    Raises:
        ConfigError: it was run with something else.
    """
    if not path.is_file():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    found = read_episodes(path)
    strange = [episode.of for episode in found if episode.of != of]
    if strange:
        raise ConfigError(f"{path} holds episodes of {strange[0] or 'another run'}, and not of {of}; name a new file")
    return found


def read_episodes(path: Path) -> list[ScoredEpisode]:
    """Return the episodes of a file.

    Raises:
        ConfigError: a line is no episode.
    """
    episodes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            episodes.append(ScoredEpisode(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}, line {number}: no episode of the monitor ({error}); write it anew") from None
    return episodes
