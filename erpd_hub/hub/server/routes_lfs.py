"""Large files on their way in: the LFS batch call and the signed upload it points to.

The upload answers only after the bytes are hashed and durable, so no separate verification is asked of the client.
"""

import asyncio
from collections.abc import Collection
from hashlib import sha256
from http import HTTPStatus

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server import possession, routes_multipart
from erpd_hub.hub.server.blobs import INLINE_LIMIT, wrong_hash
from erpd_hub.hub.server.call import Call, Json, Routes, object_list, reply, text_field
from erpd_hub.hub.server.errors import bad_request, repo_not_found, too_large
from erpd_hub.hub.server.paths import is_hex
from erpd_hub.hub.server.repos import Repo
from erpd_hub.hub.server.signing import Upload
from erpd_hub.hub.server.uploads import UPLOAD_SEGMENT, body_parts, permitted_upload

MULTIPART_FROM = 1 << 30
"""Bytes from which on a client that can is asked to send parts."""
MAX_OBJECT_BYTES = 1 << 40
MAX_OBJECTS = 1000
"""Of one batch; clients announce 256."""
MAX_LINKS = 50_000
"""Upload links of one answer, each of some 300 bytes."""
_LFS_TYPE = "application/vnd.git-lfs+json"


def batch(call: Call) -> Response:
    if call.target.rest != ("lfs", "objects", "batch"):
        raise repo_not_found()
    call.member()  # the commit decides; its branch may be a pull request
    repo = call.repo()
    if call.json.get("operation") != "upload":
        raise bad_request("Only uploads are negotiated; download through resolve")
    transfers = call.json.get("transfers")
    known = transfers if isinstance(transfers, list) else []
    asked = object_list(call.json, "objects")
    if len(asked) > MAX_OBJECTS:
        raise too_large(f"At most {MAX_OBJECTS} objects may be announced at a time")
    objects: list[Json] = []
    links = 0
    for item in asked:
        objects.append(_offer(call, repo, known, item))
        links += _links(objects[-1])
        if links > MAX_LINKS:
            raise too_large("These objects are too large for one batch; announce fewer at a time")
    answer = {"transfer": "multipart" if links else "basic", "hash_algo": "sha256", "objects": objects}
    return reply(answer, headers={"Content-Type": _LFS_TYPE})


def _links(offer: Json) -> int:
    """Links to upload an object in parts, 0 when it is sent whole or not at all."""
    actions = offer.get("actions")
    return len(actions["upload"].get("header", ())) if isinstance(actions, dict) else 0


def _offer(call: Call, repo: Repo, transfers: Collection[object], item: Json) -> Json:
    """One object of the answer: where to upload it, nothing when the caller need not, or why it is refused."""
    oid, size = text_field(item, "oid"), item.get("size")
    if not is_hex(oid, 64) or type(size) is not int or not 0 <= size <= MAX_OBJECT_BYTES:
        error = {"code": HTTPStatus.UNPROCESSABLE_ENTITY, "message": "Invalid object id or size"}
        return {"oid": oid, "size": size, "error": error}
    offer: Json = {"oid": oid, "size": size, "authenticated": True}
    assert call.user is not None
    usable = possession.may_use(call.db, call.hub.accounts, call.user, repo, oid)
    if not usable or call.hub.blobs.size(call.db, oid) != size:
        query = call.hub.signer.query(Upload(repo.id, call.user.name, oid, size))
        if size >= MULTIPART_FROM and "multipart" in transfers:
            upload = routes_multipart.action(call.base_url, oid, size, query)
        else:
            upload = {"href": f"{call.base_url}/{UPLOAD_SEGMENT}/{oid}?{query}"}
        offer["actions"] = {"upload": upload}
    return offer


async def upload(call: Call) -> Response:
    permitted = await to_thread.run_sync(permitted_upload, call)
    if len(call.target.rest) > 1:
        return await routes_multipart.put_part(call, permitted)
    content = bytearray()
    if permitted.size <= INLINE_LIMIT:
        async for part in body_parts(call, permitted.size):
            content += part
    else:
        await _receive(call, permitted.oid, permitted.size)
    await to_thread.run_sync(_note, call, permitted, bytes(content))
    return reply({})


def _note(call: Call, upload: Upload, content: bytes) -> None:
    """Keep small content, and remember who sent it."""
    small = upload.size <= INLINE_LIMIT
    if small and sha256(content).hexdigest() != upload.oid:
        raise wrong_hash()
    with call.hub.db.write() as db:
        if small:
            call.hub.blobs.put_inline(db, upload.oid, content)
        possession.note_upload(db, upload.account, upload.oid)


async def _receive(call: Call, oid: str, size: int) -> None:
    """Take a file in, hashing and writing one part while the next arrives."""
    loop = asyncio.get_running_loop()
    with call.hub.blobs.receive(oid) as incoming:
        writing = loop.run_in_executor(None, incoming.write, b"")
        try:
            async for part in body_parts(call, size):
                await writing
                writing = loop.run_in_executor(None, incoming.write, part)
        finally:
            await writing
        await to_thread.run_sync(incoming.keep)


UPLOAD_ROUTES: Routes = {("PUT", UPLOAD_SEGMENT): upload, **routes_multipart.UPLOAD_ROUTES}
CONTENT_ROUTES: Routes = {("POST", "info"): batch}
