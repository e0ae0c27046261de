"""A stand-in for a node: no ROS, says that it is ready, then does what its parameters tell it."""

from __future__ import annotations

import signal
import sys

from udvla_ros.bringup import READY

BEHAVIOUR = next((a.split(":=")[1].strip('"') for a in sys.argv if a.startswith("behaviour:=")), "")


def main() -> int:
    """Follow the behaviour named on the command line."""
    if BEHAVIOUR == "fail":
        print("no camera on /front", flush=True)
        return 3
    if BEHAVIOUR == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if BEHAVIOUR in ("polite", "once"):
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if BEHAVIOUR != "mute":
        print(READY, "here", flush=True)
    if BEHAVIOUR == "die":
        return 7
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
