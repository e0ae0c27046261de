"""An episode's bag: one rosbag2 folder with MCAP files, read without ROS.

Bytes come from ``mcap``, messages from the typestore of ``rosbags`` and, for types that ROS 2 does not ship, from
the definitions that the file carries. What is decoded has the fields of the ROS message.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

from mcap.reader import McapReader, NonSeekingReader, SeekingReader
from mcap.records import Channel, Schema, Statistics
from mcap.summary import Summary
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from udvla_ros.rollouts.bags.topic import METADATA, BagError, Topic

MAGIC = b"\x89MCAP0\r\n"
SUFFIX = ".mcap"
FOREIGN = {  # what rosbag2 also writes, by the ends of names
    ".mcap.zstd": "compressed by rosbag2 (file, zstd)", ".db3.zstd": "compressed by rosbag2 (file, zstd)",
    ".db3": "recorded as sqlite3",
}  # fmt: skip
ZSTD = b"\x28\xb5\x2f\xfd"
CUSTOM = "udvla_ros"  # the MCAP metadata record with the episode's labels


Messages = Callable[[list[str] | None, int | None], Iterator[Any]]  # of one file: topics, ns from which on


@dataclass(frozen=True)
class Raw:
    """One message as recorded; times in ns: ``received`` by the recorder, ``published`` where it knows."""

    topic: str
    received: int
    published: int
    sequence: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Span:
    """What one file covers: ns from ``start`` to ``end``."""

    start: int
    end: int
    count: int


def seconds(stamp: Any) -> float:
    """Return a message's stamp in seconds, computed as the nodes compute it."""
    return stamp.sec + stamp.nanosec * 1e-9


def header_stamp(data: bytes) -> float:
    """Return the stamp (s) of the CDR of a message that begins with a header, an image say, without decoding it.

    Raises:
        BagError: the bytes are too few.
    """
    if len(data) < 12:
        raise BagError(f"a message of {len(data)} bytes has no header")
    whole, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return whole + nanoseconds * 1e-9


def ends_whole(path: Path) -> bool:
    """Return whether an MCAP file has both its beginning and its end."""
    with path.open("rb") as handle:
        if os.fstat(handle.fileno()).st_size < 2 * len(MAGIC):
            return False
        first = handle.read(len(MAGIC))
        handle.seek(-len(MAGIC), 2)
        return first == handle.read() == MAGIC


def episodes_in(folder: Path) -> list[Path]:
    """Return the folders at or below ``folder`` that hold a bag of whatever storage, sorted by path.

    Raises:
        BagError: there is no such folder.
    """
    if not folder.is_dir():
        raise BagError(f"'{folder}' is not a folder; name a recorded episode, or the folder that holds them")
    closed: list[Path] = []
    found = {
        Path(where)
        for where, _, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename)))
        if any(name.endswith((SUFFIX, *FOREIGN)) for name in names)
    }
    return sorted(found.union(closed))


def what_is_broken(folder: Path) -> str:
    """Return in a few words why a bag is not whole or not readable here; empty if it is."""
    try:
        cut = [path.name for path in storage_files(folder) if not ends_whole(path)]
    except BagError as error:
        return str(error)
    if cut:
        return f"{', '.join(cut)} has no end: the recording was cut off"
    if not (folder / METADATA).is_file():
        return f"{METADATA} is missing"
    return ""


def _mapping(text: str) -> dict[str, str]:
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in said.items()} if isinstance(said, dict) else {}


def storage_files(folder: str | Path) -> list[Path]:
    """Return a bag's MCAP files, numbers in their names counted: ``x_10`` comes after ``x_2``.

    Raises:
        BagError: there are none, one cannot be opened, or they are stored in a way that is not read here.
    """
    folder = Path(folder)
    try:
        names = sorted(os.listdir(folder), key=lambda name: [part.zfill(20) for part in re.split(r"(\d+)", name)])
    except OSError as error:
        raise BagError(f"'{folder}' cannot be read: {error.strerror}; name a recorded episode") from None
    files = [folder / name for name in names if name.endswith(SUFFIX) and not (folder / name).is_dir()]
    for name in names:
        for ending, stored in FOREIGN.items():
            if not files and name.endswith(ending):
                raise BagError(convert_line(folder, stored))
    if not files:
        raise BagError(f"no *{SUFFIX} in '{folder}'; name the folder of one recorded episode")
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            gone = path.is_symlink() and not path.exists()
            mend = f"it links to {os.readlink(path)}, which is not here; fetch it" if gone else error.strerror
            raise BagError(f"'{path}' cannot be read: {mend}") from None
    told = re.search(rb"compression_mode: ['\"]?(\w+)", _beginning(folder / METADATA))
    if told and told[1].upper() == b"MESSAGE":
        raise BagError(convert_line(folder, "compressed by rosbag2 (message, zstd)"))
    return files


