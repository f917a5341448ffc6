"""Listing what a revision holds: folders, and chosen paths."""

from collections.abc import Iterable
from itertools import islice

from starlette.responses import Response

from erpd_hub.hub.server import commits
from erpd_hub.hub.server.call import Call, Json, Routes, bounded_int, page_link, reply, timestamp
from erpd_hub.hub.server.errors import Refusal, bad_request, entry_not_found
from erpd_hub.hub.server.objects import File, Folder, lfs_pointer
from erpd_hub.hub.server.paths import split_path
from erpd_hub.hub.server.repos import Commit
from erpd_hub.hub.server.trees import Found

ENTRIES_PER_PAGE = 1000
MAX_PATHS = 10_000


def list_tree(call: Call) -> Response:
    commit = call.revision()
    path = call.rest_text(1)
    key = commit.tree
    if path:
        folder = call.entry(commit, path)
        if isinstance(folder, File):
            raise entry_not_found(f"{path} is not a folder", commit=commit.oid)
        key = folder.key
    offset = bounded_int(call.query("cursor"), default=0, maximum=10**9)
    limit = max(1, bounded_int(call.query("limit"), default=ENTRIES_PER_PAGE, maximum=ENTRIES_PER_PAGE))
    prefix = f"{path}/" if path else ""
    walk = call.hub.trees.walk(call.db, key, prefix=prefix, recursive=call.flag("recursive"))
    found = list(islice(walk, offset, offset + limit + 1))
    rows = _describe(call, commit, found[:limit], expand=call.flag("expand"))
    return reply(rows, headers=_next_page(call, commit, offset + limit) if len(found) > limit else None)


def _next_page(call: Call, commit: Commit, cursor: int) -> dict[str, str]:
    """A link by commit id, so that a commit made meanwhile does not shift the listing."""
    start = call.request.scope["raw_path"].decode("ascii").split("/")
    start[6] = commit.oid
    return page_link(call, "/".join(start), cursor=str(cursor))


def paths_info(call: Call) -> Response:
    commit = call.revision()
    fields = call.form if call.body else {}
    paths = fields.get("paths") or fields.get("paths[]") or []
    if len(paths) > MAX_PATHS:
        raise bad_request(f"At most {MAX_PATHS} paths at once")
    expand = fields.get("expand", [""])[0].lower() in ("1", "true")
    found = _existing(call, commit, paths)
    rows = _describe(call, commit, found, expand=expand)
    if not expand:
        _mark_copyable(found, rows)
    return reply(rows)


def _mark_copyable(found: list[Found], rows: list[Json]) -> None:
    """Clients copy a large file to another repository only when it has an `xetHash`, and one that is no hash is of no
    use to them for anything else. They ask without `expand` then."""
    for item, row in zip(found, rows, strict=True):
        if isinstance(item.entry, File) and item.entry.lfs:
            row["xetHash"] = f"sha256:{item.entry.sha256}"


def _existing(call: Call, commit: Commit, paths: Iterable[str]) -> list[Found]:
    """The entries of those paths that exist; an impossible path does not."""
    found = []
    for path in dict.fromkeys(path.strip("/") for path in paths):
        try:
            entry = call.hub.trees.find(call.db, commit.tree, split_path(path))
        except Refusal:
            continue
        if entry is not None:
            found.append(Found(path, entry))
    return found


def _describe(call: Call, commit: Commit, found: list[Found], *, expand: bool) -> list[Json]:
    rows = [describe_entry(item) for item in found]
    if expand:
        paths = [item.path for item in found]
        touched = commits.last_touched(call.db, call.hub.trees, call.repo(), commit, paths)
        for row, path in zip(rows, paths, strict=True):
            last = touched[path]
            row["lastCommit"] = {"id": last.oid, "title": last.title, "date": timestamp(last.created_ms)}
    return rows


def describe_entry(found: Found) -> Json:
    """An entry as tree listings show it. No `xetHash`: it would send clients to a read path that is not here."""
    path, entry = found
    if isinstance(entry, Folder):
        return {"type": "directory", "oid": entry.oid, "size": 0, "path": path}
    row: Json = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.lfs:
        pointer = len(lfs_pointer(entry.sha256, entry.size))
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer}
    return row


REPO_ROUTES: Routes = {("GET", "tree"): list_tree, ("POST", "paths-info"): paths_info}
