"""Which OpenGL MuJoCo renders with, decided before MuJoCo is first imported.

MuJoCo reads ``MUJOCO_GL`` once, at import. Without a display its default (GLFW) cannot work, so a machine
without one gets EGL, or OSMesa where EGL's library is absent. A value set by the user always stands.
Every module of this room imports MuJoCo from here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ctypes.util import find_library

from udvla_ros.errors import UdvlaError

MEND = "install it with: apt install libegl1 libgl1-mesa-dri libosmesa6"


class RenderError(UdvlaError):
    """No way to render: OpenGL is missing, or its context cannot be made."""


def choose(environ: Mapping[str, str], has_library=find_library, platform: str = sys.platform) -> str:
    """Return the value for ``MUJOCO_GL``, or an empty string to leave MuJoCo's default.

    Args:
        environ: the process environment (``MUJOCO_GL``, ``DISPLAY``, ``WAYLAND_DISPLAY`` are read).
        has_library: finds a shared library by name; replaced in tests.
        platform: as ``sys.platform``; only Linux needs a choice.
    """
    if environ.get("MUJOCO_GL"):
        return environ["MUJOCO_GL"]
    if platform != "linux" or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return ""
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if has_library(library):
            return name
    return "disabled"


if _choice := choose(os.environ):
    os.environ["MUJOCO_GL"] = _choice
    if _choice in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", _choice)

try:
    import mujoco
except ModuleNotFoundError:
    raise
except (ImportError, AttributeError) as error:  # how PyOpenGL reports a library that is broken
    _reason = f"OpenGL through MUJOCO_GL={os.environ.get('MUJOCO_GL', 'default')} cannot be loaded ({error})"
    raise RenderError(f"{_reason}; {MEND}") from error


def make_context(width: int, height: int):
    """Return a current OpenGL context of at least the given size in pixels.

    Raises:
        RenderError: neither EGL nor OSMesa works here.
    """
    if os.environ.get("MUJOCO_GL") == "disabled":
        raise RenderError(f"no display, and neither EGL nor OSMesa is installed; {MEND}")
    try:
        context = mujoco.GLContext(width, height)
        context.make_current()
    except Exception as error:  # the backends raise half a dozen unrelated types
        backend = os.environ.get("MUJOCO_GL", "default")
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RenderError(f"OpenGL through MUJOCO_GL={backend} does not start ({first}); {MEND}") from error
    return context


__all__ = ["MEND", "RenderError", "choose", "make_context", "mujoco"]
