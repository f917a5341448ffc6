"""Where uploaded xorbs wait until a shard says which files they are.

    xorbs/{owner}/{address}/{hash}      a xorb as it came
    xorbs/{owner}/{address}/{hash}.in   the same chunks, by their place in stored blobs, once a file has taken them all

A client remembers for weeks which chunks it has sent to an address and does not send them again. So a xorb stays
readable after its bytes became part of a blob; whoever removes blobs calls `forget` first, which changes the addresses;
and when a file cannot be made of what an owner sent (a xorb was lost or spoiled since), all of that owner's is
forgotten, so that the next try brings everything again.
Owners are accounts: nobody can refer to the chunks of another account, or put chunks in its way.
"""

import json
import mmap
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.blobs import INLINE_LIMIT, BlobStore, read_range, wrong_hash
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.errors import Refusal, bad_request
from erpd_hub.hub.server.xorbs import Chunk, Run, SharedFile, read_chunks, unpack

FOLDER = "xorbs"
_ADDRESS_CHARS = 16


class Place(NamedTuple):
    """Where a chunk's content is, inside a stored blob."""

    sha256: str
    start: int
    size: int


def forget(root: Path, owner: str | None = None) -> None:
    """Drop all xorbs, or those of one owner, and change the addresses: no client relies on what it sent before then."""
    folder = root / FOLDER / _owner_name(owner) if owner is not None else root / FOLDER
    with suppress(FileNotFoundError):  # in one step: an address that lost a part of its xorbs would be worse
        folder.rename(root / f"{FOLDER}-{secrets.token_hex(8)}")
    for forgotten in root.glob(f"{FOLDER}-*"):
        shutil.rmtree(forgotten, ignore_errors=True)


