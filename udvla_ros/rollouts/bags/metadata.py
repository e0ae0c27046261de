"""``metadata.yaml`` of a rosbag2 folder, both ways (version 9, ROS 2 Jazzy)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from udvla_ros.rollouts.bags.topic import METADATA, BagError, Topic

VERSION = 9
DISTRO = "jazzy"
# What rosbag2 wrote as numbers up to version 8.
POLICIES: dict[str, dict[int, str]] = {
    "history": {0: "system_default", 1: "keep_last", 2: "keep_all", 3: "unknown"},
    "reliability": {0: "system_default", 1: "reliable", 2: "best_effort", 3: "unknown", 4: "best_available"},
    "durability": {0: "system_default", 1: "transient_local", 2: "volatile", 3: "unknown", 4: "best_available"},
    "liveliness": {0: "system_default", 1: "automatic", 3: "manual_by_topic", 4: "unknown", 5: "best_available"},
}


@dataclass
class Storage:
    """One MCAP file of a bag."""

    path: str
    start: int
    duration: int
    count: int


@dataclass
class BagMetadata:
    """What ``metadata.yaml`` tells; times in ns."""

    topics: list[Topic]
    files: list[Storage]
    start: int
    duration: int
    count: int
    custom: dict[str, str] = field(default_factory=dict)
    distro: str = DISTRO


def profiles(text: str) -> list[dict[str, Any]]:
    """Return the QoS profiles of a channel's ``offered_qos_profiles``, policies by name; none of what is no such."""
    try:
        found = yaml.safe_load(text) if text else []
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return []
    return [
        {key: POLICIES[key].get(value, "unknown") if key in POLICIES and isinstance(value, int) else value
         for key, value in profile.items()}
        for profile in (found if isinstance(found, list) else []) if isinstance(profile, dict)
    ]  # fmt: skip


def write(folder: Path, told: BagMetadata) -> Path:
    """Write ``metadata.yaml`` atomically and return its path."""
    span = {"duration": {"nanoseconds": told.duration}, "starting_time": {"nanoseconds_since_epoch": told.start}}
    information = {
        "version": VERSION,
        "storage_identifier": "mcap",
        **span,
        "message_count": told.count,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": profiles(topic.qos),
                    "type_description_hash": topic.type_hash,
                },
                "message_count": topic.count,
            }
            for topic in told.topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.path for file in told.files],
        "files": [
            {
                "path": file.path,
                "starting_time": {"nanoseconds_since_epoch": file.start},
                "duration": {"nanoseconds": file.duration},
                "message_count": file.count,
            }
            for file in told.files
        ],
        "custom_data": dict(told.custom),
        "ros_distro": told.distro,
    }
    path = Path(folder) / METADATA
    beside = path.with_name(f".{METADATA}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as handle:
            yaml.safe_dump({"rosbag2_bagfile_information": information}, handle, sort_keys=False)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read(folder: Path) -> BagMetadata:
    """Read ``metadata.yaml``.

    Raises:
        BagError: it is missing, or not of a rosbag2.
    """
    path = Path(folder) / METADATA
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        topics = []
        for row in found["topics_with_message_count"]:
            told = row["topic_metadata"]
            qos = told.get("offered_qos_profiles") or ""
            text = qos if isinstance(qos, str) else yaml.safe_dump(qos)
            topics.append(
                Topic(
                    str(told["name"]), str(told["type"]), text, str(told.get("type_description_hash", "")),
                    int(row["message_count"]),
                )
            )
        return BagMetadata(
            topics=topics,
            files=[
                Storage(
                    str(f["path"]), int(f["starting_time"]["nanoseconds_since_epoch"]),
                    int(f["duration"]["nanoseconds"]), int(f["message_count"]),
                )
                for f in found.get("files") or []
            ],
            start=int(found["starting_time"]["nanoseconds_since_epoch"]),
            duration=int(found["duration"]["nanoseconds"]),
            count=int(found["message_count"]),
            custom={str(k): str(v) for k, v in (found.get("custom_data") or {}).items()},
            distro=str(found.get("ros_distro", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise BagError(f"'{path}' cannot be read ({cause}): udvla bag repair {folder}") from error