def convert_line(folder: Path, stored: str) -> str:
    """Return the line for a bag that only rosbag2 reads, with the mend."""
    return (
        f"'{folder}' is {stored}: ros2 bag convert -i {folder} -o options.yaml, with "
        "output_bags: [{uri: NEW_FOLDER, storage_id: mcap, all_topics: true}] in options.yaml"
    )


def _beginning(path: Path) -> bytes:
    try:
        return path.read_bytes()[: 1 << 20]
    except OSError:
        return b""


@cache
def _typestore() -> Any:
    return get_typestore(Stores.ROS2_JAZZY)


def decode(kind: str, data: bytes, definition: str = "") -> Any:
    """Return the message of CDR bytes.

    Args:
        kind: such as ``sensor_msgs/msg/Image``.
        definition: its text in the ``ros2msg`` form, for types that ROS 2 does not ship.
    """
    store = _typestore()
    if kind not in store.types and definition:
        store.register(get_types_from_msg(definition, kind))
    return store.deserialize_cdr(data, kind)


def _indexed(summary: Summary, told: Statistics) -> bool:
    """Return whether an index leads to every message: chunks are listed, and what stands in them is named."""
    channels, schemas = summary.channels, summary.schemas
    named = all(n in channels and channels[n].schema_id in {0, *schemas} for n in told.channel_message_counts)
    return named and told.chunk_count == len(summary.chunk_indexes) and bool(summary.chunk_indexes)


