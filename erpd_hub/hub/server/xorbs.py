"""The Xet upload format: a file arrives as runs of chunks in compressed blocks (xorbs), then as a list of such runs
(a shard). Both come from the network, so every count and length is checked before it is believed.

All integers are little-endian. A hash is written in text as its four 8-byte words, each reversed.
"""

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from erpd_hub.hub.server.errors import Refusal, bad_request

MAX_XORB_BYTES = 80 << 20
"""The format bounds a xorb's content to 64 MiB; incompressible chunks and its footer come on top."""
MAX_SHARD_BYTES = 80 << 20
MAX_CHUNK_BYTES = 1 << 20
"""Clients cut chunks of at most 128 KiB."""
MAX_CHUNKS = 8 << 10
MIN_MEAN_BYTES = 1 << 10
"""Of the chunks that files are made of, but MAX_CHUNKS of a shard: clients cut 64 KiB on average and 8 KiB at least but
for a file's last, and unpacking a chunk takes as long for one byte."""
MAX_RUNS = 256 << 10
"""Parts of one file: a terabyte of new content is some 16,000."""
HASH_BYTES = 32

_CHUNK_HEADER = 8
_FOOTER = b"XETBLOB"
_STORED, _LZ4, _GROUPED_LZ4 = range(3)
_RECORD = 48
_WITH_VERIFICATION = 1 << 31
_WITH_SHA256 = 1 << 30
_END = b"\xff" * HASH_BYTES


class Chunk(NamedTuple):
    """A compressed chunk inside a xorb."""

    start: int
    """Offset of its compressed bytes."""
    packed: int
    size: int
    scheme: int


class Run(NamedTuple):
    """Chunks `first` up to (not including) `end` of a xorb, a part of a file."""

    xorb: str
    first: int
    end: int
    size: int
    """Bytes of content."""


class SharedFile(NamedTuple):
    """A file as a shard describes it."""

    sha256: str | None
    runs: tuple[Run, ...]

    @property
    def size(self) -> int:
        return sum(run.size for run in self.runs)

    @property
    def chunks(self) -> int:
        return sum(run.end - run.first for run in self.runs)


def hash_text(raw: bytes) -> str:
    return "".join(raw[at : at + 8][::-1].hex() for at in range(0, HASH_BYTES, 8))


def read_chunks(xorb: memoryview) -> list[Chunk]:
    """The chunks of a xorb, without unpacking them; raises a 400 where the headers make no sense."""
    chunks: list[Chunk] = []
    at = 0
    while at < len(xorb) and xorb[at : at + len(_FOOTER)] != _FOOTER:
        if at + _CHUNK_HEADER > len(xorb) or len(chunks) == MAX_CHUNKS:
            raise bad_request("The xorb is cut off or has too many chunks")
        header = bytes(xorb[at : at + _CHUNK_HEADER])
        chunk = Chunk(
            at + _CHUNK_HEADER, int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:], "little"), header[4]
        )
        at = chunk.start + chunk.packed
        if header[0] != 0 or chunk.scheme > _GROUPED_LZ4 or not 0 < chunk.size <= MAX_CHUNK_BYTES or at > len(xorb):
            raise bad_request("The xorb has an unreadable chunk")
        if chunk.scheme == _STORED and chunk.packed != chunk.size:
            raise bad_request("The xorb has a stored chunk of two sizes")
        chunks.append(chunk)
    if not chunks:
        raise bad_request("The xorb has no chunk")
    return chunks


def unpack(xorb: memoryview, chunk: Chunk) -> bytes | bytearray:
    """A chunk's content, exactly `chunk.size` bytes; raises a 400 when it does not unpack to that."""
    packed = bytes(xorb[chunk.start : chunk.start + chunk.packed])
    if chunk.scheme == _STORED:
        return packed
    content = _unpack_lz4(packed, chunk.size)
    return _ungroup(content) if chunk.scheme == _GROUPED_LZ4 else content


def _unpack_lz4(packed: bytes, size: int) -> bytes:
    from pyarrow import ArrowException, decompress  # a fifth of a second, which a server without Xet uploads never pays

    try:
        return decompress(packed, decompressed_size=size, codec="lz4", asbytes=True)
    except (ArrowException, OSError, ValueError) as error:
        raise bad_request("A chunk of the xorb does not unpack") from error


def _ungroup(content: bytes) -> bytearray:
    """Undo the grouping of every fourth byte, which lets numbers of four bytes compress better."""
    plain = bytearray(len(content))
    at = 0
    for lane in range(4):
        length = len(range(lane, len(content), 4))
        plain[lane::4] = content[at : at + length]
        at += length
    return plain


def _records(shard: IO[bytes]) -> Iterator[bytes]:
    shard.seek(_RECORD)
    while len(record := shard.read(_RECORD)) == _RECORD:
        yield record


def read_shard(shard: IO[bytes]) -> Iterator[SharedFile]:
    """The files of a shard; what it says about its xorbs and its lookup tables is not needed."""
    records = _records(shard)
    small = 0
    for record in records:
        if record[:HASH_BYTES] == _END:
            return
        flags, count = struct.unpack_from("<II", record, HASH_BYTES)
        if count > MAX_RUNS:
            raise bad_request("The shard has a file of too many parts")
        runs = tuple(_run(_next(records)) for _ in range(count))
        if flags & _WITH_VERIFICATION:
            for _ in range(count):
                _next(records)
        file = SharedFile(hash_text(_next(records)) if flags & _WITH_SHA256 else None, runs)
        small += max(0, file.chunks - 1 - file.size // MIN_MEAN_BYTES)
        if small > MAX_CHUNKS:
            raise bad_request("The shard has files of too many small chunks")
        yield file
    raise _cut_off()


def _run(record: bytes) -> Run:
    _, size, first, end = struct.unpack_from("<IIII", record, HASH_BYTES)
    if not first < end <= MAX_CHUNKS:
        raise bad_request("The shard names chunks that cannot be")
    return Run(hash_text(record), first, end, size)


def _next(records: Iterator[bytes]) -> bytes:
    record = next(records, None)
    if record is None:
        raise _cut_off()
    return record


def _cut_off() -> Refusal:
    return bad_request("The shard is cut off")
