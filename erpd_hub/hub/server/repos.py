"""Repositories and their refs: rows of sqlite, no files.

Every function takes the connection of the caller's transaction. A ref is stored under its full git name
(`refs/heads/main`, `refs/tags/step-50`).
"""

import sqlite3
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

from erpd_hub.hub.server.errors import Refusal, bad_request, conflict, forbidden, revision_not_found
from erpd_hub.hub.server.paths import check_ref_name, check_repo_id, is_hex, is_short_sha

Kind = Literal["model", "dataset", "space"]
KINDS: tuple[Kind, ...] = ("model", "dataset", "space")
MAIN = "refs/heads/main"
HEADS = "refs/heads/"
TAGS = "refs/tags/"
PULLS = "refs/pr/"
"""Followed by the number of a pull request; commits go there as to a branch."""

_REPO_COLUMNS = "id, kind, namespace, name, private, gated, sdk, created_ms, modified_ms"
_COMMIT_COLUMNS = "oid, tree, parent, title, message, author, created_ms"


@dataclass(frozen=True)
class Repo:
    id: int
    kind: Kind
    namespace: str
    name: str
    private: bool
    gated: Literal["auto", "manual"] | None
    sdk: str | None
    """Spaces only."""
    created_ms: int
    modified_ms: int

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


class Moved(Exception):
    """The repository of this id was renamed: what it is now."""

    def __init__(self, repo: Repo) -> None:
        super().__init__(repo.full_name)
        self.repo = repo


class Commit(NamedTuple):
    oid: str
    tree: str
    """Key of the root tree."""
    parent: str | None
    title: str
    message: str
    author: str
    created_ms: int


class Ref(NamedTuple):
    name: str
    target: str


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _repo(row: tuple) -> Repo:
    key, kind, namespace, name, private, *rest = row
    return Repo(key, kind, namespace, name, bool(private), *rest)


def find_repo(db: sqlite3.Connection, kind: Kind, namespace: str, name: str) -> Repo | None:
    """The repository of an id; raises `Moved` for the old id of a renamed one."""
    row = db.execute(
        f"SELECT {_REPO_COLUMNS} FROM repos WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name)
    ).fetchone()
    if row is not None:
        return _repo(row)
    moved = db.execute(
        f"SELECT {_REPO_COLUMNS} FROM repos"
        " WHERE id = (SELECT repo FROM moves WHERE kind = ? AND namespace = ? AND name = ?)",
        (kind, namespace, name),
    ).fetchone()
    if moved is not None:
        raise Moved(_repo(moved))
    return None


def get_repo(db: sqlite3.Connection, key: int) -> Repo | None:
    row = db.execute(f"SELECT {_REPO_COLUMNS} FROM repos WHERE id = ?", (key,)).fetchone()
    return None if row is None else _repo(row)


def list_repos(db: sqlite3.Connection, kind: Kind, *, author: str | None, searches: list[str]) -> list[Repo]:
    """Repositories of a kind whose id contains every search text, in order of creation."""
    sql = f"SELECT {_REPO_COLUMNS} FROM repos WHERE kind = ?"
    values: list[str] = [kind]
    if author is not None:
        sql += " AND namespace = ?"
        values.append(author)
    for text in searches:
        sql += " AND instr(lower(namespace || '/' || name), ?)"
        values.append(text.lower())
    return [_repo(row) for row in db.execute(sql + " ORDER BY id", values)]


def is_repo(db: sqlite3.Connection, key: int) -> bool:
    """Whether a repository still exists, under whatever name."""
    return db.execute("SELECT 1 FROM repos WHERE id = ?", (key,)).fetchone() is not None


def holders(db: sqlite3.Connection, sha256: str) -> list[Repo]:
    """Repositories with a commit that has this large file."""
    sql = f"SELECT {_REPO_COLUMNS} FROM repos WHERE id IN (SELECT repo FROM links WHERE sha256 = ?)"
    return [_repo(row) for row in db.execute(sql, (sha256,))]


def insert_repo(
    db: sqlite3.Connection, kind: Kind, namespace: str, name: str, *, private: bool, sdk: str | None
) -> Repo:
    """A new repository without any ref yet; a redirect from a moved repository's old id gives way to it."""
    check_repo_id(namespace, name)
    values = (kind, namespace, name)
    db.execute("DELETE FROM moves WHERE kind = ? AND namespace = ? AND name = ?", values)
    now = now_ms()
    row = db.execute(
        "INSERT INTO repos (kind, namespace, name, private, sdk, created_ms, modified_ms)"
        f" VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING {_REPO_COLUMNS}",
        (*values, private, sdk, now, now),
    ).fetchone()
    return _repo(row)


def copy_history(db: sqlite3.Connection, source: Repo, target: Repo) -> None:
    """All commits, branches and tags of one repository for a new one; its pull requests stay where they are."""
    columns = "tree, parent, title, message, author, created_ms"
    db.execute(
        f"INSERT INTO commits (repo, oid, {columns}) SELECT ?, oid, {columns} FROM commits WHERE repo = ?",
        (target.id, source.id),
    )
    db.execute(
        "INSERT INTO refs SELECT ?, name, target, message FROM refs WHERE repo = ? AND name NOT LIKE ?",
        (target.id, source.id, PULLS + "%"),
    )


def delete_repo(db: sqlite3.Connection, repo: Repo) -> None:
    db.execute("DELETE FROM repos WHERE id = ?", (repo.id,))


