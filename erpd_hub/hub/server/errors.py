"""Refusals as the Hub words them: the status, the X-Error-Code its clients branch on, and a message for people."""

import errno
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DATABASE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""The second for limits other than the disk's own: a quota, a longest file; the third for its index of the log."""


class Refusal(Exception):
    """A request the server refuses; `app` turns it into the response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.body = {"error": message, **(body or {})}


def bad_request(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def unprocessable(message: str) -> Refusal:
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, message)


def forbidden(message: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, message)


def conflict(message: str, **body: object) -> Refusal:
    return Refusal(HTTPStatus.CONFLICT, message, body=body)


def unavailable(message: str) -> Refusal:
    """Clients ask again, as they do not after a conflict."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message)


def too_large(message: str) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def invalid_credentials() -> Refusal:
    """The client tells a bad token from an absent repository by exactly this text and the missing code."""
    return Refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")


def repo_not_found(*, anonymous: bool = False) -> Refusal:
    """Absent and invisible repositories look the same; anonymous callers are asked to log in instead."""
    if anonymous:
        return Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
    return Refusal(HTTPStatus.NOT_FOUND, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str = "Entry not found", *, commit: str | None = None) -> Refusal:
    """`commit` becomes X-Repo-Commit, which lets a client cache the absence."""
    headers = {"X-Repo-Commit": commit} if commit else {}
    return Refusal(HTTPStatus.NOT_FOUND, message, code="EntryNotFound", headers=headers)


def disk_is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _DATABASE_FULL
    return isinstance(error, OSError) and error.errno in _DISK_FULL
