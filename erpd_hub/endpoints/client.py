"""One OpenAI-compatible server over HTTP: its models, its health, one completion at a time.

The key goes to the configured URL and nowhere else: redirects are not followed, and proxies and .netrc files of the
surroundings are not used. Replies are read up to a bound.
"""

import asyncio
import json
import os
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

import certifi
import httpx

from erpd_hub.endpoints.replies import Served, Setback, read_models, shown
from erpd_hub.errors import ConfigError, StageError

Health = Literal["up", "down", "silent"]

_CONNECT_SECONDS = 10.0
_HEALTH_SECONDS = 30.0
"""A server with hundreds of prompts to read may take its time to say that it is well."""
_SECOND_LOOK_SECONDS = 0.5
_KEEPALIVE_SECONDS = 3.0
"""Less than the 5 s after which uvicorn, and so vLLM, closes an idle connection under a request that is on its way."""
_LISTING_BYTES = 4 * 2**20
_LONGEST_WAIT = 300.0
"""Seconds: what a Retry-After is cut to."""


def key_in(variable: str) -> str | None:
    """The key in an environment variable, if there is one.

    Raises:
        ConfigError: it cannot stand in a header.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not (key.isprintable() or not key):
        raise ConfigError(f"{variable}: expected printable ASCII, got other characters; copy the key again")
    return key or None


class _Reply(NamedTuple):
    status: int
    headers: httpx.Headers
    payload: bytes


class Refused(StageError):
    """The server answered that it will not do this; asking again does not help."""

    def __init__(self, message: str, status: int, parameter: str | None = None) -> None:
        """
        Args:
            parameter: What of the request it refuses, where it says so apart from its words.
        """
        super().__init__(message)
        self.status = status
        self.parameter = parameter


class ServerClient:
    """One base URL; used and closed in one event loop.

    Every request in flight has an httpx client of its own, kept for the next: one pool looks through all of its
    connections at each request, and with hundreds of them that took three times as long as the request itself.
    """

    def __init__(self, url: str, *, key: str | None, key_name: str) -> None:
        """
        Args:
            key_name: The variable that it is from, for messages.
        """
        self.url = url
        self._key_name = key_name
        self._secrets = (key,) if key else ()
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "erpd-hub"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._trust = _trust() if url.startswith("https:") else False
        self._idle: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        for client in self._idle:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            follow_redirects=False,
            trust_env=False,
            verify=self._trust,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEPALIVE_SECONDS),
        )

    async def models(self) -> list[Served]:
        """What `/models` lists.

        Raises:
            Refused, Setback: it does not answer, or with something else.
        """
        reply = await self._send("GET", f"{self.url}/models", seconds=_HEALTH_SECONDS, limit=_LISTING_BYTES)
        return read_models(self._accepted(reply).payload)

    async def health(self) -> Health:
        """`up` if it can be sent samples; `silent` if it may only be busy.

        It is asked again before it counts as down, which costs everything that it has in flight.
        """
        state = await self._health()
        if state == "down":
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            state = await self._health()
        return state

    async def _health(self) -> Health:
        root = self.url.removesuffix("/v1")
        try:
            for address in (f"{root}/health", f"{self.url}/models"):
                reply = await self._send("GET", address, seconds=_HEALTH_SECONDS, limit=_LISTING_BYTES)
                if reply.status < 300:
                    return "up"
                if reply.status >= 500:
                    return "down"
        except Setback as setback:
            return "down" if setback.unreachable else "silent"
        return "up"  # it answers, with neither of the two pages

    async def complete(self, body: dict[str, Any], *, seconds: float, limit: int) -> bytes:
        """The reply to `POST /completions` (see `post`)."""
        return await self.post("completions", body, seconds=seconds, limit=limit)

    async def post(self, page: str, body: dict[str, Any], *, seconds: float, limit: int) -> bytes:
        """The reply to a request for a page below the base URL.

        Raises:
            Setback: no reply, or one that another attempt may improve on.
            Refused: the server will not answer this.
        """
        reply = await self._send(
            "POST", f"{self.url}/{page}", content=json.dumps(body).encode(), seconds=seconds, limit=limit
        )
        return self._accepted(reply).payload

    async def _send(
        self, method: str, address: str, *, seconds: float, limit: int, content: bytes | None = None
    ) -> _Reply:
        headers = {"Content-Type": "application/json"} if content is not None else None
        client = self._idle.pop() if self._idle else self._client()
        try:
            async with (
                asyncio.timeout(seconds),
                client.stream(method, address, content=content, headers=headers) as response,
            ):
                return _Reply(response.status_code, response.headers, await _bounded(response, limit))
        except TimeoutError:
            raise Setback(f"no reply within {seconds:g} s") from None
        except httpx.ConnectTimeout:
            raise Setback(f"no connection within {_CONNECT_SECONDS:g} s", unreachable=True) from None
        except httpx.HTTPError as error:
            words = shown(str(error), self._secrets) or "connection lost"
            raise Setback(f"{words} ({type(error).__name__})", unreachable=True) from None
        finally:
            self._idle.append(client)  # its connection is closed where the reply was not read to its end

    def _accepted(self, reply: _Reply) -> _Reply:
        """The reply if it is a success.

        Raises:
            Setback: 408, 429 and 5xx.
            Refused: every other status.
        """
        status = reply.status
        if 200 <= status < 300:
            return reply
        words = f"HTTP {status}: {shown(_message(reply.payload), self._secrets)}"
        asked = reply.headers.get("Retry-After")
        if status == 429 or (status == 503 and asked is not None):
            raise Setback(words, retry_after=_wait(asked))
        if status == 408 or status >= 500:
            raise Setback(words)
        if status < 400:
            raise Refused(
                f"{self.url}: expected an answer, got HTTP {status}, which leads elsewhere; give that URL", status
            )
        advice = {401: f"set {self._key_name}", 403: f"set {self._key_name}", 404: "base URLs end in /v1"}
        told = f"{self.url}: {words}; {advice.get(status, 'mend what it names and run again')}"
        raise Refused(told, status, _parameter(reply.payload))


def _trust() -> ssl.SSLContext:
    """The usual roots, or those of SSL_CERT_FILE: an endpoint in a company has its own."""
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    """The body as it was sent: a compressed one, which was not asked for, may grow without bound when it is opened."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Setback("expected a reply that is not compressed, got a compressed one")
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > limit:
            raise Setback(f"expected a reply of at most {limit} bytes, got more")
        chunks.append(chunk)
    return b"".join(chunks)


def _message(payload: bytes) -> bytes | str:
    """The words for people in a server's error; the whole of it where they are not where they should be."""
    error = _error(payload)
    words = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    return words if isinstance(words, str) else payload


def _parameter(payload: bytes) -> str | None:
    """`param` of an error of OpenAI's form."""
    error = _error(payload)
    name = error.get("param") if isinstance(error, dict) else None
    return name if isinstance(name, str) else None


def _error(payload: bytes) -> Any:
    """What stands under `error`, or all there is; None for no JSON."""
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return content.get("error", content) if isinstance(content, dict) else content


def _wait(asked: str | None) -> float:
    """Seconds of a Retry-After header, given as a number or as a date; 0 without one that can be read."""
    if asked is None:
        return 0.0
    try:
        seconds = float(asked) if asked.strip().isdigit() else parsedate_to_datetime(asked).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT)
