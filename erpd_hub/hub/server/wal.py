"""The checksums of sqlite's write-ahead log (https://sqlite.org/fileformat2.html#the_write_ahead_log).

sqlite reads a log up to the first frame that does not have its checksum and takes what follows for leftovers, so a
flipped byte silently drops every later transaction. A log that merely ends in a frame cut short is what a killed
server leaves; frames of the same generation behind a bad one show that it was whole once.
"""

import struct
from operator import eq
from pathlib import Path

_HEADER = 32
_FRAME_HEADER = 24
_MAGIC = (0x377F0682, 0x377F0683)
_MASK = 0xFFFFFFFF


def damaged_frame(path: Path) -> int | None:
    """The first frame, counted from 1, that was damaged after it was written (0: the header); None for a good log."""
    try:
        log = path.read_bytes()
    except FileNotFoundError:
        return None
    if not log:
        return None
    if len(log) < _HEADER:
        return 0
    magic, _, page_size, _ = struct.unpack(">4I", log[:16])
    order = ">" if magic & 1 else "<"
    state = _checksum(log[:24], (0, 0), order)
    if magic not in _MAGIC or state != struct.unpack(">2I", log[24:32]):
        return 0
    salts = log[16:24]
    frame = _FRAME_HEADER + page_size
    for number, start in enumerate(range(_HEADER, len(log) - frame + 1, frame), start=1):
        header = log[start : start + _FRAME_HEADER]
        state = _checksum(header[:8], state, order)
        state = _checksum(log[start + _FRAME_HEADER : start + frame], state, order)
        if header[8:16] != salts or state != struct.unpack(">2I", header[16:24]):
            return number if _goes_on(log, start, frame, salts) else None
    return None


def _goes_on(log: bytes, start: int, frame: int, salts: bytes) -> bool:
    """Whether the frame itself or one behind it is of this generation, but for a flipped byte in its salts."""
    frames = range(start, len(log) - frame + 1, frame)
    return any(sum(map(eq, log[at + 8 : at + 16], salts)) >= len(salts) - 1 for at in frames)


def _checksum(data: bytes, state: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = state
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