class Bag:
    """A whole bag, open for reading; a context manager.

    Attributes:
        folder: of the episode.
        topics: by full name.
        labels: what the recorder noted about the episode: ``instruction``, ``outcome``, ``bundle_hash``, ...
        spans: of the files.
        start, end: ns, of the first and the last message received; equal in an empty bag.

    Raises:
        BagError: the folder holds no bag, or one that has to be repaired first.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files = storage_files(self.folder)
        for path in self.files:
            if not ends_whole(path):
                raise BagError(f"'{path}' has no end, the recording was cut off: udvla bag repair {self.folder}")
        self.topics: dict[str, Topic] = {}
        self.labels: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._stack = ExitStack()
        opened: list[tuple[Span, Path, Messages]] = []
        for path in self.files:
            try:
                span, messages = self._open(path)
            except Exception as error:  # whatever the parser stumbles over, the file is what is wrong
                self.close()
                raise BagError(f"'{path}' cannot be read ({error}): udvla bag repair {self.folder}") from error
            opened.append((span, path, messages))
        opened.sort(key=lambda one: one[0].start if one[0].count else 0)  # whatever the files are called
        self.spans, self.files = [one[0] for one in opened], [one[1] for one in opened]
        self._messages = [one[2] for one in opened]
        self.labels |= self._labels_beside()
        self._renamed = _mapping(self.labels.get("topics", ""))
        filled = [span for span in self.spans if span.count]
        self.start = min((span.start for span in filled), default=0)
        self.end = max((span.end for span in filled), default=0)

    def _open(self, path: Path) -> tuple[Span, Messages]:
        handle = self._stack.enter_context(path.open("rb"))
        reader: McapReader = SeekingReader(handle, validate_crcs=True)
        summary = reader.get_summary()
        told = summary.statistics if summary else None
        if summary is None or told is None or not _indexed(summary, told):
            return self._open_whole(handle)
        for number, channel in summary.channels.items():
            count = told.channel_message_counts.get(number, 0)
            self._note(channel, summary.schemas.get(channel.schema_id), count)
        for record in reader.iter_metadata():
            if record.name == CUSTOM:
                self.labels |= record.metadata

        def messages(topics: list[str] | None, start: int | None) -> Iterator[Any]:
            return reader.iter_messages(topics=topics, starting_at=start)

        return Span(told.message_start_time, told.message_end_time, told.message_count), messages

    def _open_whole(self, handle: IO[bytes]) -> tuple[Span, Messages]:
        """Open a file without an index, or with one that says too little: it is read from end to end."""

        def begun() -> NonSeekingReader:
            handle.seek(0)
            return NonSeekingReader(handle, validate_crcs=True)

        for record in begun().iter_metadata():
            if record.name == CUSTOM:
                self.labels |= record.metadata
        count, start, end = 0, 0, 0
        for schema, channel, message in begun().iter_messages(log_time_order=False):
            self._note(channel, schema, 1)
            start = min(start, message.log_time) if count else message.log_time
            count, end = count + 1, max(end, message.log_time)
        return Span(start, end, count), lambda topics, start: begun().iter_messages(topics, starting_at=start)

    def _labels_beside(self) -> dict[str, str]:
        """Return the labels of ``metadata.yaml``: an episode may be labelled when its file is long closed."""
        from udvla_ros.rollouts.bags import metadata  # which imports this module

        return metadata.read(self.folder).custom if (self.folder / METADATA).is_file() else {}

    def _note(self, channel: Channel, schema: Schema | None, count: int) -> None:
        kind = schema.name if schema else ""
        if schema and schema.encoding == "ros2msg":
            self.definitions.setdefault(kind, schema.data.decode())
        known = self.topics.setdefault(
            channel.topic,
            Topic(
                channel.topic, kind, channel.metadata.get("offered_qos_profiles", ""),
                channel.metadata.get("topic_type_hash", ""),
            ),
        )  # fmt: skip
        if known.type != kind:
            raise ValueError(f"{channel.topic} is {known.type} and {kind}")
        known.count += count

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def count(self) -> int:
        """Messages in all."""
        return sum(topic.count for topic in self.topics.values())

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end - self.start) * 1e-9

    @property
    def size(self) -> int:
        """Bytes of the MCAP files."""
        return sum(path.stat().st_size for path in self.files)

    def find(self, name: str) -> str | None:
        """Return the recorded topic of a relative name, in whatever namespace; None if it was not recorded.

        Names that were remapped are among the labels.

        Raises:
            BagError: several namespaces have it.
        """
        name = self._renamed.get(name, name)
        if name.startswith("/"):
            return name if name in self.topics else None
        if f"/{name}" in self.topics:
            return f"/{name}"
        found = [topic for topic in self.topics if topic.endswith(f"/{name}")]
        if len(found) > 1:
            raise BagError(f"'{self.folder}' has {', '.join(sorted(found))}: one episode, one robot is expected")
        return found[0] if found else None

    def raw(self, topics: Iterable[str] | None = None, start: int | None = None) -> Iterator[Raw]:
        """Yield messages in the order in which they were received.

        Args:
            topics: full names; all without.
            start: ns; messages received before are left out.

        Raises:
            BagError: a file is damaged.
        """
        chosen = None if topics is None else list(topics)
        if chosen == []:
            return
        for path, messages in zip(self.files, self._messages, strict=True):
            try:
                for _, channel, message in messages(chosen, start):
                    yield Raw(
                        channel.topic, message.log_time, message.publish_time, message.sequence, message.data
                    )
            except Exception as error:  # as above
                raise BagError(f"'{path}' is damaged ({error}): udvla bag repair {self.folder}") from error

    def read(self, *names: str) -> Iterator[tuple[str, float, Any]]:
        """Yield (name as it was asked for, s when it was received, message) of some topics.

        Topics that were not recorded are left out.
        """
        asked = {topic: name for name in names if (topic := self.find(name)) is not None}
        for raw in self.raw(asked):
            yield asked[raw.topic], raw.received * 1e-9, self.decode(raw)

    def decode(self, raw: Raw) -> Any:
        """Return a message's fields.

        Raises:
            BagError: its type is unknown, or the bytes are not of it.
        """
        kind = self.topics[raw.topic].type
        try:
            return decode(kind, raw.data, self.definitions.get(kind, ""))
        except Exception as error:  # as above
            if raw.data.startswith(ZSTD):
                raise BagError(convert_line(self.folder, "compressed by rosbag2 (message, zstd)")) from None
            raise BagError(f"'{self.folder}': a message of {raw.topic} is not {kind} ({error})") from error
