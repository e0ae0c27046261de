"""Make a bag whole again after a kill, a full disk or a power cut.

The original file is kept beside the repaired one as ``*.mcap.broken``. What could not be saved is reported, never
papered over: a repaired bag's ``outcome`` is what was known, ``interrupted`` where nobody had said. Labels that the
recorder takes from messages are taken from them here.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Attachment, Channel, Message, Metadata, Schema
from mcap.writer import CompressionType, Writer

from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.labels import TOLD, Labels
from udvla_ros.rollouts.bags.reader import CUSTOM, Bag, ends_whole, storage_files
from udvla_ros.rollouts.bags.salvage import Losses, records
from udvla_ros.rollouts.bags.states import UNKNOWN
from udvla_ros.rollouts.bags.topic import METADATA, BagError
from udvla_ros.rollouts.bags.writer import RESERVED

INTERRUPTED = "interrupted"
KEPT = ".broken"


@dataclass
class RepairReport:
    """What was done to one bag.

    Attributes:
        changed: files written anew; empty when the bag was whole.
        kept: originals, renamed.
        messages: of the repaired bag, by topic.
        bytes_lost, chunks_lost: at the end and in the middle of the files.
        notes: a line for each thing found.
    """

    folder: str
    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bytes_lost: int = 0
    chunks_lost: int = 0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


def repair(folder: str | Path) -> RepairReport:
    """Make the bag in a folder whole: cut files are written anew, ``metadata.yaml`` is rebuilt.

    Raises:
        BagError: the folder holds no MCAP file, or the repaired one cannot be written.
    """
    folder = Path(folder)
    report = RepairReport(str(folder))
    for path in storage_files(folder):
        if not _sound(path):
            _rewrite(path, _labels_beside(folder), report)
    (folder / RESERVED).unlink(missing_ok=True)
    if not _metadata_can_be_read(folder):
        (folder / METADATA).unlink(missing_ok=True)
    with Bag(folder) as bag:
        report.messages = {topic.name: topic.count for topic in bag.topics.values()}
        report.seconds = bag.duration
        if report.changed or not _agrees(bag):
            heard = _heard(bag)
            labels = {**heard, **bag.labels}
            if labels.get("outcome") == INTERRUPTED:
                labels["outcome"] = heard.get("outcome", INTERRUPTED)
            write_metadata(folder, labels)
            report.changed.append(METADATA)
            report.notes.append(f"{METADATA} was rebuilt")
    return report


def _heard(bag: Bag) -> dict[str, str]:
    """Return the labels that a recorder would have taken from the messages."""
    labels = Labels({}, bag.start * 1e-9)
    for topic, _, message in bag.read(*TOLD):
        labels.hear(topic, message.data)
    labels.judge("")
    return {key: value for key, value in labels.texts().items() if value != UNKNOWN and key != "kind"}


def _metadata_can_be_read(folder: Path) -> bool:
    try:
        metadata.read(folder)
    except BagError:
        return False
    return True


def _sound(path: Path) -> bool:
    """Return whether a file has its end and every record of it can be read."""
    if not ends_whole(path):
        return False
    losses = Losses()
    for _ in records(path, losses):
        pass
    return losses.whole and not losses.chunks and _has_index(path)


def _has_index(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            summary = make_reader(handle).get_summary()
    except (McapError, ValueError, EOFError, OSError):
        return False
    return summary is not None and summary.statistics is not None


def _labels_beside(folder: Path) -> dict[str, str]:
    """Return the labels of ``metadata.yaml``: written at the end, it knows more than the file it belongs to."""
    try:
        return metadata.read(folder).custom
    except BagError:
        return {}


def _agrees(bag: Bag) -> bool:
    """Return whether ``metadata.yaml`` is there and counts what the files hold."""
    if not _metadata_can_be_read(bag.folder):
        return False
    counts = {topic.name: topic.count for topic in metadata.read(bag.folder).topics}
    return counts == {topic.name: topic.count for topic in bag.topics.values()}


def _rewrite(path: Path, labels: dict[str, str], report: RepairReport) -> None:
    """Write what can be read of ``path`` to a new file in its place; the old one is kept beside it."""
    losses = Losses()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as handle:
            _copy(path, handle, labels, losses)
            handle.flush()
            os.fsync(handle.fileno())
        kept = _free_name(path)
        try:
            os.link(path, kept)  # at no moment is there a bag without its file
        except OSError:
            shutil.copy2(path, kept)
        os.replace(beside, path)
    except OSError as error:
        raise BagError(f"'{path}' cannot be repaired ({error}); is there room on the disk?") from error
    finally:
        beside.unlink(missing_ok=True)
    report.changed.append(path.name)
    report.kept.append(kept.name)
    report.bytes_lost += losses.bytes_left
    report.chunks_lost += losses.chunks
    report.notes += [f"{path.name}: {note}" for note in losses.notes]


def _free_name(path: Path) -> Path:
    for number in range(1000):
        name = path.with_name(path.name + KEPT + (f".{number}" if number else ""))
        if not name.exists():
            return name
    raise BagError(f"'{path}' was repaired a thousand times; delete its {KEPT} files")


def _copy(path: Path, handle: Any, known: dict[str, str], losses: Losses) -> None:
    writer = Writer(handle, compression=CompressionType.LZ4)
    writer.start(profile="ros2", library="udvla bag repair")
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    labels: dict[str, str] = {}
    orphans: Counter[int] = Counter()
    for record in records(path, losses):
        if isinstance(record, Schema):
            if record.id not in schemas:
                schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
        elif isinstance(record, Channel):
            if record.id not in channels and record.schema_id in schemas:
                channels[record.id] = writer.register_channel(
                    record.topic, record.message_encoding, schemas[record.schema_id], record.metadata
                )
        elif isinstance(record, Message):
            if record.channel_id not in channels:
                orphans[record.channel_id] += 1
                continue
            writer.add_message(
                channels[record.channel_id], record.log_time, record.data, record.publish_time, record.sequence
            )
        elif isinstance(record, Metadata):
            if record.name == CUSTOM:
                labels |= record.metadata
            else:
                writer.add_metadata(record.name, record.metadata)
        elif isinstance(record, Attachment):
            writer.add_attachment(
                record.create_time, record.log_time, record.name, record.media_type, record.data
            )
    if orphans:
        losses.notes.append(f"{orphans.total()} messages left out: the chunk that named their topic is damaged")
    writer.add_metadata(CUSTOM, {"outcome": INTERRUPTED, **labels, **known})
    writer.finish()


def write_metadata(folder: str | Path, labels: Mapping[str, str] | None = None) -> None:
    """Write ``metadata.yaml`` of whole files anew, from what is in them.

    Args:
        labels: instead of those that the bag has.

    Raises:
        BagError: a file is not whole.
    """
    folder = Path(folder)
    with Bag(folder) as bag:
        files = [
            metadata.Storage(path.name, span.start, span.end - span.start, span.count)
            for path, span in zip(bag.files, bag.spans, strict=True)
        ]
        told = metadata.BagMetadata(
            topics=list(bag.topics.values()), files=files, start=bag.start, duration=bag.end - bag.start,
            count=bag.count, custom=dict(bag.labels if labels is None else labels),
        )  # fmt: skip
    metadata.write(folder, told)
