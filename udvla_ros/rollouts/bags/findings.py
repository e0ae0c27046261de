"""What a look at a recorded episode found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from udvla_ros.rollouts.bags.identity import Identity

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. ``at`` is s since the episode's beginning, where it has a time."""

    level: str
    kind: str
    text: str
    at: float | None = None


@dataclass
class Stream:
    """A topic in numbers: rate from the median period, the longest silence, latency from stamp to recorder."""

    topic: str
    count: int
    hz: float | None = None
    longest_gap: float | None = None
    lost: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None


@dataclass
class CheckReport:
    """What was found in one bag, and what has to agree with others: whose it is, its sentence, its pictures' sizes."""

    folder: str
    seconds: float = 0.0
    streams: list[Stream] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    instruction: str = ""
    outcome: str | None = None
    identity: Identity | None = None
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def unfit(self) -> str:
        """Why nothing may be learned from it, in one line; empty where it is good."""
        return "; ".join(dict.fromkeys(finding.text for finding in self.findings if finding.level == ERROR))

    @property
    def good(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == ERROR for finding in self.findings)

    def error(self, kind: str, text: str, at: float | None = None) -> None:
        """Note an error."""
        self.findings.append(Finding(ERROR, kind, text, at))

    def warn(self, kind: str, text: str, at: float | None = None) -> None:
        """Note a warning."""
        self.findings.append(Finding(WARNING, kind, text, at))

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {**asdict(self), "good": self.good}
