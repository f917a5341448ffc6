"""Everything a root stores, read and compared with what says how it must be; nothing is changed.

    blobs, trees        their keys are the sha256 of their data; a commit's id is that of its content
    other tables        `totals` holds the exclusive or of a digest of each row, and of the table definitions
    the sqlite file     its own integrity check, and the checksums of a write-ahead log that a killed server left
    references          ref -> commit -> trees -> blobs, each there and of the recorded size
    the seal            hashes of whole files, of a server that was not killed

May run while the root is served, and on a backup that is mounted read-only.
"""

import hashlib
import re
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from erpd_hub.hub.server import schema
from erpd_hub.hub.server.blobs import blob_files
from erpd_hub.hub.server.database import open_unchanged
from erpd_hub.hub.server.objects import File, Tree, decode_tree, git_commit_id, git_tree_id
from erpd_hub.hub.server.repos import MAIN
from erpd_hub.hub.server.seal import RECORD, SEAL, altered_files, recorded
from erpd_hub.hub.server.wal import damaged_frame

DATABASE = "hub.sqlite"
READ_CHUNK = 4 << 20
SECRET_BYTES = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TABLES = f"{DATABASE}: restore it and blobs/ from one backup, or push the artifacts again to a new root"
_SEALED = {
    DATABASE: "restore it and blobs/ from one backup; where nothing else is wrong, it is a byte that holds nothing",
    "secret": "remove it, and the next server makes another: uploads under way fail, and browsers sign in again",
    SEAL: "nothing else need be wrong; the next server writes another",
}
"""What to do about a file that is not as it was left."""
_NO_SECRET = "restore it, or let the next server make another: uploads under way fail, and browsers sign in again"
_RECORDED = f"where nothing else is wrong and the artifacts verify, remove the file {RECORD}; else restore a backup"
_CONTENT = "push the file again from a copy that has it, after `erpd-hub hub fsck --set-aside`"


