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


def write_episodes(path: Path, episodes: Iterable[ScoredEpisode]) -> Path:
    """Write episodes, one a line."""
    lines = []
    for episode in episodes:
        plain = asdict(episode)
        plain["scores"] = [{name: round(value, 5) for name, value in row.items()} for row in episode.scores]
        lines.append(json.dumps(plain))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


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
