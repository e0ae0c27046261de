"""Units, signs and pictures of other people's data, as the bundle states them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from udvla_ros.errors import BundleError, ObservationError
from udvla_ros.model.checkpoint import ActionConvention, ImageConvention
from udvla_ros.policy.convention import binarised, conventional, fitted, physical
from udvla_ros.released.settings import SETTINGS
from udvla_ros.tokens.layout import View

FULL = np.array([[1.0, -1.0, 0.5, 0.2, -0.4, 1.0, 0.9]])


@pytest.mark.parametrize(
    ("data", "metres", "radians"), [("libero", 0.05, 0.5), ("calvin", 0.02, 0.05), ("bridge", 1.0, 1.0)]
)
def test_units(data, metres, radians):
    action = SETTINGS[data].action
    moved = physical(FULL, action)[0]
    np.testing.assert_allclose(moved[:3], metres * FULL[0, :3], rtol=1e-6)
    turned = Rotation.from_rotvec(moved[3:6])
    same = Rotation.from_rotvec if data == "libero" else lambda a: Rotation.from_euler("xyz", a)
    assert (turned.inv() * same(radians * FULL[0, 3:6])).magnitude() < 1e-6
    assert {"libero": 20.0, "calvin": 30.0, "bridge": 5.0}[data] == action.control_hz


@pytest.mark.parametrize(("data", "raw", "native", "arm"), [
    ("libero", 0.1, 1, 1), ("libero", -0.1, -1, -1), ("libero", 0.0, -1, -1),  # above 0 closes
    ("calvin", 0.1, 1, -1), ("calvin", -0.1, -1, 1),  # above 0 opens
    ("bridge", 0.6, 1, -1), ("bridge", 0.4, 0, 1),  # above a half opens
])  # fmt: skip
def test_gripper(data, raw, native, arm):
    action = SETTINGS[data].action
    values = binarised(np.full((1, 7), raw), action)
    assert values[0, 6] == native and values[0, 0] == np.float32(raw)
    assert physical(values, action)[0, 6] == arm


@pytest.mark.parametrize("data", ["libero", "calvin", "bridge"])
def test_there_and_back(data):
    action = SETTINGS[data].action
    told = binarised(np.random.default_rng(0).uniform(-1, 1, (50, 7)).astype(np.float32), action)
    np.testing.assert_allclose(conventional(physical(told, action), action), told, atol=1e-5)
    many = physical(told, action).reshape(5, 10, 7)
    np.testing.assert_allclose(conventional(many, action).reshape(50, 7), told, atol=1e-5)


def test_bicubic_is_pils_and_turned_is_by_180_degrees():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    view = View("front", 200, 200, 25, 25)
    by_pil = np.asarray(Image.fromarray(image).resize((200, 200), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fitted(image, view, ImageConvention("bicubic")), by_pil)
    turned = ImageConvention("bicubic", turned=True)
    np.testing.assert_array_equal(fitted(image[::-1, ::-1], view, turned), by_pil)
    np.testing.assert_array_equal(fitted(image, view, turned, prepared=True), by_pil)
    assert (fitted(image, view) != by_pil).any()


def test_another_aspect_is_squashed_where_the_data_was():
    image, view = np.zeros((480, 640, 3), np.uint8), View("front", 200, 200, 25, 25)
    with pytest.raises(ObservationError, match="640x480"):
        fitted(image, view, ImageConvention("bicubic"))
    assert fitted(image, view, SETTINGS["bridge"].images).shape == (200, 200, 3)


@pytest.mark.parametrize("wrong", [{"scale": (1.0,)}, {"scale": (0.0,) * 7}, {"rotation": "quaternion"}])
def test_conventions_nobody_knows_are_refused(wrong):
    with pytest.raises(BundleError, match=f"action's {next(iter(wrong))}"):
        dataclasses.replace(ActionConvention(), **wrong)
    with pytest.raises(BundleError, match="resize is 'lanczos'"):
        ImageConvention("lanczos")