@dataclass(frozen=True)
class Problem:
    where: str
    """A file below the root, and what in it."""
    what: str
    remedy: str
    blob: str | None = None
    """sha256 of content that is not what its name says."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


@dataclass
class Report:
    """What was found; `checked` counts what was read."""

    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + 1

    def table(self, what: str, where: str = DATABASE) -> None:
        self.problems.append(Problem(where, what, _TABLES))


def check(root: Path, *, served: bool) -> Report:
    """Read everything below a root; `served` says that a server may be writing."""
    report = Report()
    for name in [] if served else altered_files(root):
        if (root / name).exists():
            report.problems.append(Problem(name, "is not as the last server left it", _SEALED[name]))
    for line in recorded(root):
        report.problems.append(Problem(RECORD, f"a server found this as it started: {line}", _RECORDED))
    if not served and (frame := damaged_frame(root / f"{DATABASE}-wal")) is not None:
        report.table(f"frame {frame} does not have its checksum; commits from there on are lost", f"{DATABASE}-wal")
    try:
        with open_unchanged(root / DATABASE, served=served) as db:
            db.text_factory = lambda text: text.decode(errors="backslashreplace")
            db.execute("BEGIN")
            _Checker(root, db, report).run()
    except UnicodeDecodeError:  # an error of sqlite's that quotes what it could not read
        report.table("not readable: its table definitions are damaged")
    except sqlite3.DatabaseError as error:
        report.table(f"not readable: {error}")
    for sha, path in blob_files(root):
        _check_blob_file(root, sha, path, report)
    if not (root / "secret").exists():  # also where no seal says that there was one
        report.problems.append(Problem("secret", "is missing", _NO_SECRET))
    elif (root / "secret").stat().st_size != SECRET_BYTES:
        report.problems.append(Problem("secret", f"expected {SECRET_BYTES} bytes", _SEALED["secret"]))
    return report


def _check_blob_file(root: Path, sha: str, path: Path, report: Report) -> None:
    where = str(path.relative_to(root))
    if _SHA256.fullmatch(sha) is None or path.parent.name != sha[:2]:
        report.problems.append(Problem(where, "is no blob", "remove it"))
        return
    report.count("blobs")
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(READ_CHUNK):
                digest.update(chunk)
    except OSError as error:
        report.problems.append(Problem(where, f"not readable: {error.strerror}", _CONTENT, sha))
        return
    if digest.hexdigest() != sha:
        report.problems.append(Problem(where, "its bytes do not have the sha256 of its name", _CONTENT, sha))


class _Checker:
    """The checks of one database, inside one read transaction."""

    def __init__(self, root: Path, db: sqlite3.Connection, report: Report) -> None:
        self._root = root
        self._db = db
        self._report = report
        self._trees: dict[str, Tree | None] = {}
        self._walked: set[tuple[int, str]] = set()
        self._has_totals = False
        """The first schema had neither these nor links."""

    def run(self) -> None:
        for (line,) in self._db.execute("PRAGMA integrity_check"):
            if line != "ok":
                self._report.table(f"sqlite: {line}")
        tables = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'")
        self._has_totals = tables.fetchone() is not None
        self._check_totals()
        for key, data in self._db.execute("SELECT sha256, data FROM blobs"):
            self._report.count("blobs")
            if _digest(data) != key:
                what = "its bytes do not have this sha256"
                self._report.problems.append(Problem(f"{DATABASE}: blob {key}", what, _CONTENT, str(key)))
        for (key,) in self._db.execute("SELECT key FROM trees"):
            self._report.count("trees")
            self._tree(key)
        self._check_commits()
        self._check_refs()

    def _check_totals(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != (schema.SCHEMA_VERSION if self._has_totals else 1):
            self._report.table(f"its schema version {version} is not that of its tables")
        if not self._has_totals:
            return
        totals = dict(self._db.execute("SELECT name, total FROM totals").fetchall())
        if totals.keys() != schema.summed_tables(self._db):
            self._report.table("table totals is not that of the other tables")
        for table in totals.keys() & schema.summed_tables(self._db):
            if schema.table_total(self._db, table) != totals[table]:
                self._report.table(f"table {table} is not as it was written")

    def _tree(self, key: str) -> Tree | None:
        """A tree that is as it was stored; None, with a problem, for any other."""
        if key not in self._trees:
            row = self._db.execute("SELECT data FROM trees WHERE key = ?", (key,)).fetchone()
            good = row is not None and _digest(row[0]) == key
            if not good:
                self._report.table("is missing" if row is None else "is damaged", f"{DATABASE}: tree {key}")
            self._trees[key] = decode_tree(row[0]) if good else None
        return self._trees[key]

    def _check_commits(self) -> None:
        rows = self._db.execute("SELECT repo, oid, tree, parent, title, message, author, created_ms FROM commits")
        for repo, oid, *fields in rows.fetchall():
            self._report.count("commits")
            where = f"{DATABASE}: commit {oid} of {self._name(repo)}"
            key, parent = fields[:2]
            tree = self._tree(key)
            if tree is None:
                self._report.table("its tree is damaged or missing", where)
                continue
            if _commit_id(tree, *fields[1:]) != oid:
                self._report.table("is damaged", where)
            if parent is not None and not self._has_commit(repo, parent):
                self._report.table(f"its parent {parent} is missing", where)
            self._check_files(repo, key, oid)

    def _check_files(self, repo: int, key: str, commit: str, prefix: str = "") -> None:
        """The files below a tree, each tree once a repository."""
        if (repo, key) in self._walked:
            return
        self._walked.add((repo, key))
        for name, entry in (self._tree(key) or {}).items():
            if isinstance(entry, File):
                self._check_file(repo, entry, f"{self._name(repo)}@{commit[:10]}: {prefix}{name}")
            else:
                tree = self._tree(entry.key)
                if tree is not None and git_tree_id(tree) != entry.oid:
                    self._report.table("does not have its git id", f"{DATABASE}: tree {entry.key}")
                self._check_files(repo, entry.key, commit, f"{prefix}{name}/")

    def _check_file(self, repo: int, file: File, where: str) -> None:
        self._report.count("files")
        size = self._size(file.sha256)
        if size is None and file.lfs and not self._is_linked(repo, file.sha256):
            return  # its owner had it deleted from the history
        if size != file.size:
            what = f"expected {file.size} bytes of content {file.sha256}, got {'none' if size is None else size}"
            self._report.problems.append(Problem(where, what, "push the file again from a copy that has it"))

    def _size(self, sha: str) -> int | None:
        row = self._db.execute("SELECT length(data) FROM blobs WHERE sha256 = ?", (sha,)).fetchone()
        if row is not None:
            return int(row[0])
        path = self._root / "blobs" / sha[:2] / sha
        return path.stat().st_size if path.is_file() else None

    def _is_linked(self, repo: int, sha: str) -> bool:
        if not self._has_totals:
            return False
        row = self._db.execute("SELECT 1 FROM links WHERE repo = ? AND sha256 = ?", (repo, sha)).fetchone()
        return row is not None

    def _check_refs(self) -> None:
        for repo, name, target in self._db.execute("SELECT repo, name, target FROM refs").fetchall():
            self._report.count("refs")
            if not self._has_commit(repo, target):
                self._report.table(f"points to {target}, which is missing", f"{DATABASE}: {name} of {self._name(repo)}")
        headless = "SELECT id FROM repos WHERE id NOT IN (SELECT repo FROM refs WHERE name = ?)"
        for (repo,) in self._db.execute(headless, (MAIN,)).fetchall():
            self._report.table("has no branch main", f"{DATABASE}: {self._name(repo)}")
        for table, key, parent, _ in self._db.execute("PRAGMA foreign_key_check").fetchall():
            self._report.table(f"row {key} belongs to no row of {parent}", f"{DATABASE}: table {table}")

    def _has_commit(self, repo: int, oid: str) -> bool:
        return self._db.execute("SELECT 1 FROM commits WHERE repo = ? AND oid = ?", (repo, oid)).fetchone() is not None

    def _name(self, repo: int) -> str:
        row = self._db.execute("SELECT kind, namespace, name FROM repos WHERE id = ?", (repo,)).fetchone()
        return f"{row[0]} {row[1]}/{row[2]}" if row else f"repository {repo}"


def _commit_id(tree: Tree, parent: str | None, title: str, message: str, author: str, created_ms: object) -> str | None:
    """The id that a commit of this content has; None for no time at all, which damage can make of one."""
    if not isinstance(created_ms, int):
        return None
    text = f"{title}\n\n{message}" if message else title
    return git_commit_id(git_tree_id(tree), parent=parent, author=author, seconds=created_ms // 1000, text=text)


def _digest(data: object) -> str | None:
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else None
