"""Collections as clients see them."""

import sqlite3

from starlette.responses import Response

from erpd_hub.hub.server import collection_store
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    Target,
    bounded_int,
    find_current,
    kind_field,
    reply,
    text_field,
    timestamp,
)
from erpd_hub.hub.server.collection_store import MAX_ITEMS, Collection, Item
from erpd_hub.hub.server.errors import Refusal, bad_request, conflict, unprocessable
from erpd_hub.hub.server.paging import Page
from erpd_hub.hub.server.repos import Repo

PER_PAGE = 100
MAX_TITLE_CHARS = 200
MAX_NOTE_CHARS = 5000
_THEMES = ("orange", "blue", "green", "purple", "pink", "indigo")


def listing(call: Call) -> Response:
    owners, item = call.query_list("owner"), call.query("item")
    found = [row for row in collection_store.list_all(call.db) if _may_read(call, row)]
    found = [row for row in found if not owners or row.owner in owners]
    found = [row for row in found if item is None or item in _item_paths(call, row)]
    offset = bounded_int(call.query("cursor"), default=0, maximum=10**9)
    limit = max(1, bounded_int(call.query("limit"), default=PER_PAGE, maximum=PER_PAGE))
    page = Page(limit)
    for position, shown in enumerate(found[offset:], start=offset):
        if page.is_full:
            return page.reply(call, "/api/collections", more=position)
        row = _described(call, call.db, shown)
        del row["position"]  # clients count for themselves
        page.add(row)
    return page.reply(call, "/api/collections", more=None)


def create(call: Call) -> Response:
    owner = text_field(call.json, "namespace", call.member().name)
    call.hub.accounts.check_write(call.user, owner)
    private = _flag(call, "private", False)
    with call.hub.db.write() as db:
        made = collection_store.create(db, owner, _title(call), _note(call, "description"), private=private)
        answer = _described(call, db, made)
    return reply(answer)


def read(call: Call) -> Response:
    return reply(_described(call, call.db, find(call, call.db)))


def change(call: Call) -> Response:
    """The collection itself, or one of its items."""
    position = _position(call)
    with call.hub.db.write() as db:
        found = find(call, db, write=True)
        if call.target.rest:
            collection_store.change(db, found, _item(call, db, found), _note(call, "note"), position)
            return reply({"success": True})
        changed = found._replace(
            title=_title(call) if "title" in call.json else found.title,
            description=_note(call, "description") if "description" in call.json else found.description,
            theme=_theme(call) or found.theme,
            private=_flag(call, "private", found.private),
            position=found.position if position is None else position,
        )
        collection_store.save(db, changed)
        return reply({"success": True, "data": _described(call, db, changed)})


def delete(call: Call) -> Response:
    with call.hub.db.write() as db:
        found = find(call, db, write=True)
        if call.target.rest:
            collection_store.remove(db, found, _item(call, db, found))
        else:
            collection_store.delete(db, found)
    return reply({"success": True})


def add_item(call: Call) -> Response:
    item = call.json.get("item")
    if not isinstance(item, dict) or call.target.rest != ("items",):
        raise bad_request('"item" must be an object with type and id')
    with call.hub.db.write() as db:
        found = find(call, db, write=True)
        if len(collection_store.items(db, found)) >= MAX_ITEMS:
            raise unprocessable(f"A collection has at most {MAX_ITEMS} items")
        kind, target = text_field(item, "type"), _target(call, db, item)
        if not collection_store.add(db, found, kind, target, _note(call, "note")):
            raise conflict("The collection has this item already")
        answer = _described(call, db, found)
    return reply(answer)


def _target(call: Call, db: sqlite3.Connection, item: Json) -> Repo | Collection:
    owner, _, name = text_field(item, "id").partition("/")
    if text_field(item, "type") == "collection":
        return _find_named(call, db, owner, name)
    return find_current(call.hub, db, call.user, Target(kind_field(item), owner, name))


