"""One recorded episode on its way to the disk: a rosbag2 folder with one MCAP file and ``metadata.yaml``."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from udvla_ros import __version__
from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts.bags import metadata, schemas
from udvla_ros.rollouts.bags.mcap_file import McapFile
from udvla_ros.rollouts.bags.reader import CUSTOM
from udvla_ros.rollouts.bags.source import Sample, Source
from udvla_ros.rollouts.bags.topic import Topic

LIBRARY = f"udvla_ros {__version__}"
# Held back on the disk while recording and given up to finish the file when everything else is full: a summary
# takes about 1 KB per second.
RESERVE = 4 << 20
RESERVED = ".reserve"


class RecordingError(UdvlaError):
    """An episode cannot be recorded, or not to its end."""


class EpisodeWriter:
    """Writes one bag. ``metadata.yaml`` appears last: a folder without it was cut off, see ``udvla bag repair``.

    Args:
        folder: of the episode; made here.
        labels: what is known of the episode now.
        compression: of everything but images: ``lz4`` or ``none``.
        reserve: bytes held back to finish the file on a full disk.

    Raises:
        RecordingError: the folder exists, or cannot be made, or there is not even room for the reserve.
    """

    def __init__(
        self, folder: Path, labels: Mapping[str, str], compression: str = "lz4", reserve: int = RESERVE
    ) -> None:
        self.folder = Path(folder)
        self._channels: dict[tuple[str, str], tuple[int, Source]] = {}  # by name and type: one channel each
        self._schemas: dict[str, int] = {}
        self._undeclared: Counter[str] = Counter()
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise RecordingError(f"cannot make the folder {folder} ({error.strerror}); see record_dir") from None
        try:
            self._hold_back(reserve)
            self._file = McapFile(self.folder / f"{self.folder.name}_0.mcap", LIBRARY, compression)
            self._file.add_metadata(CUSTOM, dict(labels))
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RecordingError(f"cannot write to {folder} ({error.strerror}); free some space") from None

    def _hold_back(self, size: int) -> None:
        with (self.folder / RESERVED).open("wb") as handle:
            if size:
                os.posix_fallocate(handle.fileno(), 0, size)

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._file.size

    @property
    def count(self) -> int:
        """Messages written; those in the chunk in progress are not among them."""
        return sum(self._file.counts.values())

    @property
    def lost(self) -> Counter[str]:
        """Messages by topic that were taken and could not be written."""
        lost = Counter(self._undeclared)
        for channel, source in self._channels.values():
            if self._file.lost[channel]:
                lost[source.name] += self._file.lost[channel]
        return lost

    def declare(self, source: Source) -> int:
        """Write the channel of a topic, once, as the topic was then; returns its number.

        Raises:
            OSError: it cannot be written.
        """
        key = (source.name, source.type)
        if key not in self._channels:
            schema = self._schemas.get(source.type)
            if schema is None:
                text = schemas.definition(source.type)
                schema = self._file.add_schema(source.type, "ros2msg" if text else "", text.encode())
                self._schemas[source.type] = schema
            told = {"offered_qos_profiles": source.qos, "topic_type_hash": source.type_hash}
            self._channels[key] = self._file.add_channel(source.name, schema, told), source
        return self._channels[key][0]

    def write(self, sample: Sample) -> None:
        """Add a message.

        Raises:
            OSError: it cannot be written.
        """
        source, received, published, sequence, data = sample
        known = self._channels.get((source.name, source.type))
        if known is not None:
            channel = known[0]
        else:
            try:
                channel = self.declare(source)
            except OSError:
                self._undeclared[source.name] += 1
                raise
        self._file.add_message(channel, sequence, received, published, data, source.bulky)

    def flush(self) -> None:
        """Hand everything to the operating system: a kill of this process loses none of it.

        Raises:
            OSError: it cannot be written.
        """
        self._file.flush()

    def close(self, labels: Mapping[str, str]) -> None:
        """Finish the file and write ``metadata.yaml``; both are on the disk when this returns.

        Raises:
            OSError: there is no room even so; what was flushed can be had by ``udvla bag repair``.
        """
        (self.folder / RESERVED).unlink(missing_ok=True)
        lost: OSError | None = None
        try:
            self._file.flush()
        except OSError as error:  # the chunk in progress; the labels and the summary are smaller
            lost = error
        try:
            self._file.add_metadata(CUSTOM, dict(labels))
            self._file.finish()
            metadata.write(self.folder, self._told(labels))
            _sync(self.folder)
        finally:
            self._file.close()
        if lost is not None:
            raise lost

    def discard(self) -> None:
        """Delete the episode."""
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _told(self, labels: Mapping[str, str]) -> metadata.BagMetadata:
        file = self._file
        topics = [
            Topic(source.name, source.type, source.qos, source.type_hash, file.counts[channel])
            for channel, source in self._channels.values()
        ]
        span = file.end - file.start
        return metadata.BagMetadata(
            topics=topics, files=[metadata.Storage(file.path.name, file.start, span, self.count)],
            start=file.start, duration=span, count=self.count, custom=dict(labels),
        )  # fmt: skip


def relabel(folder: Path, labels: Mapping[str, str]) -> None:
    """Add to the labels of a finished episode in ``metadata.yaml``; the MCAP file stays as it is.

    Raises:
        BagError: the folder holds no finished episode.
    """
    told = metadata.read(folder)
    told.custom |= labels
    metadata.write(folder, told)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
