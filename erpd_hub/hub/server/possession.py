"""Who may commit a large file by its hash alone.

Content is stored once for all repositories, and a hash may be known to somebody who has never seen the content. So a
commit may name a hash only when its author uploaded the bytes, or may read them already: the repository has them, or
another one that the author sees.
"""

import sqlite3

from erpd_hub.hub.server.accounts import Accounts, User
from erpd_hub.hub.server.repos import Repo, holders, now_ms


def note_upload(db: sqlite3.Connection, account: str, sha256: str) -> None:
    """Remember that an account sent the bytes."""
    db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", (account, sha256, now_ms()))


def link(db: sqlite3.Connection, repo: Repo, sha256: str) -> None:
    """The repository has the file in a commit."""
    db.execute("INSERT OR IGNORE INTO links (repo, sha256) VALUES (?, ?)", (repo.id, sha256))


def has(db: sqlite3.Connection, repo: Repo, sha256: str) -> bool:
    """Whether a commit of the repository has the file."""
    query = "SELECT 1 FROM links WHERE sha256 = ? AND repo = ?"
    return db.execute(query, (sha256, repo.id)).fetchone() is not None


def unlink(db: sqlite3.Connection, repo: Repo, sha256: str) -> bool:
    """The repository gives the file up; whether it had it."""
    deleted = db.execute("DELETE FROM links WHERE sha256 = ? AND repo = ?", (sha256, repo.id))
    return deleted.rowcount > 0


def copy_links(db: sqlite3.Connection, source: Repo, target: Repo) -> None:
    """For a repository that gets all commits of another one."""
    db.execute(
        "INSERT OR IGNORE INTO links (repo, sha256) SELECT ?, sha256 FROM links WHERE repo = ?", (target.id, source.id)
    )


def may_use(db: sqlite3.Connection, accounts: Accounts, user: User, repo: Repo, sha256: str) -> bool:
    """Whether the user's commit to `repo` may name this hash."""
    if has(db, repo, sha256):
        return True
    if db.execute("SELECT 1 FROM uploads WHERE account = ? AND sha256 = ?", (user.name, sha256)).fetchone():
        return True
    return any(accounts.may_read(user, holder) for holder in holders(db, sha256))
