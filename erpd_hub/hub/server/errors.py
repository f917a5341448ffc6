"""Refusals as the Hub words them: the status, the X-Error-Code its clients branch on, and a message for people."""

from collections.abc import Mapping
from http import HTTPStatus


class HubError(Exception):
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


def bad_request(message: str) -> HubError:
    return HubError(HTTPStatus.BAD_REQUEST, message)


def unprocessable(message: str) -> HubError:
    return HubError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


def forbidden(message: str) -> HubError:
    return HubError(HTTPStatus.FORBIDDEN, message)


def conflict(message: str, **body: object) -> HubError:
    return HubError(HTTPStatus.CONFLICT, message, body=body)


def too_large(message: str) -> HubError:
    return HubError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def invalid_credentials() -> HubError:
    """The client tells a bad token from an absent repository by exactly this text and the missing code."""
    return HubError(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")


def repo_not_found(*, anonymous: bool = False) -> HubError:
    """Absent and invisible repositories look the same; anonymous callers are asked to log in instead."""
    if anonymous:
        return HubError(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
    return HubError(HTTPStatus.NOT_FOUND, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str = "Entry not found", *, commit: str | None = None) -> HubError:
    """`commit` becomes X-Repo-Commit, which lets a client cache the absence."""
    headers = {"X-Repo-Commit": commit} if commit else {}
    return HubError(HTTPStatus.NOT_FOUND, message, code="EntryNotFound", headers=headers)
