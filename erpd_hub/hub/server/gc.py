"""What takes content out of a root that no server has open: what nothing refers to, and what is damaged.

Every commit counts as a reference, reachable from a branch or not, as lineage pins commits by their id. Uploads younger
than a given age are kept, for a push that was interrupted will go on. A root whose references cannot be trusted is left
as it is.
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from erpd_hub.errors import HubError
from erpd_hub.hub.server import schema
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.fsck import DATABASE, blob_files
from erpd_hub.hub.server.objects import File, decode_tree
from erpd_hub.hub.server.xet import forget


class Removed(NamedTuple):
    trees: int
    blobs: int
    bytes: int
    """Of the blobs."""


def collect(root: Path, *, min_age_s: float, dry_run: bool) -> Removed:
    """Remove what is unreferenced, or with `dry_run` only count it. The caller holds the root (`only_server`).

    Raises:
        HubError: something that is referred to is missing or damaged; nothing was removed.
    """
    BlobStore(root)  # which clears what a killed server was receiving
    young_ms = int((time.time() - min_age_s) * 1000)
    with closing(Database(root / DATABASE)) as database, database.write() as db:
        _check_references(db, root)
        trees, blobs = _referenced(db, root)
        blobs |= {sha for (sha,) in db.execute("SELECT sha256 FROM uploads WHERE added_ms >= ?", (young_ms,))}
        dead_trees = [key for (key,) in db.execute("SELECT key FROM trees") if key not in trees]
        dead_rows = {sha: size for sha, size in db.execute(_BLOB_SIZES) if sha not in blobs}
        if not dry_run:
            db.executemany("DELETE FROM trees WHERE key = ?", ((key,) for key in dead_trees))
            db.executemany("DELETE FROM blobs WHERE sha256 = ?", ((sha,) for sha in dead_rows))
            db.execute("DELETE FROM uploads WHERE added_ms < ?", (young_ms,))
    files = {path: path.stat() for sha, path in blob_files(root) if sha not in blobs}
    for unfinished in ("parts/*", f"xorbs/*/{'?' * 64}"):  # a xorb of which a blob was made has a longer name
        files |= {path: path.stat() for path in root.glob(unfinished)}
    old = {path: stat.st_size for path, stat in files.items() if stat.st_mtime * 1000 < young_ms}
    if not dry_run and (old or dead_rows):
        for path in old:  # after the transaction: a kill leaves files that the next run removes
            path.unlink()
        forget(root)
    return Removed(len(dead_trees), len(dead_rows) + len(old), sum(dead_rows.values()) + sum(old.values()))


_BLOB_SIZES = "SELECT sha256, length(data) FROM blobs"


def set_aside(root: Path, damaged: Iterable[str]) -> Path:
    """Move damaged content to a folder of the root, so that the next push of the same file brings it again. The caller
    holds the root."""
    folder = root / "damaged"
    folder.mkdir(exist_ok=True)
    store = BlobStore(root)
    with closing(Database(root / DATABASE)) as database, database.write() as db:
        for sha in damaged:
            if (content := store.inline(db, sha)) is not None:
                (folder / sha).write_bytes(content)
                db.execute("DELETE FROM blobs WHERE sha256 = ?", (sha,))
            if store.path(sha).exists():
                store.path(sha).rename(folder / sha)
    forget(root)
    return folder


def _check_references(db: sqlite3.Connection, root: Path) -> None:
    total = db.execute("SELECT total FROM totals WHERE name = 'commits'").fetchone()[0]
    sound = [line for (line,) in db.execute("PRAGMA integrity_check")] == ["ok"]
    if not sound or schema.table_total(db, "commits") != total:
        raise _untrusted(root, "its commits are damaged")


def _referenced(db: sqlite3.Connection, root: Path) -> tuple[set[str], set[str]]:
    """Keys of all trees and hashes of all content that commits lead to."""
    trees: set[str] = set()
    blobs: set[str] = set()
    left = [key for (key,) in db.execute("SELECT DISTINCT tree FROM commits")]
    while left:
        key = left.pop()
        if key in trees:
            continue
        trees.add(key)
        row = db.execute("SELECT data FROM trees WHERE key = ?", (key,)).fetchone()
        if row is None or sha256(row[0]).hexdigest() != key:
            raise _untrusted(root, f"tree {key} is missing or damaged")
        for entry in decode_tree(row[0]).values():
            if isinstance(entry, File):
                blobs.add(entry.sha256)
            else:
                left.append(entry.key)
    return trees, blobs


def _untrusted(root: Path, what: str) -> HubError:
    return HubError(f"{root / DATABASE}: {what}; nothing was removed, run erpd-hub hub fsck")
