"""One MCAP file, written so that it can be read up to the last flush, whatever happens to the process or the disk.

Records are those of the ``mcap`` package. Chunks are put together here, and not by its writer, for three reasons:
messages of cameras go into chunks of their own, uncompressed and uncopied (compressing them took half of the
recorder's time, for a noise that does not get smaller); schemas and channels stand outside of chunks, so that no
damage to one takes others with it; and a write that fails takes nothing back that was written before: the
half-written chunk is cut off and the file can be finished as if the chunk had never been.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import lz4.frame
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

MAGIC = b"\x89MCAP0\r\n"
# Of the file's end that stays in the page cache. What is older is sent to the disk and forgotten at each flush: nobody
# reads it now, and a recording must neither push a model out of memory nor leave gigabytes to be written at its end.
CACHED, FORGOTTEN = 32 << 20, 256 << 20
CHUNK_BYTES = {False: 1 << 20, True: 4 << 20}  # a chunk is closed when it is larger: ordinary, bulky messages
CHUNK_MESSAGES = {False: 20_000, True: 250}  # or has more messages; writev takes no more than 1024 pieces
_MESSAGE = struct.Struct("<BQHIQQ")
_CHUNK = struct.Struct("<BQQQQI")


class _Chunk:
    """Messages on their way to the file."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.times: dict[int, list[tuple[int, int]]] = defaultdict(list)  # channel -> (log time, offset)
        self.count = 0
        self.start = self.end = 0

    def add(self, channel: int, sequence: int, received: int, published: int, data: bytes) -> None:
        self.times[channel].append((received, self.size))
        self.start = received if not self.count else min(self.start, received)
        self.end = max(self.end, received)
        self.count += 1
        head = _MESSAGE.pack(
            Opcode.MESSAGE, len(data) + 22, channel, sequence & 0xFFFFFFFF, received, published
        )
        self.parts += (head, data)
        self.size += len(head) + len(data)


