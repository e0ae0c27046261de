"""The published settings as data: what a checkpoint's files do not say of themselves.

Sizes, lengths and rates are those of the released code and of arXiv 2511.01718; ``docs/benchmarks.md`` says which were
verified. Camera names are ours, in the order in which the weights see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import ActionConvention, ImageConvention


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        data: name of its data, which ``norm_stats.json`` begins with.
        views: (height, width) in pixels by camera, one code for 8 x 8.
        action_slots: codes and EOA, not BOA.
        text_slots: BOS and the longest instruction; longer ones are refused.
        action, images: its conventions; the chunk is the one of its published FAST tokeniser.
        steps: denoising steps that the public evaluation takes.
    """

    data: str
    views: Mapping[str, tuple[int, int]]
    action_slots: int
    action: ActionConvention
    images: ImageConvention
    steps: int = 72
    text_slots: int = 40


BOTH = {"front": (200, 200), "wrist": (80, 80)}
SETTINGS = {
    setting.data: setting
    for setting in (
        Setting(
            "calvin", BOTH, 69,
            ActionConvention(
                chunk=10, control_hz=30.0, gripper_opens=True, scale=(0.02,) * 3 + (0.05,) * 3 + (1.0,),
                rotation="euler_xyz",
            ),
            ImageConvention("bicubic"),
        ),
        Setting(
            "libero", BOTH, 69,
            ActionConvention(chunk=10, control_hz=20.0, scale=(0.05,) * 3 + (0.5,) * 3 + (1.0,)),
            ImageConvention("bicubic", turned=True),
        ),
        Setting(
            "bridge", {"front": (200, 200)}, 71,
            ActionConvention(
                chunk=10, control_hz=5.0, gripper_threshold=0.5, gripper_opens=True, rotation="euler_xyz"
            ),
            ImageConvention("bicubic", squash=True), steps=96,
        ),
    )
}  # fmt: skip


def setting_of(name: str | None, data: str) -> Setting:
    """Return the setting that is asked for, or else the one whose data the normaliser names.

    Raises:
        ConfigError: there is none of that name, or the normaliser is another one's.
    """
    found = next((key for key in SETTINGS if data.startswith(key)), None)
    if name is None and found is None:
        raise ConfigError(f"norm_stats.json is of data '{data}'; say --setting {', '.join(SETTINGS)}")
    if name is not None and name not in SETTINGS:
        raise ConfigError(f"unknown setting '{name}'; known: {', '.join(SETTINGS)}")
    if None not in (name, found) and name != found:
        raise ConfigError(
            f"setting {name} with norm_stats.json of '{data}': actions would have {found}'s ranges; give {name}'s"
        )
    return SETTINGS[name or found or ""]
