"""Large files on their way in: the LFS batch call and the signed upload it points to.

The upload answers only after the bytes are hashed and durable, so no separate verification is asked of the client.
"""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from http import HTTPStatus

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server.blobs import INLINE_LIMIT
from erpd_hub.hub.server.call import Call, Json, Routes, object_list, reply, text_field
from erpd_hub.hub.server.errors import bad_request, forbidden, repo_not_found, too_large
from erpd_hub.hub.server.paths import is_hex

UPLOAD_SEGMENT = "lfs-upload"
WRITE_CHUNK = 4 << 20
"""Bytes gathered before a hop to the thread pool: hashing and writing them takes milliseconds, the hop does not."""
MAX_OBJECT_BYTES = 1 << 40
_LFS_TYPE = "application/vnd.git-lfs+json"


def batch(call: Call) -> Response:
    if call.target.rest != ("lfs", "objects", "batch"):
        raise repo_not_found()
    call.writable_repo()
    if call.json.get("operation") != "upload":
        raise bad_request("Only uploads are negotiated; download through resolve")
    objects = [_offer(call, item) for item in object_list(call.json, "objects")]
    answer = {"transfer": "basic", "hash_algo": "sha256", "objects": objects}
    return reply(answer, headers={"Content-Type": _LFS_TYPE})


def _offer(call: Call, item: Json) -> Json:
    """One object of the answer: where to upload it, nothing when it is already here, or why it is refused."""
    oid, size = text_field(item, "oid"), item.get("size")
    if not is_hex(oid, 64) or type(size) is not int or not 0 <= size <= MAX_OBJECT_BYTES:
        error = {"code": HTTPStatus.UNPROCESSABLE_ENTITY, "message": "Invalid object id or size"}
        return {"oid": oid, "size": size, "error": error}
    offer: Json = {"oid": oid, "size": size, "authenticated": True}
    if call.hub.blobs.size(call.db, oid) != size:
        href = f"{call.base_url}/{UPLOAD_SEGMENT}/{oid}?{call.hub.signer.query(oid, size)}"
        offer["actions"] = {"upload": {"href": href}}
    return offer


async def upload(call: Call) -> Response:
    oid, size = _granted(call)
    if size <= INLINE_LIMIT:
        content = bytearray()
        async for chunk in call.request.stream():
            content += chunk
            if len(content) > size:
                break
        await to_thread.run_sync(_keep_inline, call, oid, bytes(content))
    else:
        await _receive(call, oid, size)
    return reply({})


def _granted(call: Call) -> tuple[str, int]:
    """Object id and size that the signed link permits."""
    oid = call.target.rest[0] if len(call.target.rest) == 1 else ""
    size, expires, signature = (call.query(name) or "" for name in ("size", "expires", "signature"))
    if not is_hex(oid, 64) or not call.hub.signer.allows(oid, size=size, expires=expires, signature=signature):
        raise forbidden("The upload link is invalid or has expired")
    if call.request.headers.get("content-length", size) != size:
        raise bad_request(f"Expected {size} bytes")
    return oid, int(size)


def _keep_inline(call: Call, oid: str, content: bytes) -> None:
    if sha256(content).hexdigest() != oid:
        raise bad_request("The uploaded bytes do not have the announced sha256")
    with call.hub.db.write() as db:
        call.hub.blobs.put_inline(db, oid, content)


async def _receive(call: Call, oid: str, size: int) -> None:
    """Take a file in, hashing and writing one part while the next arrives."""
    loop = asyncio.get_running_loop()
    with call.hub.blobs.receive(oid) as incoming:
        writing = loop.run_in_executor(None, incoming.write, b"")
        try:
            async for part in _parts(call, size):
                await writing
                writing = loop.run_in_executor(None, incoming.write, part)
        finally:
            await writing
        await to_thread.run_sync(incoming.keep)


async def _parts(call: Call, size: int) -> AsyncIterator[bytearray]:
    """The request body in parts of WRITE_CHUNK; raises unless it is exactly `size` bytes."""
    received = 0
    part = bytearray()
    async for chunk in call.request.stream():
        received += len(chunk)
        if received > size:
            raise too_large(f"Expected {size} bytes")
        part += chunk
        if len(part) >= WRITE_CHUNK:
            yield part
            part = bytearray()
    if received != size:
        raise bad_request(f"Expected {size} bytes, got {received}")
    yield part


UPLOAD_ROUTES: Routes = {("PUT", UPLOAD_SEGMENT): upload}
CONTENT_ROUTES: Routes = {("POST", "info"): batch}
