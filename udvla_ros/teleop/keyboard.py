"""Keys of a terminal as jogs: bindings as a table, and key repeat as the deadman.

A terminal tells when a key is pressed and repeats it while it is held, but never that it was let go. So a key
moves the arm for a moment (``timeout``), and holding it is a stream of such moments: a dropped connection, a
window that loses the focus or a finger that lets go all end in rest within that time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.teleop.jog import Speeds
from udvla_ros.teleop.wish import REST, Wish

TWISTS: dict[str, tuple[int, float]] = {  # key -> axis of the twist, sign
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "e": (2, 1), "q": (2, -1),
    "u": (3, 1), "o": (3, -1), "k": (4, 1), "i": (4, -1), "j": (5, 1), "l": (5, -1),
}  # fmt: skip
JOINTS: dict[str, float] = {"left": -1.0, "right": 1.0}  # of the joint chosen by its number
KEYS: dict[str, str] = {
    " ": "hold", "x": "stop", "r": "reset", "p": "engage_policy", "t": "engage_teleop", "g": "gripper",
    "+": "faster", "=": "faster", "-": "slower", "b": "frame", "n": "episode_start", "y": "episode_success",
    "f": "episode_failure", "delete": "episode_discard", "v": "snapshot", "h": "help", "?": "help",
}  # fmt: skip
DEADMAN = "m"  # for a leader arm
SEQUENCES = {"[A": "up", "[B": "down", "[C": "right", "[D": "left", "[3~": "delete"}
SEQUENCES |= {"O" + code[1]: key for code, key in SEQUENCES.items() if len(code) == 2}
ESCAPE, BACKSPACES = "\x1b", "\x08\x7f"
LONGEST = 8  # characters of an escape sequence; longer ones are not keys

HELP = """\
 w s  forwards, back     i k  pitch        1-7 then left right   one joint
 a d  left, right        j l  yaw          g      gripper        + -   speed
 e q  up, down           u o  roll         b      base or TCP axes
 SPACE hold   x stop   r reset   p give the arm to the policy   t take it   h keys   Ctrl-C quit
 n episode start   y it succeeded   f it failed   Backspace discard   v keep the last seconds
A key moves the arm for a moment; hold it to go on. Touching takes over from the policy."""
LEADER_HELP = """\
 m  hold it: the arm follows the leader, from where both are         g   gripper
 SPACE hold   x stop   r reset   p give the arm to the policy   t take it   h keys   Ctrl-C quit
 n episode start   y it succeeded   f it failed   Backspace discard   v keep the last seconds"""


class Decoder:
    """Bytes of a terminal to key names, across reads; sequences it does not know are passed over."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the keys in ``data``, and in what earlier data left unfinished."""
        text, keys = self._pending + data.decode("utf-8", errors="ignore"), []
        self._pending = ""
        while text:
            if text[0] != ESCAPE:
                keys.append("delete" if text[0] in BACKSPACES else text[0].lower())
                text = text[1:]
                continue
            end = _sequence_end(text)
            if end == 0 and len(text) <= LONGEST:
                self._pending = text
                break
            keys += [SEQUENCES[text[1:end]]] if text[1:end] in SEQUENCES else []
            text = text[max(end, 1) :]
        return keys


def _sequence_end(text: str) -> int:
    """Return where the escape sequence at the start of ``text`` ends, 0 while it is unfinished."""
    if len(text) < 2:
        return 0
    if text[1] not in "[O":
        return 1  # the escape key, or Alt with the next one
    for k, letter in enumerate(text[2:], 2):
        if "@" <= letter <= "~":
            return k + 1
    return 0


@dataclass
class Held:
    """A key that is taken to be held, and until when, s."""

    key: str = ""
    until: float = -np.inf


class Keyboard:
    """What was typed, as an operator's wish.

    Args:
        joints: how many joints the arm has.
        speeds: at scale 1.
        timeout: s a key moves the arm after it was heard; more than the terminal's repeat period.
        first: s the deadman key is taken as held after it was first heard: terminals wait before they repeat.
    """

    def __init__(self, joints: int, speeds: Speeds, timeout: float = 0.25, first: float = 0.8) -> None:
        self.joints, self.speeds, self.timeout, self.first = joints, speeds, timeout, first
        self.chosen = 0
        self._decoder, self._held, self._deadman = Decoder(), Held(), Held()
        self._distrusted = False

    def feed(self, data: bytes, now: float) -> list[str]:
        """Take bytes of the terminal; returns the actions they ask for, in order."""
        actions = []
        for key in self._decoder.feed(data):
            if key in TWISTS or key in JOINTS:
                self._held = Held(key, now + self.timeout)
            elif key == DEADMAN:
                again = now < self._deadman.until
                self._distrusted = self._distrusted and again
                self._deadman = Held(key, now + (self.timeout if again else self.first))
            elif key.isdigit() and 1 <= int(key) <= self.joints:
                self.chosen = int(key) - 1
            elif key in KEYS:
                actions.append(KEYS[key])
        return actions

    def held(self, now: float) -> bool:
        """Return whether a key that moves the arm is held."""
        return now < self._held.until

    def deadman(self, now: float) -> bool:
        """Return whether the deadman key is held."""
        return now < self._deadman.until and not self._distrusted

    def distrust(self) -> None:
        """Let the deadman key count only after it was let go."""
        self._distrusted = True

    def describe(self, frame: str) -> str:
        """Return what the next key moves, for the status line."""
        return f"{frame} axes, joint {self.chosen + 1}"

    def wish(self, now: float, scale: float, frame: str) -> Wish:
        """Return what the held key asks for at a speed scale 0 to 1."""
        if not self.held(now):
            return REST
        key = self._held.key
        if key in JOINTS:
            rates = np.zeros(self.joints)
            rates[self.chosen] = JOINTS[key] * self.speeds.joint * scale
            return Wish(joints=rates)
        axis, sign = TWISTS[key]
        twist = np.zeros(6)
        twist[axis] = sign * scale * (self.speeds.linear if axis < 3 else self.speeds.angular)
        return Wish(twist=twist, frame=frame)
