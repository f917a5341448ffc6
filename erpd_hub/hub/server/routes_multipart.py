"""Very large LFS files arrive in parts, so that a broken connection costs one part and not the whole upload.

    PUT  /lfs-upload/{oid}/{number}?...   one part, from 1; answers with its ETag
    POST /lfs-upload/{oid}?...            all parts are there: the file is hashed and becomes a blob

Parts are written in their place of one file, `parts/{oid}-{account}`, which the blob store then takes over.
"""

import os
import time
from hashlib import md5, sha256
from math import ceil
from pathlib import Path

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.call import Call, Json, Routes, reply
from erpd_hub.hub.server.errors import bad_request, forbidden
from erpd_hub.hub.server.signing import Upload
from erpd_hub.hub.server.uploads import UPLOAD_SEGMENT, body_parts, permitted_upload

MIN_PART_BYTES = 64 << 20
MAX_PARTS = 1000
ABANDONED_S = 7 * 24 * 3600
"""Age at which the parts of an upload that was never completed are removed."""


def part_bytes(size: int) -> int:
    """Bytes of each part of an upload but the last."""
    return max(MIN_PART_BYTES, ceil(size / MAX_PARTS))


def action(base_url: str, oid: str, size: int, query: str, part: int) -> Json:
    """What the batch call tells a client that may upload in parts of `part` bytes."""
    link = f"{base_url}/{UPLOAD_SEGMENT}/{oid}"
    count = ceil(size / part)
    urls = {f"{number:05}": f"{link}/{number}?{query}&part={part}" for number in range(1, count + 1)}
    return {"href": f"{link}?{query}", "header": {"chunk_size": str(part), **urls}}


async def put_part(call: Call, upload: Upload) -> Response:
    number, part = (_number(text) for text in (call.target.rest[1], call.query("part") or ""))
    start = (number - 1) * part
    if not (part > 0 and 0 <= start < upload.size):
        raise bad_request("There is no such part")
    path = await to_thread.run_sync(_parts_file, call, upload)
    digest = md5(usedforsecurity=False)
    at = start
    with path.open("r+b", buffering=0) as file:
        async for chunk in body_parts(call, min(part, upload.size - start)):
            digest.update(chunk)
            at += await to_thread.run_sync(_write_at, file.fileno(), chunk, at)
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


async def complete(call: Call) -> Response:
    upload = await to_thread.run_sync(permitted_upload, call)
    await to_thread.run_sync(_complete, call, upload)
    return reply({})


def _complete(call: Call, upload: Upload) -> None:
    path = _parts_path(call, upload)
    with call.hub.blobs.receive(upload.oid) as incoming:
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != upload.size:
                    raise bad_request("Parts of the upload are missing")
                while chunk := file.read(4 << 20):
                    incoming.write(chunk)
        except FileNotFoundError as error:
            raise bad_request("Parts of the upload are missing") from error
        incoming.keep()
    path.unlink(missing_ok=True)
    with call.hub.db.write() as db:
        possession.note_upload(db, upload.account, upload.oid)


def _write_at(descriptor: int, chunk: bytearray, at: int) -> int:
    left = memoryview(chunk)
    while left:
        written = os.pwrite(descriptor, left, at)
        at += written
        left = left[written:]
    return len(chunk)


def _parts_file(call: Call, upload: Upload) -> Path:
    """The file that takes the parts, made when the first arrives; abandoned ones go."""
    path = _parts_path(call, upload)
    path.parent.mkdir(exist_ok=True)
    for other in path.parent.iterdir():
        if other.stat().st_mtime < time.time() - ABANDONED_S:
            other.unlink(missing_ok=True)
    path.touch()
    return path


def _parts_path(call: Call, upload: Upload) -> Path:
    account = sha256(upload.account.encode()).hexdigest()[:16]
    return call.hub.root / "parts" / f"{upload.oid}-{account}"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 13:
        raise forbidden("The upload link is invalid")
    return int(text)


UPLOAD_ROUTES: Routes = {("POST", UPLOAD_SEGMENT): complete}