def find(call: Call, db: sqlite3.Connection, *, write: bool = False) -> Collection:
    found = _find_named(call, db, call.target.namespace, call.target.name)
    if write:
        call.hub.accounts.check_write(call.user, found.owner)
    return found


def _find_named(call: Call, db: sqlite3.Connection, owner: str, slug: str) -> Collection:
    found = collection_store.find(db, owner, slug)
    if found is None or not _may_read(call, found):
        raise Refusal(404, "Collection not found")
    return found


def _may_read(call: Call, row: Collection) -> bool:
    return not row.private or call.hub.accounts.may_write(call.user, row.owner)


def _item(call: Call, db: sqlite3.Connection, row: Collection) -> Item:
    for item in collection_store.items(db, row):
        if call.target.rest == ("items", _item_id(item)):
            return item
    raise Refusal(404, "Item not found")


def visible_items(call: Call, db: sqlite3.Connection, row: Collection) -> list[Item]:
    accounts = call.hub.accounts
    return [
        item
        for item in collection_store.items(db, row)
        if (
            accounts.may_read(call.user, item.target) if isinstance(item.target, Repo) else _may_read(call, item.target)
        )
    ]


def _item_paths(call: Call, row: Collection) -> set[str]:
    """The items as the listing's filter names them."""
    return {f"{item.kind}s/{_target_id(item)}" for item in visible_items(call, call.db, row)}


def _described(call: Call, db: sqlite3.Connection, row: Collection) -> Json:
    return {
        "slug": row.slug,
        "title": row.title,
        "description": row.description,
        "owner": row.owner,
        "theme": row.theme,
        "private": row.private,
        "position": row.position,
        "upvotes": 0,
        "isUpvotedByUser": False,
        "lastUpdated": timestamp(row.modified_ms),
        "items": [_described_item(item, place) for place, item in enumerate(visible_items(call, db, row))],
    }


def _described_item(item: Item, place: int) -> Json:
    answer: Json = {"_id": _item_id(item), "id": _target_id(item), "type": item.kind, "position": place}
    if isinstance(item.target, Collection):
        answer["slug"] = item.target.slug
    if item.note is not None:
        answer["note"] = {"text": item.note, "html": None}
    return answer


def _item_id(item: Item) -> str:
    return f"{item.id:024x}"


def _target_id(item: Item) -> str:
    return item.target.slug if isinstance(item.target, Collection) else item.target.full_name


def _title(call: Call) -> str:
    title = text_field(call.json, "title").strip()
    if not 1 <= len(title) <= MAX_TITLE_CHARS:
        raise unprocessable(f"A title has 1 to {MAX_TITLE_CHARS} characters")
    return title


def _note(call: Call, name: str) -> str | None:
    if call.json.get(name) is None:
        return None
    note = text_field(call.json, name)
    if len(note) > MAX_NOTE_CHARS:
        raise unprocessable(f'"{name}" has at most {MAX_NOTE_CHARS} characters')
    return note


def _theme(call: Call) -> str | None:
    theme = call.json.get("theme")
    if theme is not None and theme not in _THEMES:
        raise bad_request(f'"theme" must be one of {", ".join(_THEMES)}')
    return theme


def _flag(call: Call, name: str, default: bool) -> bool:
    value = call.json.get(name)
    if not isinstance(value, bool | None):
        raise bad_request(f'"{name}" must be true or false')
    return default if value is None else value


def _position(call: Call) -> int | None:
    value = call.json.get("position")
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_ITEMS):
        raise bad_request(f'"position" must be a number from 0 to {MAX_ITEMS}')
    return value


SITE_ROUTES: Routes = {("GET", "collections"): listing, ("POST", "collections"): create}
COLLECTION_ROUTES: Routes = {
    ("GET", ""): read,
    ("PATCH", ""): change,
    ("DELETE", ""): delete,
    ("POST", "items"): add_item,
    ("PATCH", "items"): change,
    ("DELETE", "items"): delete,
}
"""By method and the word after /api/collections/{owner}/{slug}/."""
