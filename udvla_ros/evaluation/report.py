"""Where a command leaves its results: ``runs/<command>/<time>/`` with a link ``latest`` beside it."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any


def run_folder(command: str, out: Path | None = None, root: Path = Path("runs")) -> Path:
    """Return a new folder for one run and point ``latest`` at it; ``out`` is taken as it is, without a link.

    Two runs in the same second get different folders; a real folder called ``latest`` is left alone.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    parent = root / command
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    for count in range(1000):
        folder = parent / (stem if not count else f"{stem}-{count}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    link = parent / "latest"
    if link.is_symlink() or not link.exists():
        beside = parent / f".latest-{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder.name)
        beside.replace(link)  # never a moment without the link
    return folder


def write_report(path: Path, report: dict[str, Any]) -> Path:
    """Write a report as JSON; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def command_line() -> str:
    """Return the command of this process as one would type it."""
    return shlex.join(["udvla", *sys.argv[1:]])
