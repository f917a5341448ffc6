"""One request on its way to a handler: where it points, who asks, and the answers handlers commonly give."""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from erpd_hub.hub.server import pulls, repos
from erpd_hub.hub.server.accounts import Accounts, User
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.errors import bad_request, entry_not_found, repo_not_found, revision_not_found
from erpd_hub.hub.server.json_text import Json, parse_json_object
from erpd_hub.hub.server.objects import File, Folder
from erpd_hub.hub.server.paths import is_repo_part, split_path
from erpd_hub.hub.server.repos import Commit, Kind, Repo
from erpd_hub.hub.server.signing import Signer
from erpd_hub.hub.server.trees import TreeStore
from erpd_hub.hub.server.xet import XorbStore

MAX_JSON_BYTES = 8 << 20
MAX_ANONYMOUS_BYTES = 1 << 20


class Hub:
    """The state of one root folder, shared by all requests."""

    def __init__(self, root: Path, accounts: Accounts) -> None:
        self.root = root
        self.accounts = accounts
        self.blobs = BlobStore(root)
        self.db = Database(root / "hub.sqlite")
        self.trees = TreeStore()
        self.signer = Signer(root)
        self.xorbs = XorbStore(root, self.blobs, self.db)

    def close(self) -> None:
        self.db.close()


@dataclass(frozen=True)
class Target:
    """What a URL names, with every part decoded."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    rest: tuple[str, ...] = ()
    """Segments after the handler's own word."""


@dataclass
class Call:
    """A request with its target; `body` is read beforehand unless the handler streams it."""

    hub: Hub
    request: Request
    user: User | None
    target: Target
    body: bytes = b""
    _repo: Repo | None = field(default=None, init=False)

    @property
    def db(self) -> sqlite3.Connection:
        return self.hub.db.read()

    @property
    def base_url(self) -> str:
        """Scheme and host as the client wrote them."""
        url = self.request.url
        return f"{url.scheme}://{url.netloc}"

    @cached_property
    def json(self) -> Json:
        """The body as a JSON object, empty when there is no body."""
        return parse_json_object(self.body)

    @cached_property
    def form(self) -> dict[str, list[str]]:
        """The body as form fields."""
        try:
            return parse_qs(self.body.decode())
        except ValueError as error:
            raise bad_request("The body is not a form") from error

    def query(self, name: str) -> str | None:
        return self.request.query_params.get(name)

    def query_list(self, name: str) -> list[str]:
        """Values of a repeated parameter, written `name` or `name[]`."""
        params = self.request.query_params
        return params.getlist(name) + params.getlist(f"{name}[]")

    def flag(self, name: str) -> bool:
        return (self.query(name) or "").lower() in ("1", "true")

    def repo(self) -> Repo:
        """The target repository; raises the same 404 for an absent and for an invisible one."""
        if self._repo is None:
            self._repo = find_visible(self.hub, self.db, self.user, self.target)
        return self._repo

    def writable_repo(self) -> Repo:
        repo = self.repo()
        self.hub.accounts.check_write(self.user, repo.namespace)
        return repo

    def commit_repo(self, revision: str) -> Repo:
        """The target repository when the caller may commit to `revision`: its writers may, and everybody who sees it
        with `create_pr` or to a pull request of their own."""
        repo, user = self.repo(), self.member()
        pull = pulls.of_ref(self.db, repo, revision)
        if not self.flag("create_pr") and (pull is None or pull.author != user.name):
            self.hub.accounts.check_write(user, repo.namespace)
        return repo

    def member(self) -> User:
        """The caller; raises a 401 for an anonymous one."""
        if self.user is None:
            raise repo_not_found(anonymous=True)
        return self.user

    def repo_url(self, repo: Repo) -> str:
        """Its page, from which clients also read its id."""
        return f"{self.base_url}/{url_prefix(repo.kind)}{repo.full_name}"

    def rest_text(self, index: int = 0) -> str:
        """Everything in the URL from a segment on, `a/b` and `a%2Fb` being the same."""
        return "/".join(self.target.rest[index:])

    def revision(self, index: int = 0) -> Commit:
        """The commit named by a segment of the URL."""
        if len(self.target.rest) <= index:
            raise revision_not_found("")
        return repos.resolve_revision(self.db, self.repo(), self.target.rest[index])

    def entry(self, commit: Commit, path: str) -> File | Folder:
        """The entry at a path of a commit; raises a 404 that carries the commit."""
        entry = self.hub.trees.find(self.db, commit.tree, split_path(path))
        if entry is None:
            raise entry_not_found(commit=commit.oid)
        return entry


Handler = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]
"""Plain functions run in the thread pool; coroutines stream the request body themselves."""
Routes = Mapping[tuple[str, str], Handler]
"""By method and the word of the URL that says what to do."""


def find_visible(hub: Hub, db: sqlite3.Connection, user: User | None, target: Target) -> Repo:
    """The repository a caller may see under an id; raises `Moved` only when they may see where it is now."""
    repo = None
    if is_repo_part(target.namespace) and is_repo_part(target.name):
        try:
            repo = repos.find_repo(db, target.kind, target.namespace, target.name)
        except repos.Moved as moved:
            if hub.accounts.may_read(user, moved.repo):
                raise
    if repo is None or not hub.accounts.may_read(user, repo):
        raise repo_not_found(anonymous=user is None)
    return repo


def find_current(hub: Hub, db: sqlite3.Connection, user: User | None, target: Target) -> Repo:
    """The same, also by an id it had before: for ids that are not in the URL, where no redirect can say it."""
    try:
        return find_visible(hub, db, user, target)
    except repos.Moved as moved:
        return moved.repo


def text_field(body: Json, name: str, default: str | None = None) -> str:
    """A text of the body; raises a 400 when it is missing (and has no default) or is no text."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise bad_request(f'"{name}" must be a string')
    return value


def object_list(body: Json, name: str) -> list[Json]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise bad_request(f'"{name}" must be a list of objects')
    return value


def kind_field(body: Json) -> Kind:
    value = body.get("type") or "model"
    for kind in repos.KINDS:
        if value == kind:
            return kind
    raise bad_request(f"Unknown repository type: {value!r}")


def reply(value: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(value, status_code=status, headers=headers)


def page_link(call: Call, path: str, **changed: str) -> dict[str, str]:
    """The Link header to the next page: the request's query with some parameters replaced."""
    kept = [(name, value) for name, value in call.request.query_params.multi_items() if name not in changed]
    return {"Link": f'<{call.base_url}{path}?{urlencode([*kept, *changed.items()])}>; rel="next"'}


def bounded_int(text: str | None, *, default: int, maximum: int) -> int:
    """A non-negative query number, cut to a maximum."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise bad_request(f"Not a number: {text[:40]!r}")
    return min(int(text[:12]), maximum)


def timestamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def url_prefix(kind: Kind) -> str:
    """Where repositories of a kind live below the endpoint."""
    return "" if kind == "model" else f"{kind}s/"
