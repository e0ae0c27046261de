"""What was measured, one JSON line each, so that a run that was ended goes on where it was.

A line counts again only under the very same key: weights, options, scenes, how it ran; times also under the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def key(**what: Any) -> str:
    """Return a short name for exactly this measurement."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def machine() -> dict[str, Any]:
    """Return what a key of times has to say of where they were taken."""
    return {"machine": platform.node(), "cores": os.cpu_count()}


class Store:
    """Lines of results in a file."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        if fresh:
            path.unlink(missing_ok=True)
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry["result"]
                except (ValueError, KeyError, TypeError):  # a run was ended in the middle of a line
                    continue

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a result, or None where it has not been measured."""
        return self._known.get(name)

    def put(self, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a result, on disk at once."""
        self._known[name] = dict(result)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")
            file.write(json.dumps({"key": name, "result": self._known[name]}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return self._known[name]


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    last = file.read(1)
    file.seek(0, os.SEEK_END)
    return bool(last == b"\n")
