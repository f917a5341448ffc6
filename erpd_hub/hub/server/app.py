"""The ASGI application: dispatch on the raw path, refusals as the protocol words them.

The path is split before it is decoded, as a revision may contain %2F. Handlers are plain functions run in the thread
pool; those that stream their request body are coroutines.
"""

import inspect
import logging
import re
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, cast
from urllib.parse import unquote

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from erpd_hub.hub.server import (
    routes_collections,
    routes_commit,
    routes_discussions,
    routes_info,
    routes_lfs,
    routes_refs,
    routes_repos,
    routes_resolve,
    routes_storage,
    routes_tree,
    routes_xet,
)
from erpd_hub.hub.server.accounts import User
from erpd_hub.hub.server.bodies import impatient, read_body
from erpd_hub.hub.server.call import MAX_ANONYMOUS_BYTES, MAX_JSON_BYTES, Call, Handler, Hub, Routes, Target, reply
from erpd_hub.hub.server.errors import Refusal, bad_request, disk_is_full, forbidden, repo_not_found
from erpd_hub.hub.server.pages import routes as pages
from erpd_hub.hub.server.repos import KINDS, Kind, Moved, Repo

logger = logging.getLogger(__name__)

SITE_ROUTES: Routes = {**routes_repos.SITE_ROUTES, **routes_info.SITE_ROUTES, **routes_collections.SITE_ROUTES}
"""By method and the path below /api/."""
UPLOAD_ROUTES: Routes = {**routes_lfs.UPLOAD_ROUTES, **routes_xet.UPLOAD_ROUTES}
"""By method and the first segment of the path; signed, so no account is asked for."""
REPO_ROUTES: Routes = {
    **routes_repos.REPO_ROUTES,
    **routes_commit.REPO_ROUTES,
    **routes_tree.REPO_ROUTES,
    **routes_refs.REPO_ROUTES,
    **routes_info.REPO_ROUTES,
    **routes_storage.REPO_ROUTES,
    **routes_xet.REPO_ROUTES,
    **routes_discussions.REPO_ROUTES,
}
"""By method and the word after /api/{kind}s/{namespace}/{name}/, "" for the repository itself."""
CONTENT_ROUTES: Routes = {**routes_resolve.CONTENT_ROUTES, **routes_lfs.CONTENT_ROUTES}
"""By method and the word after /[datasets/|spaces/]{namespace}/{name}/."""

_REQUEST_ID = re.compile(r"[\w:;=-]{1,128}", re.ASCII)
_NOT_FOR_HEADERS = re.compile(r"[^ -~]")
_KIND_SEGMENTS: dict[str, Kind] = {f"{kind}s": kind for kind in KINDS}


class Match(NamedTuple):
    handler: Handler
    target: Target
    signed: bool = False


class HubApp:
    """The server as an ASGI callable. `hosts` are the Host names answered to (None: any), which keeps a web page that
    rebinds its DNS name to this machine from reading a Hub that needs no token."""

    def __init__(self, hub: Hub, *, hosts: frozenset[str] | None) -> None:
        self._hub = hub
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, impatient(receive))
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        response.headers["X-Request-Id"] = _request_id(request)
        response.headers.setdefault("Cache-Control", "private, no-cache")  # what it is depends on who asks, and changes
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            self._check_origin(request)
            match = route(request.method, raw_path(request))
            user = None if match.signed else self._caller(request)
            call = Call(self._hub, request, user, match.target)
            return await _run(match.handler, call)
        except Refusal as error:
            return refusal(error)
        except Moved as moved:
            return redirect(request, moved.repo)
        except ClientDisconnect:
            raise
        except Exception as error:  # the boundary: one failing request must not take the server with it
            return failure(request, error)

    def _caller(self, request: Request) -> User | None:
        """Who asks; the API is never answered by a browser's cookie, which comes along on its own."""
        if request.method in ("GET", "HEAD") and not raw_path(request).startswith("/api/"):
            return pages.reader(self._hub, request)
        return self._hub.accounts.identify(request.headers.get("authorization"))

    def _check_origin(self, request: Request) -> None:
        if self._hosts is None:
            return
        if request.url.hostname not in self._hosts:
            raise forbidden("This Hub answers to its own host name only")
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}":
            raise forbidden("Requests from other origins are refused")


async def _run(handler: Handler, call: Call) -> Response:
    if inspect.iscoroutinefunction(handler):
        streamed: Response = await handler(call)
        return streamed
    call.body = await read_body(call.request, MAX_ANONYMOUS_BYTES if call.user is None else MAX_JSON_BYTES)
    plain = cast(Callable[[Call], Response], handler)
    if call.request.method in ("GET", "HEAD"):
        return await to_thread.run_sync(_run_in_snapshot, plain, call)
    return await to_thread.run_sync(plain, call)


