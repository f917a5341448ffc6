"""Bodies of requests: bounded in size, in what they keep in memory, and in how long nothing comes of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from anyio import fail_after, to_thread
from starlette.requests import Request
from starlette.types import Message, Receive

from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.errors import Refusal, too_large

SILENCE_S = 60.0
"""Between parts of a body: a client that is gone without a word must not keep a thread, a file or a lock for ever."""
SPOOL_CHUNK = 256 << 10
"""Bytes gathered before a hop to the thread pool, which is what a body keeps in memory."""


def impatient(receive: Receive) -> Receive:
    """For reading a body: raises a 408 where nothing more of it comes."""

    async def receive_soon() -> Message:
        try:
            with fail_after(SILENCE_S):
                return await receive()
        except TimeoutError:
            message = f"Nothing more of the body came for {SILENCE_S:.0f} seconds"
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, message, headers={"Connection": "close"}) from None

    return receive_soon


async def read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large(f"The body is larger than {limit} bytes")
    return bytes(body)


@asynccontextmanager
async def spooled(request: Request, blobs: BlobStore, limit: int) -> AsyncIterator[Path]:
    """The request body as a file for the length of the block; raises a 413 beyond `limit` bytes."""
    received = 0
    part = bytearray()
    with blobs.scratch() as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise too_large(f"The body is larger than {limit} bytes")
            part += chunk
            if len(part) >= SPOOL_CHUNK:
                await to_thread.run_sync(file.write, part)
                part = bytearray()
        file.write(part)
        file.flush()
        yield Path(file.name)
