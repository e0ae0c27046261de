"""A terminal that gives each key at once, and gets back what it was, however the program ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

from udvla_ros.errors import ConfigError

INPUT, LOCAL, CONTROL = 0, 3, 6  # of what tcgetattr returns
NO_TERMINAL = (
    "the keyboard needs a terminal of its own, and a process started by a launch file has none; "
    "type `udvla teleop` (or `ros2 run udvla_ros teleop_node`) in another terminal"
)


class Terminal:
    """Reads keys in a thread and redraws one line at the foot.

    Ctrl-C still ends the program and Ctrl-Z still suspends it; while suspended the terminal is the shell's. Nothing
    that is written may stop the program: a terminal that takes no more loses the line.

    Args:
        on_keys: called in the reading thread with the bytes that were typed.
        on_gone: called once when the terminal is gone (its window was closed).

    Raises:
        ConfigError: standard input is no terminal.
    """

    def __init__(self, on_keys: Callable[[bytes], None], on_gone: Callable[[], None]) -> None:
        try:
            self._fd = sys.stdin.fileno()
            self._was = termios.tcgetattr(self._fd)
            # An opening of its own: not to block is a property that the shell's must not get.
            self._out = os.open(os.ttyname(self._fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError, AttributeError, termios.error):
            raise ConfigError(NO_TERMINAL) from None
        self._on_keys, self._on_gone = on_keys, on_gone
        self._lock = threading.Lock()
        self._line = ""
        self._open = True
        self._wake, self._awaken = os.pipe()
        self._previous: dict[int, Any] = {}
        atexit.register(self.close)
        for number, handler in {
            signal.SIGTSTP: self._suspend, signal.SIGCONT: self._resume, signal.SIGHUP: self._hang_up,
        }.items():  # fmt: skip
            self._previous[number] = signal.signal(number, handler)
        self._enter()
        self._thread = threading.Thread(target=self._read, name="keyboard", daemon=True)
        self._thread.start()

    def _enter(self) -> None:
        mode = termios.tcgetattr(self._fd)
        mode[LOCAL] &= ~(termios.ICANON | termios.ECHO)
        mode[INPUT] &= ~(termios.IXON | termios.ICRNL)  # Ctrl-S would stop the status line
        mode[CONTROL] = list(mode[CONTROL])
        mode[CONTROL][termios.VMIN], mode[CONTROL][termios.VTIME] = 1, 0
        mode[CONTROL][termios.VQUIT] = b"\x00"  # Ctrl-\ would end it without a chance to tidy up
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def _leave(self) -> None:
        with contextlib.suppress(termios.error, OSError):  # the terminal may be gone
            termios.tcsetattr(self._fd, termios.TCSANOW, self._was)

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                data = os.read(self._fd, 1024)
            except OSError:
                data = b""
            if not data:
                self._on_gone()
                return
            self._on_keys(data)

    # -- signals -------------------------------------------------------------------------------------------
    def _suspend(self, *_: object) -> None:
        self._write("\r\x1b[K")
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _resume(self, *_: object) -> None:
        if self._open:
            with contextlib.suppress(termios.error, OSError):
                self._enter()
            self._line = ""

    def _hang_up(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    # -- out -----------------------------------------------------------------------------------------------
    def status(self, line: str) -> None:
        """Redraw the line at the foot, cut to the terminal's width, if it changed."""
        try:
            width = os.get_terminal_size(self._out).columns
        except OSError:
            width = 80
        line = line[: max(width - 1, 20)]
        with self._lock:
            if line != self._line:
                self._line = line
                self._write(f"\r\x1b[K{line}")

    def say(self, text: str) -> None:
        """Write lines above the status line."""
        with self._lock:
            body = text.replace("\n", "\r\n")
            self._write(f"\r\x1b[K{body}\r\n{self._line}")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._out, text.encode())

    def close(self) -> None:
        """Give the terminal back as it was; may be called again."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        for number, handler in self._previous.items():
            with contextlib.suppress(ValueError):  # not in the main thread: the process ends anyway
                signal.signal(number, handler)
        self._write("\r\x1b[K")
        self._leave()
        os.write(self._awaken, b"x")
        self._thread.join(1.0)
        os.close(self._out)
