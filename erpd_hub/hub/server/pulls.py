"""Pull requests, and the discussions they are a kind of: rows of sqlite, and a ref `refs/pr/N` each.

Every function takes the connection of the caller's transaction.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

from erpd_hub.hub.server import commits, repos
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.commits import Delete, Edit, Message, Put
from erpd_hub.hub.server.errors import Refusal, bad_request, conflict, revision_not_found, unprocessable
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.repos import HEADS, PULLS, Commit, Repo
from erpd_hub.hub.server.trees import TreeStore

MAX_TITLE_CHARS = 200
MAX_EVENTS = 1000
MAX_EVENTS_CHARS = 2 << 20
"""Of one discussion as it is stored: it is read and sent as a whole."""

Status = Literal["draft", "open", "closed", "merged"]


class Discussion(NamedTuple):
    repo: int
    num: int
    title: str
    author: str
    status: Status
    base: str | None
    """The branch (full ref name) a pull request is for; None for a plain discussion."""
    merged: str | None
    """The commit that merged it."""
    created_ms: int

    @property
    def ref(self) -> str:
        return f"{PULLS}{self.num}"


class Event(NamedTuple):
    id: int
    kind: str
    author: str
    created_ms: int
    data: dict[str, object]


def open_discussion(
    db: sqlite3.Connection,
    repo: Repo,
    title: str,
    author: str,
    *,
    text: str,
    status: Status,
    base: str | None,
) -> Discussion:
    """A new discussion with its first comment; with `base` a pull request, whose ref starts at that branch."""
    (last,) = db.execute("SELECT max(num) FROM discussions WHERE repo = ?", (repo.id,)).fetchone()
    made = Discussion(repo.id, (last or 0) + 1, title, author, status, base, None, repos.now_ms())
    db.execute("INSERT INTO discussions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", made)
    if base is not None:
        repos.move_ref(db, repo, made.ref, repos.resolve_revision(db, repo, base).oid)
    add_event(db, made, "comment", author, {"edited": False, "hidden": False, "latest": {"raw": text}})
    return made


def open_with_commit(db: sqlite3.Connection, repo: Repo, revision: str, message: Message) -> Discussion:
    """The pull request that a commit brings with itself; raises a 404 unless `revision` is a branch."""
    base = next((name for name in (HEADS + revision, revision) if repos.is_branch(db, repo, name)), None)
    if base is None:
        raise revision_not_found(revision)
    title = message.title[:MAX_TITLE_CHARS]
    return open_discussion(db, repo, title, message.author, text=message.body, status="open", base=base)


def find(db: sqlite3.Connection, repo: Repo, num: int) -> Discussion | None:
    row = db.execute("SELECT * FROM discussions WHERE repo = ? AND num = ?", (repo.id, num)).fetchone()
    return None if row is None else Discussion(*row)


def of_ref(db: sqlite3.Connection, repo: Repo, revision: str) -> Discussion | None:
    """The pull request whose ref `revision` is, if it is one."""
    number = revision.removeprefix(PULLS)
    plain = revision.startswith(PULLS) and number.isascii() and number.isdigit() and len(number) < 10
    return find(db, repo, int(number)) if plain else None


def list_all(db: sqlite3.Connection, repo: Repo) -> list[Discussion]:
    """Newest first."""
    rows = db.execute("SELECT * FROM discussions WHERE repo = ? ORDER BY num DESC", (repo.id,))
    return [Discussion(*row) for row in rows]


def count(db: sqlite3.Connection, repo: Repo) -> int:
    (found,) = db.execute("SELECT count(*) FROM discussions WHERE repo = ?", (repo.id,)).fetchone()
    return int(found)


def add_event(db: sqlite3.Connection, discussion: Discussion, kind: str, author: str, data: dict[str, object]) -> Event:
    now = repos.now_ms()
    row = db.execute(
        "INSERT INTO discussion_events (repo, num, kind, author, created_ms, data) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (discussion.repo, discussion.num, kind, author, now, json.dumps(data)),
    ).fetchone()
    return Event(row[0], kind, author, now, data)


def check_room(db: sqlite3.Connection, discussion: Discussion, more: str = "") -> None:
    """Raises a 422 where a discussion has as many events, or with a text of `more` as much text, as one may have."""
    found, chars = db.execute(
        "SELECT count(*), coalesce(sum(length(data)), 0) FROM discussion_events WHERE repo = ? AND num = ?",
        (discussion.repo, discussion.num),
    ).fetchone()
    if found >= MAX_EVENTS or chars + len(json.dumps(more)) > MAX_EVENTS_CHARS:
        raise unprocessable("This discussion is too long; open another one")


def events(db: sqlite3.Connection, discussion: Discussion) -> list[Event]:
    rows = db.execute(
        "SELECT id, kind, author, created_ms, data FROM discussion_events WHERE repo = ? AND num = ? ORDER BY id",
        (discussion.repo, discussion.num),
    )
    return [Event(key, kind, author, created_ms, json.loads(data)) for key, kind, author, created_ms, data in rows]


def rewrite_event(db: sqlite3.Connection, event: Event) -> None:
    db.execute("UPDATE discussion_events SET data = ? WHERE id = ?", (json.dumps(event.data), event.id))


def update(
    db: sqlite3.Connection, discussion: Discussion, *, title: str | None = None, status: str | None = None
) -> None:
    db.execute(
        "UPDATE discussions SET title = coalesce(?, title), status = coalesce(?, status) WHERE repo = ? AND num = ?",
        (title, status, discussion.repo, discussion.num),
    )


def conflicts(db: sqlite3.Connection, trees: TreeStore, repo: Repo, pull: Discussion) -> list[str]:
    """Files that both the pull request and its branch have changed since they parted, each in its own way; the pull
    request's, where one of them has made a folder of the other one's file."""
    return _conflicts(changes(db, trees, repo, pull))


def _conflicts(sides: "Sides") -> list[str]:
    ours, theirs = sides
    found = {path for path in ours.keys() & theirs.keys() if ours[path] != theirs[path]}
    found |= {path for path, _ in _below(theirs, ours)} | {folder for _, folder in _below(ours, theirs)}
    return sorted(found)


def _below(files: dict[str, File | None], others: dict[str, File | None]) -> Iterator[tuple[str, str]]:
    """Files of one side, each with a file of the other side where it has a folder."""
    for path in (path for path, file in files.items() if file is not None):
        for folder in accumulate(path.split("/")[:-1], "{}/{}".format):
            if others.get(folder) is not None:
                yield path, folder


def merge(
    db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, repo: Repo, pull: Discussion, author: str
) -> Commit:
    """Commit a pull request's changes to its branch; raises a 409 when they conflict."""
    if pull.base is None or pull.status not in ("draft", "open"):
        raise bad_request("Only a pull request that is neither merged nor closed can be merged")
    sides = ours, theirs = changes(db, trees, repo, pull)
    if _conflicts(sides):
        raise conflict("The pull request has conflicts with its branch")
    edits = list(_edits({path: file for path, file in theirs.items() if ours.get(path, ...) != file}))
    message = Message(f"{pull.title} (#{pull.num})", "", author)
    made = commits.create(db, trees, blobs, repo, pull.base, edits, message, expected_parent=None)
    db.execute(
        "UPDATE discussions SET status = 'merged', merged = ? WHERE repo = ? AND num = ?", (made.oid, repo.id, pull.num)
    )
    return made


