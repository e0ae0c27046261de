"""Where shipped files (``config/``, ``models/``, ``launch/``) live in each way of installing.

A checkout keeps them beside the package, ``pip install`` puts them under ``share/udvla_ros`` of the
environment, and a colcon build under ``share/udvla_ros`` of an ament prefix. One function knows all three.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from udvla_ros.errors import ConfigError

PACKAGE = "udvla_ros"


def roots() -> list[Path]:
    """Return the folders that may hold shipped files, nearest first."""
    checkout = Path(__file__).resolve().parents[1]
    found = [checkout] if (checkout / "package.xml").is_file() else []
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    found += [Path(prefix) / "share" / PACKAGE for prefix in [*prefixes, sys.prefix]]
    return [root for root in found if root.is_dir()]


def find(relative: str | Path) -> Path:
    """Return the path of a shipped file or folder, such as ``config/robots/ur5e.yaml``.

    An existing path (absolute, or relative to the working directory) is taken as it is, so that a
    user's own file always wins over a shipped one.

    Raises:
        ConfigError: nothing of that name exists; the message lists where it was looked for.
    """
    given = Path(relative).expanduser()
    if given.exists():
        return given.resolve()
    for root in roots():
        if (root / given).exists():
            return root / given
    places = ", ".join(str(root) for root in roots()) or "no share folder found"
    raise ConfigError(f"'{relative}' does not exist; looked in the working directory and in: {places}")
