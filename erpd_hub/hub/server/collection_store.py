"""Collections: named lists of repositories and of other collections.

Every function takes the connection of the caller's transaction. Items refer to what they list by its row, so they
follow a repository that moves and are left out once it is deleted.
"""

import re
import secrets
import sqlite3
from typing import NamedTuple

from erpd_hub.hub.server import repos
from erpd_hub.hub.server.errors import unprocessable
from erpd_hub.hub.server.repos import Repo

MAX_ITEMS = 1000
MAX_COLLECTIONS = 1000
"""Of one owner, as a listing looks at all there are."""
_KEY = re.compile(r"(?:.*-)?([0-9a-f]{24})")
_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")
_COLUMNS = "id, key, owner, title, description, theme, private, position, modified_ms"


class Collection(NamedTuple):
    id: int
    key: str
    owner: str
    title: str
    description: str | None
    theme: str
    private: bool
    position: int
    modified_ms: int

    @property
    def slug(self) -> str:
        """How clients name it; the title's part may be out of date in what they send."""
        words = _NOT_IN_SLUG.sub("-", self.title.lower()).strip("-")[:60]
        return f"{self.owner}/{words}-{self.key}" if words else f"{self.owner}/{self.key}"


class Item(NamedTuple):
    id: int
    kind: str
    target: Repo | Collection
    note: str | None


def create(db: sqlite3.Connection, owner: str, title: str, description: str | None, *, private: bool) -> Collection:
    (position,) = db.execute("SELECT count(*) FROM collections WHERE owner = ?", (owner,)).fetchone()
    if position >= MAX_COLLECTIONS:
        raise unprocessable(f"{owner} has {MAX_COLLECTIONS} collections already; delete one")
    values = (secrets.token_hex(12), owner, title, description, "orange", private, position, repos.now_ms())
    row = db.execute(
        "INSERT INTO collections (key, owner, title, description, theme, private, position, modified_ms)"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
        values,
    ).fetchone()
    return _collection(row)


def find(db: sqlite3.Connection, owner: str, slug: str) -> Collection | None:
    key = _KEY.fullmatch(slug)
    if key is None:
        return None
    row = db.execute(f"SELECT {_COLUMNS} FROM collections WHERE owner = ? AND key = ?", (owner, key[1])).fetchone()
    return None if row is None else _collection(row)


def list_all(db: sqlite3.Connection) -> list[Collection]:
    """Last changed first."""
    return [_collection(row) for row in db.execute(f"SELECT {_COLUMNS} FROM collections ORDER BY modified_ms DESC, id")]


def save(db: sqlite3.Connection, changed: Collection) -> None:
    db.execute(
        "UPDATE collections SET title = ?, description = ?, theme = ?, private = ?, position = ?, modified_ms = ?"
        " WHERE id = ?",
        (*changed[3:8], repos.now_ms(), changed.id),
    )


def delete(db: sqlite3.Connection, collection: Collection) -> None:
    db.execute("DELETE FROM collections WHERE id = ?", (collection.id,))


def items(db: sqlite3.Connection, collection: Collection) -> list[Item]:
    rows = db.execute(
        "SELECT id, kind, target, note FROM collection_items WHERE collection = ? ORDER BY position, id",
        (collection.id,),
    ).fetchall()
    found = ((key, kind, _target(db, kind, target), note) for key, kind, target, note in rows)
    return [Item(key, kind, target, note) for key, kind, target, note in found if target is not None]


def add(db: sqlite3.Connection, collection: Collection, kind: str, target: Repo | Collection, note: str | None) -> bool:
    """Append an item; False when it is there already."""
    listed = items(db, collection)
    if any((item.kind, item.target.id) == (kind, target.id) for item in listed):
        return False
    values = (collection.id, kind, target.id, len(listed), note)
    db.execute("INSERT INTO collection_items (collection, kind, target, position, note) VALUES (?, ?, ?, ?, ?)", values)
    save(db, collection)
    return True


def change(db: sqlite3.Connection, collection: Collection, item: Item, note: str | None, position: int | None) -> None:
    db.execute("UPDATE collection_items SET note = coalesce(?, note) WHERE id = ?", (note, item.id))
    if position is not None:
        order = [other.id for other in items(db, collection) if other.id != item.id]
        order.insert(position, item.id)
        for place, key in enumerate(order):
            db.execute("UPDATE collection_items SET position = ? WHERE id = ?", (place, key))
    save(db, collection)


def remove(db: sqlite3.Connection, collection: Collection, item: Item) -> None:
    db.execute("DELETE FROM collection_items WHERE id = ?", (item.id,))
    save(db, collection)


def _target(db: sqlite3.Connection, kind: str, key: int) -> Repo | Collection | None:
    if kind != "collection":
        return repos.get_repo(db, key)
    row = db.execute(f"SELECT {_COLUMNS} FROM collections WHERE id = ?", (key,)).fetchone()
    return None if row is None else _collection(row)


def _collection(row: tuple) -> Collection:
    found = Collection(*row)
    return found._replace(private=bool(found.private))
