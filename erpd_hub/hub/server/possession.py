"""Who may commit a large file by its hash alone, and what a repository still has of those it committed.

Content is stored once for all repositories, and a hash may be known to somebody who has never seen the content. So a
commit may name a hash only when its author uploaded the bytes, or may read them already: the repository has them, or
another one that the author sees. For the same reason a file's content is there only while its own repository has it:
what was deleted for good stays deleted, whoever else has or brings the same bytes.
"""

import sqlite3

from erpd_hub.hub.server.accounts import Accounts, User
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.repos import Repo, holders, now_ms


def note_upload(db: sqlite3.Connection, account: str, sha256: str) -> None:
    """Remember that an account sent the bytes."""
    db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", (account, sha256, now_ms()))


def has_sent(db: sqlite3.Connection, account: str, sha256: str) -> bool:
    """Whether an account sent the bytes, lately or before it committed them."""
    query = "SELECT 1 FROM uploads WHERE account = ? AND sha256 = ?"
    return db.execute(query, (account, sha256)).fetchone() is not None


def link(db: sqlite3.Connection, repo: Repo, sha256: str) -> None:
    """The repository has the file in a commit."""
    db.execute("INSERT OR IGNORE INTO links (repo, sha256) VALUES (?, ?)", (repo.id, sha256))


def has(db: sqlite3.Connection, repo: Repo, sha256: str) -> bool:
    """Whether a commit of the repository has the file."""
    query = "SELECT 1 FROM links WHERE sha256 = ? AND repo = ?"
    return db.execute(query, (sha256, repo.id)).fetchone() is not None


def holds(db: sqlite3.Connection, blobs: BlobStore, repo: Repo, file: File) -> bool:
    """Whether the content of a file in a commit of the repository is here."""
    return (not file.lfs or has(db, repo, file.sha256)) and blobs.size(db, file.sha256) is not None


def check_holds(db: sqlite3.Connection, blobs: BlobStore, repo: Repo, file: File) -> None:
    """Raises a 410 when the content of a file in a commit of the repository is not here any more."""
    if not holds(db, blobs, repo, file):
        raise Refusal(410, "The content of this file is not here any more: deleted from the history, or damaged")


def read(db: sqlite3.Connection, blobs: BlobStore, repo: Repo, file: File) -> bytes:
    """The whole content of a small file in a commit of the repository; raises a 410 when it is not here any more."""
    check_holds(db, blobs, repo, file)
    return blobs.read(db, file.sha256)


def unlink(db: sqlite3.Connection, repo: Repo, sha256: str) -> None:
    """The repository gives the file up."""
    db.execute("DELETE FROM links WHERE sha256 = ? AND repo = ?", (sha256, repo.id))


def copy_links(db: sqlite3.Connection, source: Repo, target: Repo) -> None:
    """For a repository that gets all commits of another one."""
    db.execute(
        "INSERT OR IGNORE INTO links (repo, sha256) SELECT ?, sha256 FROM links WHERE repo = ?", (target.id, source.id)
    )


def may_use(db: sqlite3.Connection, accounts: Accounts, user: User, repo: Repo, sha256: str) -> bool:
    """Whether the user's commit to `repo` may name this hash."""
    if has(db, repo, sha256) or has_sent(db, user.name, sha256):
        return True
    return any(accounts.may_read(user, holder) for holder in holders(db, sha256))