def move_repo(db: sqlite3.Connection, repo: Repo, namespace: str, name: str) -> None:
    """Rename a repository and redirect its old id; raises a 409 when the new one is taken."""
    check_repo_id(namespace, name)
    taken = db.execute(
        "SELECT id FROM repos WHERE kind = ? AND namespace = ? AND name = ?", (repo.kind, namespace, name)
    ).fetchone()
    if taken is not None and taken[0] != repo.id:
        raise conflict(f"A {repo.kind} repository called {namespace}/{name} already exists")
    db.execute("UPDATE repos SET namespace = ?, name = ? WHERE id = ?", (namespace, name, repo.id))
    db.execute("DELETE FROM moves WHERE kind = ? AND namespace = ? AND name = ?", (repo.kind, namespace, name))
    if taken is None:
        db.execute("INSERT INTO moves VALUES (?, ?, ?, ?)", (repo.kind, repo.namespace, repo.name, repo.id))


def update_settings(db: sqlite3.Connection, repo: Repo, *, private: bool, gated: str | None) -> None:
    db.execute("UPDATE repos SET private = ?, gated = ? WHERE id = ?", (private, gated, repo.id))


def resolve_revision(db: sqlite3.Connection, repo: Repo, revision: str) -> Commit:
    """The commit a branch, tag, full ref name or (abbreviated) commit id names; a branch wins over a tag."""
    names = (HEADS + revision, TAGS + revision, revision)
    columns = ", ".join(f"c.{column}" for column in _COMMIT_COLUMNS.split(", "))
    rows = db.execute(
        f"SELECT r.name, {columns} FROM refs r JOIN commits c ON c.repo = r.repo AND c.oid = r.target"
        " WHERE r.repo = ? AND r.name IN (?, ?, ?)",
        (repo.id, *names),
    ).fetchall()
    if rows:
        return Commit(*min(rows, key=lambda row: names.index(row[0]))[1:])
    if is_short_sha(revision):
        rows = db.execute(
            f"SELECT {_COMMIT_COLUMNS} FROM commits WHERE repo = ? AND oid >= ? AND oid < ? LIMIT 2",
            (repo.id, revision, revision + "g"),
        ).fetchall()
        if len(rows) == 1:
            return Commit(*rows[0])
    raise revision_not_found(revision)


def get_commit(db: sqlite3.Connection, repo: Repo, oid: str) -> Commit:
    row = db.execute(f"SELECT {_COMMIT_COLUMNS} FROM commits WHERE repo = ? AND oid = ?", (repo.id, oid)).fetchone()
    assert row is not None, f"commit {oid} is referenced but not stored"
    return Commit(*row)


def insert_commit(db: sqlite3.Connection, repo: Repo, commit: Commit) -> None:
    db.execute("INSERT OR IGNORE INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (repo.id, *commit))


def branch_ref(db: sqlite3.Connection, repo: Repo, revision: str) -> str:
    """Full name of the branch a commit is made on; tags and commit ids cannot be committed to."""
    name = revision if revision.startswith((HEADS, PULLS)) else HEADS + revision
    if db.execute("SELECT 1 FROM refs WHERE repo = ? AND name = ?", (repo.id, name)).fetchone():
        return name
    others = "SELECT 1 FROM refs WHERE repo = ? AND name IN (?, ?)"
    if is_hex(revision, 40) or db.execute(others, (repo.id, TAGS + revision, revision)).fetchone():
        raise bad_request(f"{revision} is not a branch: commits are made on branches only")
    raise revision_not_found(revision)


def is_branch(db: sqlite3.Connection, repo: Repo, name: str) -> bool:
    """Whether `name` is the full name of a branch that exists."""
    query = "SELECT 1 FROM refs WHERE repo = ? AND name = ?"
    return name.startswith(HEADS) and db.execute(query, (repo.id, name)).fetchone() is not None


def move_ref(db: sqlite3.Connection, repo: Repo, ref: str, target: str) -> None:
    """Point a branch at a commit, creating it if need be; a tag keeps its message."""
    sql = "INSERT INTO refs (repo, name, target) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET target = excluded.target"
    db.execute(sql, (repo.id, ref, target))
    db.execute("UPDATE repos SET modified_ms = ? WHERE id = ?", (now_ms(), repo.id))


def list_refs(db: sqlite3.Connection, repo: Repo) -> list[Ref]:
    return [Ref(*row) for row in db.execute("SELECT name, target FROM refs WHERE repo = ? ORDER BY name", (repo.id,))]


def create_ref(db: sqlite3.Connection, repo: Repo, prefix: str, name: str, target: str, message: str | None) -> None:
    """A new branch or tag; raises a 409 when it exists."""
    check_ref_name(name)
    try:
        db.execute("INSERT INTO refs VALUES (?, ?, ?, ?)", (repo.id, prefix + name, target, message))
    except sqlite3.IntegrityError as error:
        kind = "Tag" if prefix == TAGS else "Reference"
        raise conflict(f"{kind} {prefix}{name} already exists") from error


def delete_ref(db: sqlite3.Connection, repo: Repo, prefix: str, name: str) -> None:
    if prefix + name == MAIN:
        raise forbidden(f"Cannot delete {MAIN}")
    if db.execute("DELETE FROM refs WHERE repo = ? AND name = ?", (repo.id, prefix + name)).rowcount == 0:
        raise Refusal(404, "Invalid rev id", code="RevisionNotFound")
