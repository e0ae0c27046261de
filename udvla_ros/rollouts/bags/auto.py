"""When the recorder starts and stops by itself: with the policy."""

from __future__ import annotations

ENGAGED, REST, FINAL = "POLICY", "HOLD", "STOPPED"


class Automatic:
    """Follows ``arbiter/mode``.

    An episode begins when the policy gets the arm, and goes on while a person helps (TELEOP). It ends when the
    arbiter stops, or has held for ``settle`` s: a hand-back may come in between. An episode that a person began or
    ended is left alone until the policy is engaged anew.
    """

    def __init__(self, settle: float = 1.0) -> None:
        self._settle = settle
        self._mode = ""
        self._since: float | None = None  # the arbiter has been at rest since
        self._wanted = False  # the policy was engaged and no episode began yet
        self._open = False  # an episode is in progress
        self._own = False  # and was begun here

    def hear(self, mode: str, now: float) -> None:
        """Take in the arbiter's mode at ``now`` s."""
        if mode == ENGAGED and self._mode != ENGAGED and not self._open:
            self._wanted = True
        if mode in (REST, FINAL):
            self._wanted = False
            if self._since is None or mode == FINAL:
                self._since = now - (self._settle if mode == FINAL else 0.0)
        else:
            self._since = None
        self._mode = mode

    def due(self, now: float) -> str:
        """Return ``start``, ``stop`` or nothing, whatever is to be done now."""
        if self._own and self._since is not None and now >= self._since + self._settle:
            return "stop"
        return "start" if self._wanted else ""

    def began(self, automatically: bool) -> None:
        """Note that an episode began."""
        self._open, self._own, self._wanted = True, automatically, False

    def ended(self) -> None:
        """Note that it ended, whoever ended it."""
        self._open = self._own = False
