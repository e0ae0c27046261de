"""``python -m udvla_ros`` is the ``udvla`` command."""

from __future__ import annotations

import sys

from udvla_ros.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