def _edits(changes: dict[str, File | None]) -> Iterable[Edit]:
    """Deletions first, so that a file may take the place of a folder."""
    for path, file in changes.items():
        if file is None:
            yield Delete(tuple(path.split("/")), folder=False)
    for path, file in changes.items():
        if file is not None:
            yield Put(tuple(path.split("/")), file)


class Sides(NamedTuple):
    """Changed files of a branch and of its pull request; None for a removed file."""

    ours: dict[str, File | None]
    theirs: dict[str, File | None]


def changes(db: sqlite3.Connection, trees: TreeStore, repo: Repo, pull: Discussion) -> Sides:
    """What branch and pull request did to files since they parted; raises a 409 when one of them was squashed."""
    assert pull.base is not None
    ours = repos.resolve_revision(db, repo, pull.base)
    theirs = repos.resolve_revision(db, repo, pull.ref)
    known = {commit.oid for commit in commits.history(db, repo, ours)}
    parted = next((commit for commit in commits.history(db, repo, theirs) if commit.oid in known), None)
    if parted is None:
        raise Refusal(409, "The pull request shares no commit with its branch; one of them was squashed")
    return Sides(difference(db, trees, parted, ours), difference(db, trees, parted, theirs))


def difference(db: sqlite3.Connection, trees: TreeStore, old: Commit, new: Commit) -> dict[str, File | None]:
    """Files that are not the same in two commits, as they are in `new`; None for those it does not have."""
    changed: dict[str, File | None] = {}
    for path in trees.changed(db, old.tree, new.tree):
        if isinstance(trees.find(db, old.tree, tuple(path.split("/"))), File):
            changed[path] = None
    for path in trees.changed(db, new.tree, old.tree):
        entry = trees.find(db, new.tree, tuple(path.split("/")))
        if isinstance(entry, File):
            changed[path] = entry
    return changed
