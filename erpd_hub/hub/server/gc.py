"""What takes content out of a root that no server has open: what nothing refers to, and what is damaged.

Every commit counts as a reference, reachable from a branch or not, as lineage pins commits by their id; but not to a
large file that its repository gave up, which is deleted for good once no repository has it. Uploads younger
than a given age are kept, for a push that was interrupted will go on; but where anything is removed, what clients sent
through Xet and no commit has yet is sent again. A root whose references cannot be trusted is left as it is.
"""

import sqlite3
import time
from collections.abc import Container, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from erpd_hub.errors import HubError
from erpd_hub.hub.server import schema
from erpd_hub.hub.server.blobs import BlobStore, blob_files
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.fsck import DATABASE
from erpd_hub.hub.server.objects import File, decode_tree
from erpd_hub.hub.server.xet import FOLDER as XORBS
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
        old = _unreferenced_files(root, blobs, young_ms)
        if not dry_run:
            if old or dead_rows:
                forget(root)  # first: a kill must not leave clients relying on what is gone
            db.executemany("DELETE FROM trees WHERE key = ?", ((key,) for key in dead_trees))
            db.executemany("DELETE FROM blobs WHERE sha256 = ?", ((sha,) for sha in dead_rows))
            db.execute("DELETE FROM uploads WHERE added_ms < ?", (young_ms,))
    for path in () if dry_run else old:  # after the transaction: a kill leaves files that the next run removes
        path.unlink(missing_ok=True)
    return Removed(len(dead_trees), len(dead_rows) + len(old), sum(dead_rows.values()) + sum(old.values()))


def _unreferenced_files(root: Path, blobs: Container[str], young_ms: int) -> dict[Path, int]:
    """Sizes of the blobs that nothing needs and of the unfinished uploads, those that are old enough."""
    paths = [path for sha, path in blob_files(root) if sha not in blobs]
    paths += root.glob("parts/*")
    waiting = root.glob(f"{XORBS}*/**/*")  # also of a `forget` that was killed
    paths += [path for path in waiting if path.is_file() and path.suffix != ".in"]  # .in: it is part of a blob
    stats = {path: path.stat() for path in paths}
    return {path: stat.st_size for path, stat in stats.items() if stat.st_mtime * 1000 < young_ms}


_BLOB_SIZES = "SELECT sha256, length(data) FROM blobs"


def set_aside(root: Path, damaged: Iterable[str]) -> Path:
    """Move damaged content to a folder of the root, so that the next push of the same file brings it again. The caller
    holds the root."""
    folder = root / "damaged"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)  # also with another umask than the server's: some of it is private
    store = BlobStore(root)
    forget(root)
    with closing(Database(root / DATABASE)) as database, database.write() as db:
        for sha in damaged:
            if (content := store.inline(db, sha)) is not None:
                (folder / sha).touch(mode=0o600)
                (folder / sha).write_bytes(content)
                db.execute("DELETE FROM blobs WHERE sha256 = ?", (sha,))
            if store.path(sha).exists():
                store.path(sha).rename(folder / sha)
    return folder


def _check_references(db: sqlite3.Connection, root: Path) -> None:
    if [line for (line,) in db.execute("PRAGMA integrity_check")] != ["ok"]:
        raise _untrusted(root, "sqlite finds it damaged")
    totals = dict(db.execute("SELECT name, total FROM totals").fetchall())
    for table in ("commits", "links"):
        if schema.table_total(db, table) != totals.get(table):
            raise _untrusted(root, f"its {table} are damaged")


def _referenced(db: sqlite3.Connection, root: Path) -> tuple[set[str], set[str]]:
    """Keys of all trees and hashes of all content that commits lead to, large files as far as somebody has them."""
    had = {sha for (sha,) in db.execute("SELECT sha256 FROM links")}
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
            if not isinstance(entry, File):
                left.append(entry.key)
            elif not entry.lfs or entry.sha256 in had:
                blobs.add(entry.sha256)
    return trees, blobs


def _untrusted(root: Path, what: str) -> HubError:
    return HubError(f"{root / DATABASE}: {what}; nothing was removed, run erpd-hub hub fsck")
