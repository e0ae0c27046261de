"""Render several cameras of one MuJoCo model with one OpenGL context.

``mujoco.Renderer`` makes a context and a framebuffer per image size; one context with a viewport per camera
costs less, and closing it is explicit.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from udvla_ros.sim.gl import make_context, mujoco
from udvla_ros.sim.scene import Camera


class Renderer:
    """Off-screen views of a model.

    Args:
        model: compiled model whose camera names are the keys of ``cameras``.
        cameras: image size of each view. The largest that fits is the model's ``vis.global_`` buffer.
        hidden: groups of geoms that are not drawn.

    Raises:
        RenderError: OpenGL does not start.
    """

    def __init__(self, model: mujoco.MjModel, cameras: dict[str, Camera], hidden: Sequence[int] = ()) -> None:
        self._model = model
        self._gl = make_context(model.vis.global_.offwidth, model.vis.global_.offheight)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=max(200, 2 * (model.ngeom + model.nsite)))
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[list(hidden)] = 0
        self._free = weakref.finalize(self, _free, self._context, self._gl)  # at exit too, before OpenGL goes
        self._views = {}
        for name, size in cameras.items():
            view = mujoco.MjvCamera()
            view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
            self._views[name] = (view, size)

    def render(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """Return the views as uint8 RGB [H, W, 3], first row at the top."""
        self._gl.make_current()
        images = {}
        for name, (view, size) in self._views.items():
            factor = size.supersample
            rect = mujoco.MjrRect(0, 0, size.width * factor, size.height * factor)
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            mujoco.mjr_render(rect, self._scene, self._context)
            image = np.empty((rect.height, rect.width, 3), np.uint8)
            mujoco.mjr_readPixels(image, None, rect, self._context)
            images[name] = _shrink(image[::-1], factor)  # OpenGL's first row is the bottom
        return images

    def close(self) -> None:
        """Free the context; safe to call twice."""
        self._free()


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return image.copy()
    height, width = image.shape[0] // factor, image.shape[1] // factor
    tiles = image.reshape(height, factor, width, factor, 3).astype(np.uint16)
    return ((tiles.sum(axis=(1, 3)) + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def _free(context: mujoco.MjrContext, gl: mujoco.GLContext) -> None:
    gl.make_current()
    context.free()
    gl.free()
