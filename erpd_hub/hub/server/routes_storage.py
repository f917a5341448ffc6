"""Large files of a repository over its whole history, and freeing them: what `list_lfs_files` and
`permanently_delete_lfs_files` of the client ask for. Commits stay as they are; those that named the file dangle."""

import sqlite3
from collections.abc import Iterable

from starlette.responses import Response

from erpd_hub.hub.server.call import Call, Json, Routes, reply, timestamp
from erpd_hub.hub.server.errors import bad_request
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.trees import TreeStore


def list_lfs_files(call: Call) -> Response:
    repo = call.repo()
    rows: dict[str, Json] = {}
    query = "SELECT oid, tree, created_ms FROM commits WHERE repo = ? ORDER BY created_ms"
    for oid, tree, created_ms in call.db.execute(query, (repo.id,)).fetchall():
        for path, file in call.hub.trees.files(call.db, tree):
            if file.lfs and call.hub.blobs.size(call.db, file.sha256) is not None:
                where = {"filename": path, "ref": oid, "pushedAt": timestamp(created_ms)}
                rows.setdefault(file.sha256, {"fileOid": file.sha256, "oid": file.sha256, "size": file.size, **where})
    return reply(list(rows.values()))


def delete_lfs_files(call: Call) -> Response:
    """Free large files of this repository's history that no other repository has."""
    repo = call.writable_repo()
    asked = call.json.get("deletions")
    if not isinstance(asked, dict) or not isinstance(asked.get("sha"), list) or asked.get("rewriteHistory", True):
        raise bad_request("expected deletions: {sha: [...], rewriteHistory: false}; history is not rewritten here")
    with call.hub.db.write() as db:
        trees = db.execute("SELECT repo = ?, tree FROM commits", (repo.id,)).fetchall()
        own = _lfs_files(db, call.hub.trees, {tree for mine, tree in trees if mine})
        others = _lfs_files(db, call.hub.trees, {tree for mine, tree in trees if not mine})
        freed = {sha for sha in asked["sha"] if sha in own and sha not in others}
        for sha in freed:
            db.execute("DELETE FROM blobs WHERE sha256 = ?", (sha,))
    for sha in freed:
        call.hub.blobs.path(sha).unlink(missing_ok=True)
    return reply({})


def _lfs_files(db: sqlite3.Connection, trees: TreeStore, roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for root in roots:
        found |= {file.sha256 for _, file in trees.files(db, root) if isinstance(file, File) and file.lfs}
    return found


REPO_ROUTES: Routes = {("GET", "lfs-files"): list_lfs_files, ("POST", "lfs-files"): delete_lfs_files}
