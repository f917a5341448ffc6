"""Reading a file: HEAD and GET with ranges."""

import re
from typing import NamedTuple
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.blobs import read_range
from erpd_hub.hub.server.call import Call, Routes
from erpd_hub.hub.server.errors import Refusal, entry_not_found
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.repos import Commit

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MAX_DIGITS = 18


class Span(NamedTuple):
    start: int
    length: int


def resolve(call: Call) -> Response:
    commit = call.revision()
    path = call.rest_text(1)
    entry = call.entry(commit, path) if path else None
    if not isinstance(entry, File):
        raise entry_not_found(commit=commit.oid)
    possession.check_holds(call.db, call.hub.blobs, call.repo(), entry)
    headers = _headers(commit, entry, path)
    if _is_known(headers["ETag"], call.request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    span = _span(call.request.headers.get("range"), entry.size)
    status = 200
    if span is None:
        span = Span(0, entry.size)
    else:
        status = 206
        headers["Content-Range"] = f"bytes {span.start}-{span.start + span.length - 1}/{entry.size}"
    headers["Content-Length"] = str(span.length)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return _content(call, entry, span, status, headers)


def _content(call: Call, entry: File, span: Span, status: int, headers: dict[str, str]) -> Response:
    content = call.hub.blobs.inline(call.db, entry.sha256)
    if content is not None:
        return Response(content[span.start : span.start + span.length], status_code=status, headers=headers)
    return StreamingResponse(read_range(call.hub.blobs.path(entry.sha256), *span), status_code=status, headers=headers)


def _headers(commit: Commit, file: File, path: str) -> dict[str, str]:
    """What the download client relies on, and what keeps a browser from running a file as a page of this origin."""
    tag = f'"{file.sha256 if file.lfs else file.oid}"'
    return {
        "X-Repo-Commit": commit.oid,
        "ETag": tag,
        "X-Linked-ETag": tag,
        "X-Linked-Size": str(file.size),
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream" if file.lfs else "text/plain; charset=utf-8",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }


def _is_known(tag: str, header: str | None) -> bool:
    """Whether an If-None-Match header names the content, or any."""
    return header is not None and any(known.strip().removeprefix("W/") in (tag, "*") for known in header.split(","))


def _span(header: str | None, size: int) -> Span | None:
    """The bytes a Range header asks for, None for all of them; raises a 416 when it asks for none that exist."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[0] == "bytes=-" or max(len(match[1]), len(match[2])) > _MAX_DIGITS:
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) if match[2] else size, size - 1)
    else:
        start, end = max(0, size - int(match[2])), size - 1
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return None
    if start >= size:
        raise Refusal(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return Span(start, end - start + 1)


CONTENT_ROUTES: Routes = {("GET", "resolve"): resolve, ("HEAD", "resolve"): resolve}
