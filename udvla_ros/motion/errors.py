"""How the arm's side says no."""

from __future__ import annotations

from udvla_ros.errors import UdvlaError


class Refused(UdvlaError):
    """A command was refused whole; the plan in force goes on to its rest.

    Attributes:
        kind: class of the refusal, one word, counted and published (``stale``, ``non_finite``, ...).
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Unreachable(UdvlaError):
    """No joint positions within the limits bring the TCP to the pose."""


class UnreachableTarget(Unreachable):
    """A step of an action chunk asks for a pose or a joint jump that the arm cannot make.

    Attributes:
        step: number of that step; None where it is the whole chunk that is wrong.
    """

    def __init__(self, text: str, step: int | None = None) -> None:
        super().__init__(text)
        self.step = step
