"""Xet uploads, which clients choose unasked for large files: a token, xorbs, and the shard that makes files of them.

The shard answers once its files are durable blobs with the announced sha256; the commit then names them as it names
files uploaded through LFS. There are no Xet reads: listings carry no xetHash, so clients download plainly.
"""

from pathlib import Path

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server.bodies import spooled
from erpd_hub.hub.server.call import Call, Routes, reply
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.paths import is_hex
from erpd_hub.hub.server.xorbs import MAX_SHARD_BYTES, MAX_XORB_BYTES, read_shard

SEGMENT = "xet"
TOKEN_LIFETIME_S = 3600
"""Clients ask for a new one in time."""


def write_token(call: Call) -> Response:
    call.commit_repo(call.rest_text())
    owner = call.member().name
    token, expires = call.hub.signer.token("xet", owner, TOKEN_LIFETIME_S)
    address = f"{call.base_url}/{SEGMENT}/{call.hub.xorbs.address(owner)}"
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return reply({"casUrl": address, "accessToken": token, "exp": expires}, headers=headers)


async def store(call: Call) -> Response:
    owner = await to_thread.run_sync(_owner, call)
    match call.target.rest[1:]:
        case ("v1", "xorbs", _, xorb) if is_hex(xorb, 64):
            return reply({"was_inserted": await _store_xorb(call, owner, xorb)})
        case ("v1", "shards"):
            await _store_shard(call, owner)
            return reply({"result": 1})
    raise _not_here()


def look_up(call: Call) -> Response:
    """Chunks known from elsewhere, and reads: nothing of the kind, which clients take for an answer."""
    _owner(call)
    raise _not_here()


async def _store_xorb(call: Call, owner: str, xorb: str) -> bool:
    if await to_thread.run_sync(call.hub.xorbs.has, owner, xorb):
        return False
    async with spooled(call.request, call.hub.blobs, MAX_XORB_BYTES) as file:
        await to_thread.run_sync(call.hub.xorbs.add, owner, xorb, file)
    return True


async def _store_shard(call: Call, owner: str) -> None:
    async with spooled(call.request, call.hub.blobs, MAX_SHARD_BYTES) as file:
        await to_thread.run_sync(_assemble, call, owner, file)


def _assemble(call: Call, owner: str, path: Path) -> None:
    with path.open("rb") as shard:
        for file in read_shard(shard):
            call.hub.xorbs.assemble(owner, file)


def _owner(call: Call) -> str:
    """The account that the access token was given to."""
    scheme, _, token = (call.request.headers.get("authorization") or "").partition(" ")
    owner = call.hub.signer.owner("xet", token.strip()) if scheme.lower() == "bearer" else None
    if owner is None or not call.hub.accounts.has(owner):
        raise Refusal(401, "The Xet access token is invalid or has expired")
    if call.target.rest[:1] != (call.hub.xorbs.address(owner),):
        raise _not_here()
    return owner


def _not_here() -> Refusal:
    return Refusal(404, "Not found")


UPLOAD_ROUTES: Routes = {("POST", SEGMENT): store, ("GET", SEGMENT): look_up, ("HEAD", SEGMENT): look_up}
REPO_ROUTES: Routes = {("GET", "xet-write-token"): write_token}
