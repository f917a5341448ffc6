"""Content-addressed bytes: small ones inside sqlite, where they share the commit's one fsync, others as files.

A file is written to a temporary name, hashed while it arrives, fsynced and renamed, so that `blobs/ab/abcd...` is
complete whenever it exists.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import IO, BinaryIO

from erpd_hub.hub.server.errors import Refusal, bad_request

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

    def read_part(self, db: sqlite3.Connection, sha256: str, start: int, length: int) -> bytes:
        """At most `length` bytes of the content."""
        content = self.inline(db, sha256)
        if content is not None:
            return content[start : start + length]
        return b"".join(read_range(self.path(sha256), start, length))

    def put_inline(self, db: sqlite3.Connection, sha256: str, content: bytes) -> None:
        db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (sha256, content))

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A file for the length of the block; who renames it may keep it."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

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

    def adopt(self, file: BufferedRandom, path: Path, sha256: str) -> None:
        """Make the file at `path`, open as `file`, a blob where it is, without a copy; raises a 400 when its bytes do
        not hash to it. Nobody else may be writing to it."""
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise wrong_hash()
        _keep(file, path, self.path(sha256))


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
            raise wrong_hash()
        _keep(self._file, self._temporary, self._target)


def _keep(file: BinaryIO, temporary: Path, target: Path) -> None:
    """Make a whole file durable under its name in the store."""
    os.fsync(file.fileno())
    target.parent.mkdir(exist_ok=True)
    temporary.rename(target)
    sync_folder(target.parent)
    sync_folder(target.parent.parent)


def wrong_hash() -> Refusal:
    return bad_request("The uploaded bytes do not have the announced sha256")


def blob_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the store below a Hub's root, by the name it has."""
    for path in sorted((root / "blobs").glob("*/*")):
        yield path.name, path


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
