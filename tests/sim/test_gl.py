"""OpenGL is chosen before MuJoCo is imported, and its absence is one line."""

import os
import subprocess
import sys
from ctypes.util import find_library

import pytest

from udvla_ros.sim import gl


@pytest.mark.parametrize(
    ("environ", "libraries", "platform", "expected"),
    [
        ({}, {"EGL", "OSMesa"}, "linux", "egl"),
        ({}, {"OSMesa"}, "linux", "osmesa"),
        ({}, set(), "linux", "disabled"),
        ({"DISPLAY": ":0"}, {"EGL"}, "linux", ""),
        ({"WAYLAND_DISPLAY": "wayland-0"}, {"EGL"}, "linux", ""),
        ({"MUJOCO_GL": "osmesa", "DISPLAY": ":0"}, {"EGL"}, "linux", "osmesa"),
        ({}, set(), "darwin", ""),
    ],
)
def test_choice(environ, libraries, platform, expected):
    assert gl.choose(environ, lambda name: name if name in libraries else None, platform) == expected


def test_no_opengl_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(gl.RenderError, match="apt install") as caught:
        gl.make_context(64, 64)
    assert "\n" not in str(caught.value)


def test_failing_context_names_backend_and_packages(monkeypatch):
    def broken(width, height):
        raise OSError("no device\nmore")

    monkeypatch.setattr(gl.mujoco, "GLContext", broken, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(gl.RenderError, match=r"MUJOCO_GL=egl .*no device.*apt install") as caught:
        gl.make_context(64, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("backend", "library"), [("egl", "EGL"), ("osmesa", "OSMesa")])
def test_backends_render_headless(backend, library):
    if not find_library(library):
        pytest.skip(f"lib{library} is not installed")
    script = (
        "from udvla_ros.sim.world import TabletopWorld\n"
        "w = TabletopWorld()\n"
        "print('max', max(int(i.max()) for i in w.render().values()))\n"
        "w.close()\n"
    )
    environ = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "PYOPENGL_PLATFORM")}
    environ["MUJOCO_GL"] = backend
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 200
