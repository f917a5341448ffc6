"""Very large LFS files arrive in parts, so that a broken connection costs one part and not the whole upload.

    PUT  /lfs-upload/{oid}/{number}?...   one part, from 1; answers with its ETag
    POST /lfs-upload/{oid}?...            all parts are there: the file is hashed and becomes a blob

Parts are written in their place of one file, `parts/{oid}-{account}`, which the blob store then takes over; which of
them arrived whole stands in `parts/{oid}-{account}.done`. Each write holds a shared lock of the file and the completion
an exclusive one, so that nobody writes to what is about to be a blob; a part whose sender is silent holds none.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import md5, sha256
from math import ceil
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.call import Call, Json, Routes, reply
from erpd_hub.hub.server.errors import Refusal, bad_request, forbidden, unavailable
from erpd_hub.hub.server.signing import Upload
from erpd_hub.hub.server.uploads import UPLOAD_SEGMENT, body_parts, permitted_upload

MIN_PART_BYTES = 64 << 20
MAX_PARTS = 1000
ABANDONED_S = 7 * 24 * 3600
"""Age at which the parts of an upload that was never completed are removed."""


def part_bytes(size: int) -> int:
    """Bytes of each part of an upload but the last."""
    return max(MIN_PART_BYTES, ceil(size / MAX_PARTS))


def action(base_url: str, oid: str, size: int, query: str) -> Json:
    """What the batch call tells a client that may upload in parts."""
    link = f"{base_url}/{UPLOAD_SEGMENT}/{oid}"
    part = part_bytes(size)
    urls = {f"{number:05}": f"{link}/{number}?{query}" for number in _numbers(size)}
    return {"href": f"{link}?{query}", "header": {"chunk_size": str(part), **urls}}


def _numbers(size: int) -> range:
    return range(1, ceil(size / part_bytes(size)) + 1)


async def put_part(call: Call, upload: Upload) -> Response:
    number, part = _number(call.target.rest[1]), part_bytes(upload.size)
    if number not in _numbers(upload.size):
        raise bad_request("There is no such part")
    start = (number - 1) * part
    path = _parts_path(call, upload)
    digest = md5(usedforsecurity=False)
    at = start
    with await to_thread.run_sync(_open_parts, path) as file:
        async for chunk in body_parts(call, min(part, upload.size - start)):
            digest.update(chunk)
            at += await to_thread.run_sync(_write_at, path, file, chunk, at)
        await to_thread.run_sync(_note_done, path, file, number)
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


async def complete(call: Call) -> Response:
    upload = await to_thread.run_sync(permitted_upload, call)
    await to_thread.run_sync(_complete, call, upload)
    return reply({})


def _complete(call: Call, upload: Upload) -> None:
    path = _parts_path(call, upload)
    try:
        file = path.open("r+b")
    except FileNotFoundError as error:
        if _is_complete(call, upload):  # and the answer was lost
            return
        raise _missing() from error
    with file, _locked(path, file, fcntl.LOCK_EX):
        if not _done(path) >= set(_numbers(upload.size)):  # or a few bytes would pass for a file of any length
            raise _missing()
        try:
            call.hub.blobs.adopt(file, path, upload.oid)
        finally:  # parts that do not make the file are no use to its next upload
            path.unlink(missing_ok=True)
            _done_file(path).unlink(missing_ok=True)
    with call.hub.db.write() as db:
        possession.note_upload(db, upload.account, upload.oid)


def _is_complete(call: Call, upload: Upload) -> bool:
    sent = possession.has_sent(call.db, upload.account, upload.oid)
    return sent and call.hub.blobs.size(call.db, upload.oid) == upload.size


def _write_at(path: Path, file: BinaryIO, chunk: bytearray, at: int) -> int:
    left = memoryview(chunk)
    with _locked(path, file, fcntl.LOCK_SH):
        while left:
            written = os.pwrite(file.fileno(), left, at)
            at += written
            left = left[written:]
    return len(chunk)


def _note_done(path: Path, file: BinaryIO, number: int) -> None:
    with _locked(path, file, fcntl.LOCK_SH), _done_file(path).open("a") as done:
        done.write(f"{number}\n")


def _open_parts(path: Path) -> BinaryIO:
    """The file that takes the parts, made when the first arrives; abandoned ones go."""
    path.parent.mkdir(exist_ok=True)
    for other in path.parent.iterdir():
        with suppress(FileNotFoundError):  # another request may remove them too
            if other.stat().st_mtime < time.time() - ABANDONED_S:
                other.unlink()
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)


@contextmanager
def _locked(path: Path, file: BinaryIO, kind: int) -> Iterator[None]:
    """Hold a lock of the file while it is the one at `path`; raises a 503 when it is locked otherwise, or a completion
    took it away."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy() from error
    try:
        if not _is_at(path, file):
            raise _busy()
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _busy() -> Refusal:
    return unavailable("A part of this upload is being written, or it is being completed; try again")


def _missing() -> Refusal:
    return bad_request("Parts of the upload are missing")


def _done(path: Path) -> set[int]:
    """The parts that arrived whole."""
    try:
        return {int(line) for line in _done_file(path).read_text().split()}
    except FileNotFoundError:
        return set()


def _done_file(path: Path) -> Path:
    return path.with_suffix(".done")


def _parts_path(call: Call, upload: Upload) -> Path:
    account = sha256(upload.account.encode()).hexdigest()[:16]
    return call.hub.root / "parts" / f"{upload.oid}-{account}"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 13:
        raise forbidden("The upload link is invalid")
    return int(text)


UPLOAD_ROUTES: Routes = {("POST", UPLOAD_SEGMENT): complete}