class XorbStore:
    """The xorbs of one Hub."""

    def __init__(self, root: Path, blobs: BlobStore, db: Database) -> None:
        self._root = root
        self._blobs = blobs
        self._db = db
        self._lock = threading.Lock()

    def address(self, owner: str) -> str:
        """Part of the address that an account is given. Each has its own: what a client has sent for one account it
        would otherwise not send for another one of the same machine, whose chunks are not the first one's."""
        return self._waiting(owner).name

    def _waiting(self, owner: str) -> Path:
        """The folder of an owner's xorbs, whose name is their address."""
        folder = self._root / FOLDER / _owner_name(owner)
        with self._lock:
            known = sorted(folder.glob("?" * _ADDRESS_CHARS))
            if not known:
                known = [folder / secrets.token_hex(_ADDRESS_CHARS // 2)]
                known[0].mkdir(parents=True)
            return known[0]

    def has(self, owner: str, xorb: str) -> bool:
        raw = self._waiting(owner) / xorb
        return raw.exists() or _places_file(raw).exists()

    def add(self, owner: str, xorb: str, content: bytes | bytearray) -> None:
        """Take in a xorb; raises a 400 for one that cannot be read."""
        read_chunks(memoryview(content))
        raw = self._waiting(owner) / xorb
        with tempfile.NamedTemporaryFile(dir=raw.parent, suffix=".new", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.flush()
                temporary.rename(raw)
            finally:
                temporary.unlink(missing_ok=True)

    def assemble(self, owner: str, file: SharedFile) -> str:
        """Make a file of a shard a durable blob and return its sha256; raises a 400 when its xorbs are not here or do
        not hash to it, and asks for all of them again."""
        try:
            return self._assemble(owner, self._waiting(owner), file)
        except Refusal:
            forget(self._root, owner)
            raise

    def _assemble(self, owner: str, waiting: Path, file: SharedFile) -> str:
        sha = file.sha256 or self._digest(waiting, file)
        if self._blobs.size(self._db.read(), sha) != file.size:
            self._store(waiting, file, sha)
        elif file.sha256 and self._digest(waiting, file) != sha:  # who knows a hash does not thereby have the content
            raise wrong_hash()
        with self._db.write() as db:
            possession.note_upload(db, owner, sha)
        self._settle(waiting, file, sha)
        return sha

    def _digest(self, waiting: Path, file: SharedFile) -> str:
        digest = sha256()
        for part in self._content(waiting, file):
            digest.update(part)
        return digest.hexdigest()

    def _store(self, waiting: Path, file: SharedFile, sha: str) -> None:
        if file.size <= INLINE_LIMIT:
            content = b"".join(self._content(waiting, file))
            if sha256(content).hexdigest() != sha:
                raise wrong_hash()
            with self._db.write() as db:
                self._blobs.put_inline(db, sha, content)
            return
        with self._blobs.receive(sha) as incoming:
            for part in self._content(waiting, file):
                incoming.write(part)
            incoming.keep()

    def _content(self, waiting: Path, file: SharedFile) -> Iterator[bytes | bytearray]:
        for run in file.runs:
            left = run.size
            for part in self._read(waiting / run.xorb, run):
                left -= len(part)
                if left < 0:
                    break
                yield part
            if left:
                raise bad_request("A part of the file is not as long as the shard says")

    def _read(self, raw: Path, run: Run) -> Iterator[bytes | bytearray]:
        """The content of a run of chunks, from the xorb itself or from where its chunks went."""
        try:
            with _mapped(raw) as xorb:
                for chunk in _chunks(raw)[run.first : run.end]:
                    yield unpack(xorb, chunk)
        except FileNotFoundError:
            for place in self._places(raw)[run.first : run.end]:
                yield from self._read_place(self._db.read(), place)

    def _read_place(self, db: sqlite3.Connection, place: Place) -> Iterator[bytes]:
        content = self._blobs.inline(db, place.sha256)
        if content is not None:
            yield content[place.start : place.start + place.size]
        elif self._blobs.size(db, place.sha256) is not None:
            yield from read_range(self._blobs.path(place.sha256), place.start, place.size)

    def _settle(self, waiting: Path, file: SharedFile, sha: str) -> None:
        """Replace xorbs that are wholly part of this blob by a note of where their chunks are."""
        with self._lock:
            for xorb, places in self._whole_xorbs(waiting, file, sha).items():
                raw = waiting / xorb
                temporary = raw.with_suffix(".new")
                temporary.write_text(json.dumps(places))
                temporary.rename(_places_file(raw))
                raw.unlink(missing_ok=True)

    def _whole_xorbs(self, waiting: Path, file: SharedFile, sha: str) -> dict[str, list[Place]]:
        placed: dict[str, dict[int, Place]] = {}
        sizes: dict[str, list[int]] = {}
        at = 0
        for run in file.runs:
            if run.xorb not in sizes:
                sizes[run.xorb] = self._chunk_sizes(waiting / run.xorb)
            start = at
            for index, size in enumerate(sizes[run.xorb][run.first : run.end], start=run.first):
                placed.setdefault(run.xorb, {})[index] = Place(sha, start, size)
                start += size
            at += run.size
        return {
            xorb: [chunks[index] for index in range(len(sizes[xorb]))]
            for xorb, chunks in placed.items()
            if len(chunks) == len(sizes[xorb])
        }

    def _chunk_sizes(self, raw: Path) -> list[int]:
        """Sizes of a waiting xorb's chunks; none for one that is already part of a blob."""
        try:
            return [chunk.size for chunk in _chunks(raw)]
        except FileNotFoundError:
            return []

    def _places(self, raw: Path) -> list[Place]:
        try:
            return [Place(*place) for place in json.loads(_places_file(raw).read_bytes())]
        except FileNotFoundError as error:
            raise bad_request("A xorb the shard refers to was not uploaded") from error


def _owner_name(owner: str) -> str:
    return sha256(owner.encode()).hexdigest()[:32]


@lru_cache(maxsize=32)
def _chunks(raw: Path) -> list[Chunk]:
    with _mapped(raw) as xorb:
        return read_chunks(xorb)


@contextmanager
def _mapped(raw: Path) -> Iterator[memoryview]:
    if raw.stat().st_size == 0:  # by a loss of power
        raise bad_request("A xorb the shard refers to was lost")
    with (
        raw.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as xorb,
    ):
        yield xorb


def _places_file(raw: Path) -> Path:
    return raw.with_suffix(".in")
