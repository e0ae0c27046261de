"""Findings, one line each, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

OK, WARN, FAIL = "ok", "warn", "fail"
LEVELS = (OK, WARN, FAIL)


@dataclass(frozen=True)
class Finding:
    """What one check found: ``level``, the check's name, what is so, and how to mend it."""

    level: str
    check: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:4}  {self.check:<26} {self.text}" + (f" -> {self.mend}" if self.mend else "")


def ok(check: str, text: str) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(OK, check, text)


def warn(check: str, text: str, mend: str) -> Finding:
    """Return a finding of something that a person should know before the arm moves."""
    return Finding(WARN, check, text, mend)


def fail(check: str, text: str, mend: str) -> Finding:
    """Return a finding of something with which it will not run."""
    return Finding(FAIL, check, text, mend)


def worst(findings: Iterable[Finding]) -> str:
    """Return the worst level among the findings."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=OK)


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: how many of each."""
    count = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    return f"{count[OK]} ok, {count[WARN]} to look at, {count[FAIL]} to mend"


def as_dict(findings: Sequence[Finding], **more: object) -> dict[str, object]:
    """Return what ``--json`` writes."""
    return {**more, "verdict": worst(findings), "findings": [asdict(finding) for finding in findings]}
