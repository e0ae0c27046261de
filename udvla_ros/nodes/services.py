"""Service calls that outlive a lost answer.

DDS finds the two directions of a service one after the other: a server that has just started may take a request before
it knows where its answer goes, and the answer is lost. So a call that stays unanswered is made again; what is called
this way must mean the same twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PATIENCE = 10.0  # s for one answer: longer than any of our services takes
ATTEMPTS = 3


def ask(client: Any, request: Any, until: Callable[[Callable[[], bool], float], object]) -> Any:
    """Return the answer of a service, or None where none came.

    Args:
        client: of a service that is ready.
        until: spins until a condition holds or that many seconds have gone.
    """
    for _ in range(ATTEMPTS):
        future = client.call_async(request)
        until(future.done, PATIENCE)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
    return None
