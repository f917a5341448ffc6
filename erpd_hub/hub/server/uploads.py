"""What every signed upload does: check its link, take its body in."""

from collections.abc import AsyncIterator

from erpd_hub.hub.server import repos
from erpd_hub.hub.server.call import Call
from erpd_hub.hub.server.errors import bad_request, forbidden, too_large
from erpd_hub.hub.server.paths import is_hex
from erpd_hub.hub.server.signing import Upload

UPLOAD_SEGMENT = "lfs-upload"
WRITE_CHUNK = 4 << 20
"""Bytes gathered before a hop to the thread pool: hashing and writing them takes milliseconds, the hop does not."""


def permitted_upload(call: Call) -> Upload:
    """What the signed link permits; raises a 403 when that is nothing."""
    oid = call.target.rest[0] if call.target.rest else ""
    permitted = call.hub.signer.permitted(oid, call.request.query_params) if is_hex(oid, 64) else None
    if permitted is None or not call.hub.accounts.has(permitted.account) or not repos.is_repo(call.db, permitted.repo):
        raise forbidden("The upload link is invalid or has expired")
    return permitted


async def body_parts(call: Call, size: int) -> AsyncIterator[bytearray]:
    """The request body in parts of WRITE_CHUNK; raises unless it is exactly `size` bytes."""
    if call.request.headers.get("content-length", str(size)) != str(size):
        raise bad_request(f"Expected {size} bytes")
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
