"""Between the data a bundle was trained on and this world: pictures in, numbers out (see ``ActionConvention``)."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from udvla_ros.errors import ObservationError
from udvla_ros.model.checkpoint import ActionConvention, ImageConvention
from udvla_ros.rollouts.frames import portion
from udvla_ros.tokens.layout import View

AS_TRAINED_HERE = ImageConvention()


def binarised(actions: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Return actions ``[K, D]`` in the data's units with the gripper at one of its two values."""
    actions = np.array(actions, np.float32)
    if action.gripper is not None:
        low = 2 * action.gripper_threshold - 1
        actions[:, action.gripper] = np.where(actions[:, action.gripper] > action.gripper_threshold, 1.0, low)
    return actions


def physical(actions: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Return binarised actions ``[K, D]`` of the data as the arm takes them: m, rotation vectors in rad, 1 closes."""
    actions = np.array(actions, np.float32)
    if action.gripper is not None:
        above = actions[:, action.gripper] > action.gripper_threshold
        actions[:, action.gripper] = np.where(above != action.gripper_opens, 1.0, -1.0)
    if action.scale:
        actions *= np.asarray(action.scale, np.float32)
    if action.space == "tcp_delta" and action.rotation == "euler_xyz":
        actions[:, 3:6] = Rotation.from_euler("xyz", actions[:, 3:6]).as_rotvec()
    return actions


def conventional(actions: np.ndarray, action: ActionConvention) -> np.ndarray:
    """Return actions ``[..., D]`` of the arm in the data's numbers: the inverse of :func:`physical`."""
    actions = np.array(actions, np.float32)
    if action.space == "tcp_delta" and action.rotation == "euler_xyz":
        turns = Rotation.from_rotvec(actions[..., 3:6].reshape(-1, 3)).as_euler("xyz")
        actions[..., 3:6] = turns.reshape(actions[..., 3:6].shape)
    if action.scale:
        actions /= np.asarray(action.scale, np.float32)
    if action.gripper is not None:
        closes = actions[..., action.gripper] > 0
        actions[..., action.gripper] = np.where(closes != action.gripper_opens, 1.0, 2 * action.gripper_threshold - 1)
    return actions


def fitted(
    image: np.ndarray | None, view: View, images: ImageConvention = AS_TRAINED_HERE, prepared: bool = False
) -> np.ndarray:
    """Return a camera's image as the view wants it.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        view: the size.
        images: the bundle's rule.
        prepared: the image is turned already where the rule turns it (benchmarks send it so).

    Raises:
        ObservationError: no image, or not uint8 RGB, or of another aspect ratio than the view's by over 2% where the
            rule does not squash it.
    """
    if image is None:
        raise ObservationError(f"no image of camera {view.name}; the bundle needs it")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ObservationError(
            f"camera {view.name} gave {image.dtype} {image.shape}; convert it to uint8 RGB [H, W, 3]"
        )
    if images.turned and not prepared:
        image = image[::-1, ::-1]
    image = np.ascontiguousarray(portion(image, images.crops.get(view.name, ())))
    height, width = image.shape[:2]
    if (height, width) == (view.height, view.width):
        return image
    if not images.squash and abs(height * view.width - width * view.height) > 0.02 * width * view.height:
        raise ObservationError(
            f"camera {view.name} is {width}x{height} and the bundle wants the shape of "
            f"{view.width}x{view.height}; write fit: crop (or pad, stretch) under cameras.{view.name} in the robot file"
        )
    if images.resize == "bicubic":
        return np.asarray(Image.fromarray(image).resize((view.width, view.height), Image.Resampling.BICUBIC))
    shrink = height >= view.height
    return cv2.resize(image, (view.width, view.height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
