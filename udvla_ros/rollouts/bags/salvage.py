"""What can still be read of an MCAP file that was cut off or damaged.

A file that a killed process leaves is a beginning of the file that it meant to write. Whole chunks are checked
against their checksum; of the last chunk, which may be cut anywhere, the messages before the cut are taken.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import lz4.frame
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import breakup_chunk

from udvla_ros.rollouts.bags.reader import MAGIC

HEAD = 9  # bytes of a record's opcode and length
CHUNK_HEAD = 8 + 8 + 8 + 4 + 4  # bytes of a chunk record before the name of its compression
KINDS: dict[Opcode, Any] = {
    Opcode.SCHEMA: Schema, Opcode.CHANNEL: Channel, Opcode.MESSAGE: Message,
    Opcode.METADATA: Metadata, Opcode.ATTACHMENT: Attachment,
}  # fmt: skip
Unreadable = (
    McapError, struct.error, ValueError, RuntimeError, EOFError, OSError, KeyError, MemoryError, OverflowError,
)  # fmt: skip


@dataclass
class Losses:
    """What was not there any more.

    Attributes:
        whole: the file has its end.
        bytes_left: behind the last record that could be read.
        chunks: damaged in the middle of the file and left out.
        notes: a line for each of these.
    """

    whole: bool = False
    bytes_left: int = 0
    chunks: int = 0
    notes: list[str] = field(default_factory=list)


def records(path: Path, losses: Losses) -> Iterator[McapRecord]:
    """Yield the schemas, channels, messages, metadata and attachments that can be read, in the file's order.

    Nothing is raised for damage; it is noted in ``losses`` as the iterator goes on.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        if handle.read(len(MAGIC)) != MAGIC:
            losses.bytes_left = size
            losses.notes.append("the file does not begin like an MCAP file; nothing can be read")
            return
        while True:
            begin = handle.tell()
            head = handle.read(HEAD)
            if len(head) < HEAD or head[0] == 0:
                losses.bytes_left = size - begin
                losses.notes.append(f"cut off at byte {begin} of {size}")
                return
            opcode, length = head[0], int.from_bytes(head[1:], "little")
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                handle.seek(-len(MAGIC), 2)
                losses.whole = handle.read() == MAGIC and handle.tell() > begin + HEAD
                if not losses.whole:
                    losses.notes.append("all messages are there; the index behind them was cut off")
                return
            if begin + HEAD + length > size:
                losses.bytes_left = size - begin
                found = list(_cut_chunk(handle.read(size - begin - HEAD))) if opcode == Opcode.CHUNK else []
                taken = sum(isinstance(record, Message) for record in found)
                losses.notes.append(f"cut off in the record at byte {begin} of {size}; {taken} of its messages saved")
                yield from found
                return
            yield from _record(handle, opcode, length, begin, losses)
            handle.seek(begin + HEAD + length)


def _record(handle: IO[bytes], opcode: int, length: int, begin: int, losses: Losses) -> list[McapRecord]:
    if opcode != Opcode.CHUNK and opcode not in KINDS:
        return []
    body = handle.read(length)
    try:
        if opcode == Opcode.CHUNK:
            chunk = Chunk.read(ReadDataStream(BytesIO(body)))
            return list(breakup_chunk(chunk, validate_crc=True))
        return [_plain(opcode, body)]
    except Unreadable as error:
        losses.chunks += 1
        losses.bytes_left += length
        losses.notes.append(f"the record at byte {begin} is damaged and left out ({error})")
        return []


def _plain(opcode: int, body: bytes) -> McapRecord:
    stream = ReadDataStream(BytesIO(body))
    if opcode == Opcode.MESSAGE:
        return Message.read(stream, len(body))
    return KINDS[Opcode(opcode)].read(stream)


def _cut_chunk(body: bytes) -> Iterator[McapRecord]:
    """Yield the whole records at the beginning of a chunk that ends too early."""
    name_length = int.from_bytes(body[CHUNK_HEAD - 4 : CHUNK_HEAD], "little")
    begin = CHUNK_HEAD + name_length + 8
    if len(body) < begin:
        return
    compression = body[CHUNK_HEAD : CHUNK_HEAD + name_length]
    data = body[begin:]
    if compression == b"lz4":
        try:
            data = lz4.frame.LZ4FrameDecompressor().decompress(data)
        except RuntimeError:
            return
    elif compression:
        return
    at = 0
    while at + HEAD <= len(data):
        opcode, length = data[at], int.from_bytes(data[at + 1 : at + HEAD], "little")
        end = at + HEAD + length
        if opcode not in KINDS or end > len(data):
            return
        try:
            yield _plain(opcode, data[at + HEAD : end])
        except Unreadable:
            return
        at = end
