"""When hands on a device count: a touch begins, drives, and is spent once somebody else has taken the arm."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ENGAGING = 0.3  # s a touch may take to become mode TELEOP
SETTLING = 0.15  # s after its begin in which an older mode may still be on its way


class Phase(str, Enum):
    """What the hands may do now."""

    IDLE = "idle"  # nobody touches
    DRIVES = "drives"  # send what is wished
    RELEASED = "released"  # send one motion to rest, once
    SPENT = "spent"  # still touched, but it no longer counts: let go first


@dataclass
class Touch:
    """The state of one operator's touch.

    A touch that the arbiter did not let through, or from which the arm was taken (hold, stop, the policy engaged
    on purpose), is spent until the hands let go: two who both want the arm must not pull it back and forth.
    """

    phase: Phase = Phase.IDLE
    reason: str = ""
    _since: float = 0.0
    _engaged: bool = False

    def update(self, held: bool, mode: str, now: float) -> Phase:
        """Take whether the device is touched and the arbiter's mode at ``now``, s on any steady clock."""
        if not held:
            self.phase = Phase.RELEASED if self.phase is Phase.DRIVES else Phase.IDLE
            self.reason = ""
            return self.phase
        if self.phase in (Phase.IDLE, Phase.RELEASED):
            self.phase, self._since, self._engaged = Phase.DRIVES, now, False
            if mode == "STOPPED":
                self.spend("the arm is stopped: reset it first")
        if self.phase is Phase.DRIVES:
            age = now - self._since
            if mode == "TELEOP":
                self._engaged = self._engaged or age > SETTLING
            elif self._engaged:
                self.spend(f"mode is {mode or 'unknown'}: let go first")
            elif age > ENGAGING:
                self.spend("the arbiter does not let it through: let go first")
        return self.phase

    def spend(self, reason: str) -> None:
        """End a touch whose device is still held; nothing happens to one that drives nothing."""
        if self.phase is Phase.DRIVES:
            self.phase, self.reason = Phase.SPENT, reason
