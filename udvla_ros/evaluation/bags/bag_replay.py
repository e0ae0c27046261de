"""Live against bag: each chunk computed again from the recorded messages has to be the chunk that was sent.

Images are decoded by the code that decodes them live, the commanded joints come out of the same history, and seed,
options and runtime are those that ``chunk_info`` tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import BundleError, UdvlaError
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.motion.action_space import reachable
from udvla_ros.policy import ActionChunk, Observation, Policy, contract
from udvla_ros.policy.observe import CommandHistory
from udvla_ros.rollouts.bags.episode import SAME_STAMP, RecordedEpisode, Trajectory, robot_of
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.topic import BagError

EQUAL = 1e-6  # rad: what JSON and nanoseconds may cost, and no more
SAME_COMMAND = 0.02  # rad between the command told and the one recorded: one late message of it
AROUND = 1.0  # s of commands about an observation
VERDICTS = ("equal", "different", "skipped")


def replay(folder: str | Path, bundle: str, robot: str = "", device: str = "cpu", threads: int = 0) -> dict[str, Any]:
    """Return the report of one episode: per chunk whether it is equal, and how far apart it is.

    Args:
        bundle: must be the one that the episode was recorded with.
        threads: of inference; 0: as recorded.

    Raises:
        BagError: the bag has no chunks, or they lack what is needed to compute them again.
        BundleError: another bundle.
    """
    with Bag(folder) as bag:
        description = robot_of(bag, robot)
        episode = RecordedEpisode(bag, description)
        chunks = episode.chunks
        if not chunks:
            raise BagError(f"'{folder}' has no policy_node/chunk_info; was the policy engaged?")
        lacking = sorted({"seed", "options", "image_stamps", "actions"} - set(chunks[0]))
        if lacking:
            raise BagError(f"'{folder}': chunk_info does not tell {', '.join(lacking)}; it cannot be computed again")
        policy = Policy.load(bundle, device=device, runtime=_runtime(chunks[0], threads))
        told = {chunk["bundle_hash"] for chunk in chunks}
        if told != {policy.hash}:
            raise BundleError(f"'{folder}' was recorded with bundle {', '.join(told)}; '{bundle}' is {policy.hash}")
        rows = list(_rows(episode, policy))
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    compared = counts["equal"] + counts["different"]
    return {
        "episode": str(folder),
        "bundle": {"name": policy.config.name, "hash": policy.hash},
        "device": device,
        "ok": compared > 0 and counts["different"] == 0,
        "compared": compared,
        **counts,
        "largest": max((row["largest"] for row in rows if row["largest"] is not None), default=None),
        "pictures_equal": sum(row["pictures_equal"] for row in rows),
        "pictures": sum(row["pictures"] for row in rows),
        "chunks": rows,
    }


def _runtime(chunk: Mapping[str, Any], threads: int) -> RuntimeOptions:
    told = {name: value for name, value in chunk.get("runtime", {}).items() if name != "device"}
    threads = threads or told.get("threads") or max(1, (os.cpu_count() or 2) - 1)
    return RuntimeOptions(**{**told, "threads": threads})


def _rows(episode: RecordedEpisode, policy: Policy) -> Iterator[dict[str, Any]]:
    robot = episode.robot
    space = contract.check(policy.config, robot)
    assert robot.gripper is not None  # the contract has been checked
    wanted = {
        name: np.array([chunk["image_stamps"][name] for chunk in episode.chunks if name in chunk["image_stamps"]])
        for name in policy.config.cameras
    }
    for name in wanted:
        topic = episode.camera_topic(name) or ""
        if topic.endswith("/compressed") and not robot.cameras[name]["topic"].endswith("/compressed"):
            raise BagError(
                f"'{episode.bag.folder}' has camera '{name}' as JPEG, and the policy saw raw images; "
                "record with images: raw"
            )
    images = episode.pictures(wanted)
    futures = {name: list(episode.predicted(name)) for name in policy.config.cameras}
    previous: ActionChunk | None = None
    number = -1
    for told in episode.chunks:
        row: dict[str, Any] = {
            "chunk": told["chunk"],
            "at": told["stamp"] - episode.bag.start * 1e-9,
            "verdict": "skipped",
            "reason": "",
            "largest": None,
            "command_apart": None,
            "pictures": 0,
            "pictures_equal": 0,
        }
        try:
            continued = bool(told.get("statistics", {}).get("continued"))
            if continued and (previous is None or told["chunk"] != number + 1):
                raise BagError("the plan in force that it was chosen by is a chunk that is not in the bag")
            sent = _sent(episode, told["stamp"])
            observation = Observation(
                {name: _image(images, name, stamp) for name, stamp in told["image_stamps"].items()},
                told["instruction"],
                told["stamp"],
            )
            commanded, row["command_apart"] = _commanded(episode, told)
            chunk = policy.infer(
                observation, _options(told["options"]), told["seed"], previous=previous if continued else None
            )
            targets = reachable(space, np.asarray(chunk.actions), commanded, len(sent.positions))
            again = np.hstack([targets.q, robot.gripper.position(targets.gripper)[:, None]])
            order = [sent.names.index(name) for name in robot.command_names]
            row["largest"] = float(np.abs(sent.positions[:, order] - again).max())
            same = row["largest"] <= EQUAL and row["command_apart"] <= SAME_COMMAND
            row["verdict"] = "equal" if same else "different"
            _compare_pictures(row, chunk.predicted, futures, told["stamp"] + told["horizon"])
            previous, number = chunk, told["chunk"]
        except (UdvlaError, ValueError) as error:
            row["reason"], previous = str(error), None
        yield row


def _options(told: Mapping[str, Any]) -> DecodeOptions:
    try:
        return DecodeOptions(**told)
    except TypeError as error:
        raise BagError(f"its decoding options are of another version ({error})") from error


def _sent(episode: RecordedEpisode, stamp: float) -> Trajectory:
    for trajectory in episode.trajectories:
        if abs(trajectory.stamp - stamp) <= SAME_STAMP:
            return trajectory
    raise BagError("its trajectory is not in the bag")


def _image(images: Mapping[str, Mapping[float, np.ndarray]], camera: str, stamp: float) -> np.ndarray:
    for known, image in images.get(camera, {}).items():
        if abs(known - stamp) <= SAME_STAMP:
            return image
    raise BagError(f"its image of camera '{camera}' is not in the bag")


def _commanded(episode: RecordedEpisode, told: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """Return the joints that the deltas start from, and how far the recorded commands are from what was told."""
    joints, size = episode.commanded, len(episode.robot.joints)
    stamp = told["stamp"]
    history = CommandHistory(size, seconds=2 * AROUND + 1.0)
    for k in np.flatnonzero(np.abs(joints.time - stamp) < AROUND):
        history.add(float(joints.time[k]), joints.position[k, :size])
    recorded = history.at(stamp)
    if told.get("commanded") is None:
        return recorded, 0.0
    known = np.asarray(told["commanded"], float)
    return known, float(np.abs(known - recorded).max())


def _compare_pictures(
    row: dict[str, Any],
    predicted: Mapping[str, np.ndarray],
    futures: Mapping[str, list[tuple[float, float, np.ndarray]]],
    due: float,
) -> None:
    for name, image in predicted.items():
        for stamp, _, recorded in futures.get(name, ()):
            if abs(stamp - due) <= SAME_STAMP:
                row["pictures"] += 1
                row["pictures_equal"] += int(np.array_equal(image, recorded))
                break
