"""Can every recorded picture be decoded, as the policy's are, and are they all of one size?"""

from __future__ import annotations

from udvla_ros.rollouts.bags.episode import RecordedEpisode
from udvla_ros.rollouts.bags.findings import CheckReport
from udvla_ros.rollouts.bags.topic import BagError


def check_pictures(episode: RecordedEpisode, report: CheckReport) -> dict[str, tuple[int, int]]:
    """Return each recorded camera's size (height, width); what is wrong goes into the report."""
    found: dict[str, tuple[int, int]] = {}
    for camera in episode.robot.cameras:
        if episode.camera_topic(camera) is None:
            continue  # told of with the topics
        try:
            sizes = {picture.shape[:2] for _, picture in episode.frames(camera)}
        except BagError as error:
            report.error("picture", str(error))
            continue
        if len(sizes) > 1:
            said = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            report.error("picture", f"camera {camera} changes its size: {said}; was it published twice?")
        elif sizes:
            found[camera] = sizes.pop()
    return found
