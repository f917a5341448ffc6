"""The tables of the sqlite file, and how an older file becomes one of today's.

`_STEPS[n]` turns schema n into n + 1; a new file goes through all of them. What content-addressed tables cannot show,
a flipped byte in a row, `totals` shows: triggers keep, per table, the exclusive or of a digest of every row.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from hashlib import blake2b

from erpd_hub.hub.server.objects import File, decode_tree

_SELF_VERIFYING = ("blobs", "trees")
"""Their keys are the sha256 of their data."""
_CATALOG = "sqlite_master"

_FIRST = """
CREATE TABLE repos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL,
    gated TEXT,
    sdk TEXT,
    created_ms INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE moves (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE commits (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    oid TEXT NOT NULL,
    tree TEXT NOT NULL,
    parent TEXT,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (repo, oid)
) WITHOUT ROWID;
CREATE TABLE refs (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT,
    PRIMARY KEY (repo, name)
) WITHOUT ROWID;
CREATE TABLE trees (key TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
"""

_POSSESSION = """
CREATE TABLE links (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (sha256, repo)
) WITHOUT ROWID;
CREATE TABLE uploads (
    account TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    PRIMARY KEY (account, sha256)
) WITHOUT ROWID;
CREATE TABLE totals (name TEXT PRIMARY KEY, total INTEGER NOT NULL) WITHOUT ROWID;
"""


_TALK = """
CREATE TABLE discussions (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    num INTEGER NOT NULL,
    title TEXT NOT NULL,
    author TEXT NOT NULL,
    status TEXT NOT NULL,
    base TEXT,
    merged TEXT,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (repo, num)
) WITHOUT ROWID;
CREATE TABLE discussion_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    repo INTEGER NOT NULL,
    num INTEGER NOT NULL,
    kind TEXT NOT NULL,
    author TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    data TEXT NOT NULL,
    FOREIGN KEY (repo, num) REFERENCES discussions ON DELETE CASCADE
);
"""

_COLLECTIONS = """
CREATE TABLE collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL COLLATE NOCASE,
    title TEXT NOT NULL,
    description TEXT,
    theme TEXT NOT NULL,
    private INTEGER NOT NULL,
    position INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL
);
CREATE TABLE collection_items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    kind TEXT NOT NULL,
    target INTEGER NOT NULL,
    position INTEGER NOT NULL,
    note TEXT,
    UNIQUE (collection, kind, target)
);
"""


class WrongSchema(Exception):
    """The file was written by a newer version of the server."""


def toggled(total: int, *row: object) -> int:
    """A table's total with a row put in, or taken out again."""
    digest = blake2b(json.dumps(row, default=repr).encode(), digest_size=7)
    return total ^ int.from_bytes(digest.digest(), "big")


def upgrade(db: sqlite3.Connection) -> None:
    """Bring the file to today's schema inside the caller's transaction.

    Raises:
        WrongSchema: it is newer than this code.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise WrongSchema(f"expected schema {SCHEMA_VERSION} or older, got {version}; use a matching erpd-hub")
    if version == SCHEMA_VERSION:
        return
    for step in _STEPS[version:]:
        step(db)
    _guard(db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def table_total(db: sqlite3.Connection, table: str) -> int:
    """What `totals` should say of a table, from its rows as they are."""
    total = 0
    for row in db.execute(_CATALOG_ROWS if table == _CATALOG else f"SELECT * FROM {table}"):
        total = toggled(total, *row)
    return total


_CATALOG_ROWS = f"SELECT type, name, tbl_name, sql FROM {_CATALOG}"


def summed_tables(db: sqlite3.Connection) -> set[str]:
    """What has a row in `totals`: all tables but sqlite's own, those that verify themselves, and `totals`."""
    names = {name for (name,) in db.execute(f"SELECT name FROM {_CATALOG} WHERE type = 'table'")}
    return {name for name in names if not name.startswith("sqlite_")} - {"totals", *_SELF_VERIFYING} | {_CATALOG}


def _guard(db: sqlite3.Connection) -> None:
    """Keep totals of every table that has none yet, and of the list of tables itself."""
    guarded = {name for (name,) in db.execute("SELECT name FROM totals")}
    for table in sorted(summed_tables(db) - guarded - {_CATALOG}):
        db.execute("INSERT INTO totals VALUES (?, ?)", (table, table_total(db, table)))
        _create_triggers(db, table)
    db.execute("INSERT OR REPLACE INTO totals VALUES (?, ?)", (_CATALOG, table_total(db, _CATALOG)))


def _create_triggers(db: sqlite3.Connection, table: str) -> None:
    columns = [column for _, column, *_ in db.execute(f"PRAGMA table_info({table})")]
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
    without, within = f"toggled(total, {old})", f"toggled(total, {new})"
    both = f"toggled({without}, {new})"
    for event, total in (("INSERT", within), ("DELETE", without), ("UPDATE", both)):
        db.execute(
            f"CREATE TRIGGER total_{table}_{event.lower()} AFTER {event} ON {table}"
            f" BEGIN UPDATE totals SET total = {total} WHERE name = '{table}'; END"
        )


def _create(statements: str) -> Callable[[sqlite3.Connection], None]:
    def step(db: sqlite3.Connection) -> None:
        for statement in statements.split(";"):
            db.execute(statement)

    return step


def _add_possession(db: sqlite3.Connection) -> None:
    """Large files belong to the repositories whose commits have them."""
    _create(_POSSESSION)(db)
    roots: dict[int, set[str]] = {}
    for repo, tree in db.execute("SELECT repo, tree FROM commits").fetchall():
        roots.setdefault(repo, set()).add(tree)
    for repo, keys in roots.items():
        rows = ((repo, sha) for sha in _large_files(db, keys))
        db.executemany("INSERT OR IGNORE INTO links (repo, sha256) VALUES (?, ?)", rows)


def _large_files(db: sqlite3.Connection, roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    left = list(roots)
    while left:
        key = left.pop()
        if key in seen:
            continue
        seen.add(key)
        data = db.execute("SELECT data FROM trees WHERE key = ?", (key,)).fetchone()[0]
        for entry in decode_tree(data).values():
            if not isinstance(entry, File):
                left.append(entry.key)
            elif entry.lfs:
                found.add(entry.sha256)
    return found


_STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create(_FIRST),
    _add_possession,
    _create(_TALK + _COLLECTIONS),
)
SCHEMA_VERSION = len(_STEPS)
