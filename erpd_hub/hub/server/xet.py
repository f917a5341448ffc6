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
import os
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
from typing import IO, NamedTuple

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

    def add(self, owner: str, xorb: str, file: Path) -> None:
        """Take a file of the same disk away as a xorb; raises a 400 for one that cannot be read."""
        with _mapped(file) as content:
            read_chunks(content)
        file.rename(self._waiting(owner) / xorb)

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
        with suppress(FileNotFoundError):  # all was forgotten meanwhile
            for raw, places in _whole_xorbs(waiting, file, sha):
                with _appearing(_places_file(raw)) as note:
                    note.write(json.dumps(places).encode())
                    note.flush()
                    os.fsync(note.fileno())  # or a loss of power could leave neither the xorb nor the note
                raw.unlink(missing_ok=True)

    def _places(self, raw: Path) -> list[Place]:
        try:
            return [Place(*place) for place in json.loads(_places_file(raw).read_bytes())]
        except FileNotFoundError as error:
            raise bad_request("A xorb the shard refers to was not uploaded") from error
        except (ValueError, TypeError) as error:
            raise _lost() from error


def _whole_xorbs(waiting: Path, file: SharedFile, sha: str) -> Iterator[tuple[Path, list[Place]]]:
    """The waiting xorbs of which the file has every chunk, with the places of these."""
    runs: dict[str, list[tuple[int, Run]]] = {}
    at = 0
    for run in file.runs:
        runs.setdefault(run.xorb, []).append((at, run))
        at += run.size
    for xorb, placed in runs.items():
        raw = waiting / xorb
        try:
            chunks = _chunks(raw) if raw.exists() else []
        except FileNotFoundError:  # another file of the same content was quicker
            continue
        if not 0 < len(chunks) <= sum(run.end - run.first for _, run in placed):
            continue
        places: dict[int, Place] = {}
        for start, run in placed:
            for index, chunk in enumerate(chunks[run.first : run.end], start=run.first):
                places[index] = Place(sha, start, chunk.size)
                start += chunk.size
        if len(places) == len(chunks):
            yield raw, [places[index] for index in range(len(chunks))]


def _owner_name(owner: str) -> str:
    return sha256(owner.encode()).hexdigest()[:32]


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that is at `path` when it was written whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


@lru_cache(maxsize=32)
def _chunks(raw: Path) -> list[Chunk]:
    with _mapped(raw) as xorb:
        return read_chunks(xorb)


@contextmanager
def _mapped(raw: Path) -> Iterator[memoryview]:
    if raw.stat().st_size == 0:  # by a loss of power
        raise _lost()
    with (
        raw.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as xorb,
    ):
        yield xorb


def _lost() -> Refusal:
    return bad_request("A xorb the shard refers to was lost")


def _places_file(raw: Path) -> Path:
    return raw.with_suffix(".in")
