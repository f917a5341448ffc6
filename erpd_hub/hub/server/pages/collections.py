"""The page of a collection, whose URL clients print."""

from typing import NamedTuple

from erpd_hub.hub.server import routes_collections
from erpd_hub.hub.server.call import Call
from erpd_hub.hub.server.collection_store import Collection
from erpd_hub.hub.server.pages.lineages import repo_url
from erpd_hub.hub.server.pages.views import Page


class Listed(NamedTuple):
    """An item of a collection."""

    kind: str
    name: str
    url: str
    private: bool
    note: str


def collection(call: Call) -> Page:
    """What it lists that the reader may see."""
    found = routes_collections.find(call, call.db)
    rows = []
    for item in routes_collections.visible_items(call, call.db, found):
        if isinstance(item.target, Collection):
            name, url = item.target.title, f"/collections/{item.target.slug}"
        else:
            name, url = item.target.full_name, repo_url(item.target)
        rows.append(Listed(item.kind, name, url, item.target.private, item.note or ""))
    return Page("collection.html.jinja", {"found": found, "rows": rows})
