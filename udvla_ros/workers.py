"""Processes that share out work, and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def worker_pool(count: int, start: Callable[..., None] | None = None, *args: Any) -> ProcessPoolExecutor:
    """Return a pool of ``count`` processes, in each of which ``start(*args)`` was called.

    They are spawned, since neither OpenGL nor torch survives a fork. A worker of the library outlives a parent that was
    killed, and waits for work for ever; these do not.
    """
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin, (start, args))


def _begin(start: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, name="end_with_parent", daemon=True).start()
    if start is not None:
        start(*args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody is left to hear an exception, or to take a result
