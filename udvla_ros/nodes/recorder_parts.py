"""The parameters of ``recorder_node``, where its folders go, and the one question that it asks another node."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from udvla_ros import __version__
from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes.parameters import Entry
from udvla_ros.rollouts.bags.labels import Labels

TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file: names the topics", read_only=True),
    Entry("record_dir", "runs/bags", "folder in which each episode gets a folder", read_only=True),
    Entry(
        "images", "raw", "of the cameras: as published, or JPEG (<camera>/compressed where published, else made here)",
        choices=("raw", "compressed"), read_only=True,
    ),
    Entry("jpeg_quality", 90, "of JPEGs made here", 1, 100, read_only=True),
    Entry("compression", "lz4", "of everything but images", choices=("lz4", "none"), read_only=True),
    Entry("extra_topics", "", "more topics, separated by commas", read_only=True),
    Entry(
        "auto", False,
        "record from 1 s before the policy is engaged until the arbiter stops or has held for settle s",
    ),
    Entry("settle", 1.0, "s in HOLD after which an automatic episode is over", 0.0, 60.0, read_only=True),
    Entry("snapshot_seconds", 10.0, "kept for ~/snapshot; 0: none", 0.0, 600.0, read_only=True),
    Entry("snapshot_mb", 256, "of memory for it at most; images are forgotten first", 1, 65536, read_only=True),
    Entry("queue_mb", 64, "of memory for what waits for the disk; beyond, messages are dropped", 1, 65536),
    Entry("min_free_mb", 500, "of the disk that must stay free; below it, recording stops", 0, 1_000_000),
)  # fmt: skip


def fixed_labels(robot: RobotDescription, values: Mapping[str, Any], resolve: Callable[[str], str]) -> dict[str, str]:
    """Return the labels that all episodes of this node share."""
    return {
        "recorder": f"udvla_ros {__version__}",
        "robot": values["robot"],
        "robot_name": robot.name,
        "robot_hash": hashlib.sha256(robot.path.read_bytes()).hexdigest(),
        "images": values["images"],
        # Cameras may have been remapped; readers know them by the names of the robot file.
        "topics": json.dumps({c["topic"]: resolve(c["topic"]) for c in robot.cameras.values()}),
    }


class DecoderQuestion:
    """Asks the policy for its parameters: the answer comes while the episode runs, or not at all."""

    def __init__(self, node: Node) -> None:
        self._list = node.create_client(ListParameters, "policy_node/list_parameters")
        self._get = node.create_client(GetParameters, "policy_node/get_parameters")

    def ask(self, labels: Labels) -> None:
        """Ask, if there is a policy; the answer goes into the labels."""
        if not self._list.service_is_ready():
            return

        def listed(future: Any) -> None:
            names = list(future.result().result.names)

            def told(answer: Any) -> None:
                values = map(parameter_value_to_python, answer.result().values)
                labels.decoder = dict(zip(names, values, strict=False))

            self._get.call_async(GetParameters.Request(names=names)).add_done_callback(told)

        self._list.call_async(ListParameters.Request()).add_done_callback(listed)


def free_folder(directory: Path, ending: str = "") -> Path:
    """Return the path of a new episode, named by its time."""
    stem = time.strftime("%Y-%m-%d_%H-%M-%S") + ending
    for number in range(1000):
        folder = directory / (f"{stem}-{number}" if number else stem)
        if not folder.exists():
            return folder
    raise UdvlaError(f"{directory} has a thousand episodes of this second; is the clock right?")


def free(directory: Path) -> int:
    """Return the bytes free where a folder is, or will be."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free


def check_room(directory: Path, needed: int) -> None:
    """Raise UdvlaError where fewer than ``needed`` MB are free for a folder."""
    room = free(directory) >> 20
    if room < needed:
        raise UdvlaError(f"{room} MB free for {directory}, less than min_free_mb ({needed}); free some space")
