"""Content-addressed bytes: small ones inside sqlite, where they share the commit's one fsync, others as files.

A file is written to a temporary name, hashed while it arrives, fsynced and renamed, so that `blobs/ab/abcd...` is
complete whenever it exists.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from erpd_hub.hub.server.errors import bad_request

INLINE_LIMIT = 64 << 10
"""Bytes up to which a blob lives in sqlite."""
READ_CHUNK = 1 << 20


class BlobStore:
    """All content the Hub holds, keyed by sha256 and shared between repositories."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        sync_folder(root)
        for leftover in self._incoming.iterdir():  # uploads a killed server never finished
            leftover.unlink()

    def path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def size(self, db: sqlite3.Connection, sha256: str) -> int | None:
        """Bytes of a stored blob, None when absent."""
        row = db.execute("SELECT length(data) FROM blobs WHERE sha256 = ?", (sha256,)).fetchone()
        if row is not None:
            return int(row[0])
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def inline(self, db: sqlite3.Connection, sha256: str) -> bytes | None:
        """The content when it lives in sqlite; None means it is the file `path(sha256)`."""
        row = db.execute("SELECT data FROM blobs WHERE sha256 = ?", (sha256,)).fetchone()
        return None if row is None else bytes(row[0])

    def read(self, db: sqlite3.Connection, sha256: str) -> bytes:
        """The whole content, for the few small files the server itself looks into."""
        content = self.inline(db, sha256)
        return self.path(sha256).read_bytes() if content is None else content

    def put_inline(self, db: sqlite3.Connection, sha256: str, content: bytes) -> None:
        db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (sha256, content))

    def receive(self, expected_sha256: str) -> "Incoming":
        return Incoming(self._incoming, self.path(expected_sha256))

    def put_file(self, sha256: str, content: bytes) -> None:
        """Store content larger than INLINE_LIMIT durably."""
        if self.path(sha256).exists():  # perhaps since a moment ago, by another request
            sync_folder(self.path(sha256).parent)
            return
        with self.receive(sha256) as incoming:
            incoming.write(content)
            incoming.keep()


class Incoming:
    """One blob on its way in; leaving the context without `keep` discards it."""

    def __init__(self, folder: Path, target: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=0)
        self._temporary = Path(name)
        self._target = target
        self._digest = hashlib.sha256()

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, chunk: bytes | bytearray) -> None:
        self._digest.update(chunk)
        left = memoryview(chunk)
        while left:  # a disk about to be full takes a part before it refuses
            left = left[self._file.write(left) :]

    def keep(self) -> None:
        """Make the blob durable under its name; raises a 400 when the bytes do not hash to it."""
        if self._digest.hexdigest() != self._target.name:
            raise bad_request("The uploaded bytes do not have the announced sha256")
        os.fsync(self._file.fileno())
        self._target.parent.mkdir(exist_ok=True)
        self._temporary.rename(self._target)
        sync_folder(self._target.parent)
        sync_folder(self._target.parent.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_range(path: Path, start: int, length: int) -> Iterator[bytes]:
    """Bytes `start` to `start + length` of a file in chunks."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while length > 0 and (chunk := file.read(min(READ_CHUNK, length))):
            length -= len(chunk)
            yield chunk
