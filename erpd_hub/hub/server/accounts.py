"""Who is asking and what they may do.

One local user owns everything: without a configured token every request is theirs (the server listens on loopback),
with one only requests that carry it. A file of several accounts would replace `Accounts` and nothing else.
"""

import hmac
from dataclasses import dataclass

from erpd_hub.hub.server.errors import HubError, forbidden, invalid_credentials
from erpd_hub.hub.server.repos import Repo

LOCAL_USER = "local"


@dataclass(frozen=True)
class User:
    name: str
    orgs: tuple[str, ...] = ()


class Accounts:
    """The access rules; `token` is the local user's, None leaves the door open."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._local = User(LOCAL_USER)

    def identify(self, authorization: str | None) -> User | None:
        """The caller, None when anonymous; raises a 401 for credentials that are not ours."""
        if self._token is None:
            return self._local
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            raise invalid_credentials()
        return self._local

    def may_read(self, user: User | None, repo: Repo) -> bool:
        return user is not None or not repo.private

    def check_write(self, user: User | None, namespace: str) -> User:
        """The caller, if they may change things under `namespace`."""
        if user is None:
            raise HubError(401, "Invalid username or password.")
        if user.name != LOCAL_USER:
            raise forbidden(f"You don't have the rights to change anything under the namespace {namespace}")
        return user
