"""What is finished of a sampling job: an append-only file of samples, one a replica, that any kill leaves readable.

A record is `length, crc32, payload` (little endian; payload: key, finish reason, counts, int32 token ids, fp32
log-probs, UTF-8 text). A record that a kill cut short, or that a crash of the machine left damaged, fails its checksum;
it and what follows it in its file are dropped and drawn again. In memory is only where each record lies.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from erpd_hub.samples import FinishReason
from erpd_hub.sampling.engine import Completion

_FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<qBii")
"""Key, index of the finish reason, number of token ids, number of log-probs (-1: none were given).

A number of ids below -1 is -2 minus the tokens that a server without ids has counted."""
_REASONS: tuple[FinishReason, ...] = ("stop", "length")


class _Place(NamedTuple):
    file: Path
    offset: int
    length: int
    tokens: int


class Journal:
    """The finished samples of all replicas, and the file that this one appends to.

    Keys are sample seeds: a seed is a function of all that identifies a sample, so an entry fits wherever it is needed.
    """

    def __init__(self, folder: Path, replica: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"journal-{replica}.bin"
        self._places: dict[int, _Place] = {}
        self.counted = False
        """Whether some samples have a count of tokens in the place of ids."""
        self._readers: dict[Path, BinaryIO] = {}
        for path in {own, *folder.glob("journal-*.bin")}:
            end = self._index(path) if path.exists() else 0
            if path == own:
                # Others may be writing to theirs; a torn tail of this one would hide what comes after it.
                self._stream = own.open("ab", buffering=0)
                self._stream.truncate(end)
        self._own = own

    def __contains__(self, key: int) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, key: int, completion: Completion) -> None:
        """Write one finished sample; when this returns, a kill of the process does not lose it."""
        payload = _encode(key, completion)
        offset = self._stream.seek(0, 2) + _FRAME.size
        record = memoryview(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        while record:
            record = record[self._stream.write(record) :]
        self._places[key] = _Place(self._own, offset, len(payload), completion.num_tokens)
        self.counted |= completion.response_ids is None and completion.counted is not None

    def read(self, key: int) -> Completion:
        place = self._places[key]
        if place.file not in self._readers:
            self._readers[place.file] = place.file.open("rb")
        stream = self._readers[place.file]
        stream.seek(place.offset)
        return _decode(stream.read(place.length))

    def num_tokens(self, key: int) -> int:
        """Response tokens of a sample; 0 where nobody has counted them."""
        return self._places[key].tokens

    def close(self) -> None:
        for stream in (self._stream, *self._readers.values()):
            stream.close()

    def _index(self, path: Path) -> int:
        """Note where each whole record is; returns where they end."""
        end = 0
        with path.open("rb") as stream:
            for offset, payload in _whole_records(stream):
                key, _, num_ids, _ = _HEAD.unpack_from(payload)
                tokens = num_ids if num_ids >= 0 else _counted(num_ids) or 0
                self.counted |= num_ids < -1
                self._places.setdefault(key, _Place(path, offset, len(payload), tokens))
                end = offset + len(payload)
        return end


def _whole_records(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) up to the first record that is not whole."""
    while len(frame := stream.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(frame)
        offset = stream.tell()
        payload = stream.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum or length < _HEAD.size:
            return
        yield offset, payload


def _encode(key: int, completion: Completion) -> bytes:
    ids = b"" if completion.response_ids is None else np.asarray(completion.response_ids, "<i4").tobytes()
    logprobs = b"" if completion.logprobs is None else np.asarray(completion.logprobs, "<f4").tobytes()
    without_ids = -1 if completion.counted is None else -2 - completion.counted
    counts = (
        without_ids if completion.response_ids is None else len(completion.response_ids),
        -1 if completion.logprobs is None else len(completion.logprobs),
    )
    head = _HEAD.pack(key, _REASONS.index(completion.finish_reason), *counts)
    return head + ids + logprobs + completion.text.encode("utf-8", "surrogatepass")


def _decode(payload: bytes) -> Completion:
    _, reason, num_ids, num_logprobs = _HEAD.unpack_from(payload)
    at = _HEAD.size
    ids = None if num_ids < 0 else np.frombuffer(payload, "<i4", num_ids, at).tolist()
    at += 4 * max(num_ids, 0)
    logprobs = None if num_logprobs < 0 else np.frombuffer(payload, "<f4", num_logprobs, at).tolist()
    at += 4 * max(num_logprobs, 0)
    text = payload[at:].decode("utf-8", "surrogatepass")
    return Completion(ids, logprobs, _REASONS[reason], text, _counted(num_ids))


def _counted(num_ids: int) -> int | None:
    """Tokens that a server without ids has counted."""
    return -2 - num_ids if num_ids < -1 else None
