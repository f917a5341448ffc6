"""Who is asking and what they may do.

Without a file of accounts the door is open: every request is the local user's, who owns everything (the server then
listens on loopback only). With one, a request is its token's user, or anonymous: everybody reads what is public, users
read what is private and write under their own name and under the organizations they are in.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from erpd_hub.hub.server.errors import Refusal, forbidden, invalid_credentials
from erpd_hub.hub.server.repos import Repo

LOCAL_USER = "local"


@dataclass(frozen=True)
class User:
    name: str
    fullname: str
    orgs: tuple[str, ...] = ()

    def is_in(self, namespace: str) -> bool:
        """Whether it is the user's own name or an organization of theirs; letters' case does not count."""
        return namespace.lower() in {name.lower() for name in (self.name, *self.orgs)}


@dataclass(frozen=True)
class Org:
    name: str
    fullname: str
    private_by_default: bool = False
    """Its new repositories are private unless their creator says otherwise."""


@dataclass(frozen=True)
class Accounts:
    """The access rules."""

    users: Mapping[bytes, User] | None = None
    """By `token_digest`, so that no token is kept; None leaves the door open."""
    orgs: Mapping[str, Org] = field(default_factory=dict)
    """By name in lower case."""

    def identify(self, authorization: str | None) -> User | None:
        """The caller, None when anonymous; raises a 401 for credentials that are not ours."""
        if self.users is None:
            return User(LOCAL_USER, LOCAL_USER)
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        found = None
        given = token_digest(token.strip())
        for digest, user in self.users.items():  # all of them: the time taken tells nothing
            if hmac.compare_digest(digest, given):
                found = user
        if found is None or scheme.lower() != "bearer":
            raise invalid_credentials()
        return found

    def may_read(self, user: User | None, repo: Repo) -> bool:
        return not repo.private or self.may_write(user, repo.namespace)

    def may_write(self, user: User | None, namespace: str) -> bool:
        return user is not None and (self.users is None or user.is_in(namespace))

    def check_write(self, user: User | None, namespace: str) -> User:
        """The caller, if they may change things under `namespace`."""
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.may_write(user, namespace):
            raise forbidden(f"You don't have the rights to change anything under the namespace {namespace}")
        return user

    def has(self, name: str) -> bool:
        """Whether a user of this name is still there: links and tokens of ours outlive a server."""
        names = [LOCAL_USER] if self.users is None else [user.name for user in self.users.values()]
        return name in names

    def private_by_default(self, namespace: str) -> bool:
        """Whether a new repository under `namespace` is private when its creator does not say."""
        org = self.orgs.get(namespace.lower())
        return org is not None and org.private_by_default

    def orgs_of(self, user: User) -> list[Org]:
        return [self.orgs[name.lower()] for name in user.orgs]


def token_digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", errors="surrogatepass")).digest()
