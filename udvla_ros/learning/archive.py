"""Training elsewhere: one archive out, one command there, one folder back."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from udvla_ros.errors import ConfigError
from udvla_ros.learning.plan import LearnOptions

PARTS = ("data", "held_out", "plan.json")


def pack(out: Path, parent: Path, archive: Path) -> Path:
    """Write what a prepared folder needs to be trained elsewhere: data, held-out episodes, plan and parent."""
    beside = archive.with_name(f".{archive.name}.part")
    with tarfile.open(beside, "w:gz") as tar:
        for name in PARTS:
            if (out / name).exists():
                tar.add(out / name, arcname=name)
        tar.add(parent, arcname="parent")
    beside.replace(archive)
    return archive


def unpack(archive: Path, out: Path) -> tuple[Path, LearnOptions]:
    """Unpack into the folder and return the parent's and the plan's options.

    Raises:
        ConfigError: the file is no such archive.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            names = {name.split("/")[0] for name in tar.getnames()}
            if not {"data", "parent", "plan.json"} <= names:
                raise ConfigError(f"{archive} is not an archive of `udvla learn --pack`; it holds {sorted(names)}")
            tar.extractall(out, filter="data")
        values = json.loads((out / "plan.json").read_text(encoding="utf-8"))
        for name in ("cameras", "rehearse", "settings"):
            values[name] = tuple(values[name])
        return out / "parent", LearnOptions(**values)
    except (OSError, tarfile.TarError, ValueError, TypeError) as error:
        shutil.rmtree(out / "parent", ignore_errors=True)
        raise ConfigError(f"{archive} cannot be unpacked: {error}; copy it again") from error