def _run_in_snapshot(handler: Callable[[Call], Response], call: Call) -> Response:
    """So that what a listing or a history walks over cannot vanish under it."""
    with call.hub.db.snapshot():
        return handler(call)


def _request_id(request: Request) -> str:
    """The client's own, or a new one; people quote it from an error to find the log's line."""
    given = request.headers.get("x-request-id") or request.headers.get("x-amzn-trace-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def raw_path(request: Request) -> str:
    """The path as it was sent, still percent-encoded."""
    path: bytes = request.scope["raw_path"].partition(b"?")[0]
    if not path.isascii():
        raise bad_request("The URL is not percent-encoded")
    return path.decode("ascii")


def route(method: str, path: str) -> Match:
    """The handler of a request; raises the 404 the clients understand when there is none."""
    segments = path.removeprefix("/").split("/")
    if (method, segments[0]) in UPLOAD_ROUTES:
        return Match(UPLOAD_ROUTES[method, segments[0]], Target("model", rest=decoded(segments[1:])), signed=True)
    if segments[0] != "api":
        return _match_content(method, segments)
    handler = SITE_ROUTES.get((method, "/".join(segments[1:])))
    kind = _KIND_SEGMENTS.get(segments[1]) if len(segments) > 1 else None
    if handler is not None:
        return Match(handler, Target(kind or "model"))
    if segments[1:2] == ["organizations"] and (method, "/".join(segments[3:])) in routes_info.ORG_ROUTES:
        (name,) = decoded(segments[2:3])
        return Match(routes_info.ORG_ROUTES[method, "/".join(segments[3:])], Target("model", name))
    if segments[1:2] == ["collections"] and len(segments) > 3:
        return _match_collection(method, decoded(segments[2:]))
    if kind is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "Not found")
    verb = segments[4] if len(segments) > 4 else ""
    handler = REPO_ROUTES.get((method, verb))
    if len(segments) < 4 or handler is None:
        raise repo_not_found()
    namespace, name = decoded(segments[2:4])
    return Match(handler, Target(kind, namespace, name, decoded(segments[5:])))


def _match_collection(method: str, parts: tuple[str, ...]) -> Match:
    owner, slug, *rest = parts
    handler = routes_collections.COLLECTION_ROUTES.get((method, rest[0] if rest else ""))
    if handler is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "Not found")
    return Match(handler, Target("model", owner, slug, tuple(rest)))


def _match_content(method: str, segments: list[str]) -> Match:
    kind: Kind = _KIND_SEGMENTS.get(segments[0], "model")
    parts = segments if kind == "model" else segments[1:]
    if len(parts) < 3 or (method, parts[2]) not in CONTENT_ROUTES:
        if (page := pages.find(method, decoded(segments))) is not None:
            return Match(*page)
        raise repo_not_found()
    namespace, name = decoded(parts[:2])
    handler = CONTENT_ROUTES[method, parts[2]]
    return Match(handler, Target(kind, namespace, name.removesuffix(".git"), decoded(parts[3:])))


def decoded(segments: list[str]) -> tuple[str, ...]:
    try:
        return tuple(unquote(segment, errors="strict") for segment in segments)
    except UnicodeDecodeError as error:
        raise bad_request("The URL is not UTF-8") from error


def refusal(error: Refusal) -> Response:
    headers = {"X-Error-Message": _NOT_FOR_HEADERS.sub("?", error.message).strip()}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return reply(error.body, status=error.status, headers={**headers, **error.headers})


def failure(request: Request, error: Exception) -> Response:
    """A full disk is told by a status that ends the client's tries: Xet's repeats any 5xx. The rest is for our log."""
    path = _NOT_FOR_HEADERS.sub("?", request.scope["raw_path"].partition(b"?")[0].decode("latin-1"))
    if disk_is_full(error):
        logger.error("%s %s failed: the disk is full (%s)", request.method, path, error)
        xet = path.startswith(f"/{routes_xet.SEGMENT}/")
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if xet else HTTPStatus.INSUFFICIENT_STORAGE
        return refusal(Refusal(status, "The disk of this Hub is full"))
    logger.error("%s %s failed", request.method, path, exc_info=error)
    return reply({"error": "Internal server error"}, status=HTTPStatus.INTERNAL_SERVER_ERROR)


def redirect(request: Request, now: Repo) -> Response:
    """The same URL under the repository's new id; relative, as the clients follow only such redirects of a HEAD."""
    segments = raw_path(request).removeprefix("/").split("/")
    first = 2 if segments[0] == "api" else int(segments[0] in _KIND_SEGMENTS)
    git = ".git" if segments[first + 1].endswith(".git") else ""  # of LFS's URLs
    segments[first : first + 2] = [now.namespace, now.name + git]
    location = "/" + "/".join(segments)
    if request.url.query:
        location += f"?{request.url.query}"
    return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})
