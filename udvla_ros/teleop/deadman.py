"""A switch that must be held, and heard: silence lets go, and what comes back pressed was not pressed by anybody."""

from __future__ import annotations

import math


class Deadman:
    """A button or a topic that says whether it is held.

    Args:
        timeout: s of silence after which it is taken as let go.
    """

    def __init__(self, timeout: float = 0.3) -> None:
        self.timeout = timeout
        self._heard = -math.inf
        self._pressed = self._counts = False

    def feed(self, pressed: bool, now: float) -> None:
        """Take what it says at ``now``, s. It counts once it was heard let go since it came, or came back."""
        if self.silent(now):
            self._counts = False
        self._counts = self._counts or not pressed
        self._pressed, self._heard = pressed, now

    def distrust(self) -> None:
        """Let a press count only after it was let go."""
        self._counts = False

    def silent(self, now: float) -> bool:
        """Return whether nothing has come for ``timeout``."""
        return now - self._heard > self.timeout

    def held(self, now: float) -> bool:
        """Return whether it is held, by somebody who pressed it."""
        return self._pressed and self._counts and not self.silent(now)
