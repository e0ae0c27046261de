"""Several data sets as one, where they mean the same by the same numbers."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.actions import difference

COUNTS = ("episodes_per_task", "outcomes", "steps_by", "robots")
SUMS = ("episodes", "frames", "actions", "labels", "shards")


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write one data set of several and return its description; an ``out`` that is one grows by the others.

    Files are linked where the disk allows, else copied.

    Raises:
        DatasetError: cameras, sizes or actions differ, or ``out`` holds something else.
    """
    if out.exists() and any(out.iterdir()):
        if not (out / disk.DESCRIPTION).is_file():
            raise disk.DatasetError(f"'{out}' holds something else; name a new folder or a data set to append to")
        folders = [out, *folders]
    told = agreed(folders)
    out.mkdir(parents=True, exist_ok=True)
    number = len(list(out.glob("shard-*.npz")))
    for folder in folders:
        if folder == out:
            continue
        for path in disk.shard_paths(folder):
            _place(path, out / f"shard-{number:05d}.npz")
            number += 1
    made = {**told[0], "source": "merged", "merged": [str(f) for f in folders]}
    for key in COUNTS:
        counts: Counter[str] = Counter()
        for description in told:
            counts.update(description.get(key, {}))
        made[key] = dict(counts)
    made |= {key: sum(int(d.get(key, 0)) for d in told) for key in SUMS}
    made["shards"] = number
    text = json.dumps(made, indent=2).encode()
    disk.write_atomically(out / disk.DESCRIPTION, lambda handle: handle.write(text))
    return made


def agreed(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the descriptions of data sets that mean the same by the same numbers.

    Raises:
        DatasetError: cameras, sizes or actions differ.
    """
    told = [disk.read_description(folder) for folder in folders]
    for folder, other in zip(folders[1:], told[1:], strict=True):
        if other["cameras"] != told[0]["cameras"]:
            raise disk.DatasetError(
                f"'{folders[0]}' has cameras {told[0]['cameras']}, '{folder}' {other['cameras']}; export both with the "
                "same --camera and --size"
            )
        apart = difference(told[0].get("action", {}), other.get("action", {}))
        if apart or told[0]["control_hz"] != other["control_hz"]:
            raise disk.DatasetError(f"'{folders[0]}' and '{folder}' differ in {apart or 'control_hz'}")
    return told


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
