"""A training's folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from udvla_ros.errors import ConfigError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for a block: two trainings in one folder would overwrite each other's checkpoints.

    The claim ends with the process, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    with (folder / ".claim").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"{folder}: process {file.read().strip() or 'unknown'} is training there; wait for it, end it, or give "
                "another --output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