class McapFile:
    """A new MCAP file with the profile ``ros2``.

    Args:
        path: must not exist.
        library: who writes, for the header.
        compression: of what is not bulky: ``lz4`` or ``none``.

    Attributes:
        size: bytes written.
        counts: messages written, by channel; those of the chunk in progress are not among them.
        lost: messages, by channel, of chunks that could not be written.

    Raises:
        OSError: from every method that writes: no space, say. The file stays as it was before, and may still be
            finished once there is room for its summary.
    """

    def __init__(self, path: Path, library: str, compression: str = "lz4") -> None:
        self.path, self._compression = path, "" if compression == "none" else compression
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.size = 0
        self.counts: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()
        self.start = self.end = 0  # ns of the first and last message written
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks = {False: _Chunk(), True: _Chunk()}
        self._chunk_indices: list[ChunkIndex] = []
        self._metadata_indices: list[MetadataIndex] = []
        self._put(MAGIC, _bytes(Header("ros2", library)))

    # -- what goes in --------------------------------------------------------------------------------------
    def add_schema(self, name: str, encoding: str, data: bytes) -> int:
        """Write a schema and return its number."""
        schema = Schema(id=len(self._schemas) + 1, name=name, encoding=encoding, data=data)
        self._put(_bytes(schema))
        self._schemas[schema.id] = schema
        return schema.id

    def add_channel(self, topic: str, schema: int, metadata: dict[str, str]) -> int:
        """Write a channel of CDR messages and return its number."""
        channel = Channel(
            id=len(self._channels) + 1, topic=topic, message_encoding="cdr", metadata=metadata, schema_id=schema
        )
        self._put(_bytes(channel))
        self._channels[channel.id] = channel
        return channel.id

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """Write a metadata record: at once, outside of any chunk."""
        record = _bytes(Metadata(name=name, metadata=values))
        at = self._put(record)
        self._metadata_indices.append(MetadataIndex(offset=at, length=len(record), name=name))

    def add_message(
        self, channel: int, sequence: int, received: int, published: int, data: bytes, bulky: bool = False
    ) -> None:
        """Add a message (ns) to the chunk in progress, and close that when it is full."""
        chunk = self._chunks[bulky]
        chunk.add(channel, sequence, received, published, data)
        if chunk.size > CHUNK_BYTES[bulky] or chunk.count >= CHUNK_MESSAGES[bulky]:
            self._close_chunk(bulky)

    def flush(self) -> None:
        """Hand every message to the operating system: from here on a kill of this process loses none of them."""
        for bulky in self._chunks:
            self._close_chunk(bulky)
        if self.size > CACHED:
            begin = max(0, self.size - FORGOTTEN)  # the first call sends it on its way, a later one forgets it
            os.posix_fadvise(self._descriptor, begin, self.size - CACHED - begin, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Have the operating system put everything on the disk."""
        os.fsync(self._descriptor)

    # -- what goes out -------------------------------------------------------------------------------------
    def _close_chunk(self, bulky: bool) -> None:
        chunk, self._chunks[bulky] = self._chunks[bulky], _Chunk()
        if not chunk.count:
            return
        crc = 0
        for part in chunk.parts:
            crc = zlib.crc32(part, crc)
        compression, body = "", chunk.parts
        if self._compression and not bulky:
            compression = self._compression
            body = [lz4.frame.compress(b"".join(chunk.parts))]
        length = sum(map(len, body))
        name = compression.encode()
        rest = struct.pack("<I", len(name)) + name + struct.pack("<Q", length)
        size = 28 + len(rest) + length
        head = _CHUNK.pack(Opcode.CHUNK, size, chunk.start, chunk.end, chunk.size, crc) + rest
        indices = {c: _bytes(MessageIndex(channel_id=c, records=times)) for c, times in chunk.times.items()}
        try:
            at = self._put(head, *body, *indices.values())
        except OSError:
            self.lost.update({channel: len(times) for channel, times in chunk.times.items()})
            raise
        offsets, offset = {}, at + 9 + size
        for channel, index in indices.items():
            offsets[channel] = offset
            offset += len(index)
        self._chunk_indices.append(
            ChunkIndex(
                chunk_length=9 + size, chunk_start_offset=at, compression=compression, compressed_size=length,
                message_end_time=chunk.end, message_index_length=sum(map(len, indices.values())),
                message_index_offsets=offsets, message_start_time=chunk.start, uncompressed_size=chunk.size,
            )
        )  # fmt: skip
        self.start = chunk.start if not self.counts else min(self.start, chunk.start)
        self.end = max(self.end, chunk.end)
        for channel, times in chunk.times.items():
            self.counts[channel] += len(times)

    def _put(self, *parts: bytes) -> int:
        """Write all parts or none, and return where they begin."""
        begin, left = self.size, list(parts)
        try:
            while left:
                written = os.writev(self._descriptor, left)
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if written:
                    left[0] = memoryview(left[0])[written:]  # type: ignore[call-overload]
        except OSError:
            os.ftruncate(self._descriptor, begin)
            os.lseek(self._descriptor, begin, os.SEEK_SET)
            raise
        self.size += sum(map(len, parts))
        return begin

    def finish(self) -> None:
        """Write the summary of what was written, put it on the disk, and close the file.

        Messages of a chunk that cannot be written are left out, and the rest of the file is finished without
        them, if there is room for that.
        """
        failure: OSError | None = None
        try:
            self.flush()
        except OSError as error:
            failure = error
        start = self.size
        end = _bytes(DataEnd(0))
        start += len(end)
        groups: list[tuple[Opcode, list[McapRecord]]] = [
            (Opcode.SCHEMA, list(self._schemas.values())),
            (Opcode.CHANNEL, list(self._channels.values())),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.CHUNK_INDEX, list(self._chunk_indices)),
            (Opcode.METADATA_INDEX, list(self._metadata_indices)),
        ]
        summary, offsets = b"", b""
        for opcode, records in groups:
            data = b"".join(map(_bytes, records))
            if data:
                offsets += _bytes(SummaryOffset(opcode, start + len(summary), len(data)))
                summary += data
        offset_start = start + len(summary)
        crc = zlib.crc32(struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offset_start), zlib.crc32(summary + offsets))
        self._put(end, summary, offsets, _bytes(Footer(start, offset_start, crc)), MAGIC)
        self.sync()
        self.close()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close the file as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _statistics(self) -> Statistics:
        return Statistics(
            attachment_count=0, channel_count=len(self._channels), channel_message_counts=dict(self.counts),
            chunk_count=len(self._chunk_indices), message_count=sum(self.counts.values()),
            message_end_time=self.end, message_start_time=self.start, metadata_count=len(self._metadata_indices),
            schema_count=len(self._schemas),
        )  # fmt: skip


def _bytes(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return builder.end()
