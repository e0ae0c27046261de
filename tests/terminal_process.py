"""A process at a terminal of its own: a pseudo-terminal that a test types into and reads."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
LOCAL = 3  # of what tcgetattr returns


class TerminalProcess:
    """``python *arguments`` with a pseudo-terminal as its controlling one."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], columns: int = 200) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        clean = {name: value for name, value in env.items() if name != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
        self.before = termios.tcgetattr(slave)
        self.popen = subprocess.Popen(
            [sys.executable, *arguments], env=clean, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._slave = slave  # kept open: the terminal outlives the process, as a window does
        self._text: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                return
            self._text.append(data.decode(errors="replace"))

    @property
    def text(self) -> str:
        """Everything that was shown, without the escape sequences."""
        return ESCAPES.sub("\n", "".join(self._text))

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._master, data)

    def restored(self) -> bool:
        """Return whether the terminal is as it was before the process."""
        return termios.tcgetattr(self._slave) == self.before

    def raw(self) -> bool:
        """Return whether keys come at once and unseen."""
        return not termios.tcgetattr(self._slave)[LOCAL] & (termios.ICANON | termios.ECHO)

    def close(self) -> None:
        """End the process and close the terminal."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(10)
        os.close(self._slave)
        os.close(self._master)
