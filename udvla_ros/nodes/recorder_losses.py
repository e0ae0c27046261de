"""What was published in an episode and is not in its bag: said while there is still time to mend it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

RECENT = 5.0  # s for which dropped messages colour the diagnostics
AGAIN = 0.5  # s between two alarms


class Losses:
    """Counts from the beginning of one recording.

    Args:
        lost: messages by topic that were published and never received, since the node started.
        logger: of the node.
        alarm: publishes the diagnostics at once.
    """

    def __init__(self, lost: Callable[[], Counter[str]], logger: Any, alarm: Callable[[], None]) -> None:
        self._lost, self._logger, self._alarm = lost, logger, alarm
        self._before: Counter[str] = Counter()
        self._known = 0
        self._noted = -RECENT

    def begin(self) -> None:
        """A recording begins: what was lost before is not its loss."""
        self._before, self._known = self._lost(), 0

    def unheard(self) -> Counter[str]:
        """Return by topic what was published and never received in this recording."""
        return self._lost() - self._before

    def recent(self) -> bool:
        """Return whether something was dropped or lost a moment ago."""
        return time.monotonic() - self._noted < RECENT

    def look(self) -> None:
        """Say what was published and never received since the last look."""
        unheard = self.unheard()
        if unheard.total() > self._known:
            self._known, self._noted = unheard.total(), time.monotonic()
            self._logger.error(
                f"published and never received in this episode: {_listed(unheard)}", throttle_duration_sec=1.0
            )
            self._alarm()

    def dropped(self, counts: Counter[str]) -> None:
        """Say what was received and dropped, by topic, because the disk is slower than the graph."""
        self._logger.error(
            f"the disk is slower than the graph: dropped so far {_listed(counts)}", throttle_duration_sec=1.0
        )
        now = time.monotonic()
        if now > self._noted + AGAIN:
            self._alarm()
        self._noted = now


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in counts.items())
