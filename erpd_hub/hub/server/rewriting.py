"""Taking large files out of a repository's whole history, which gives every commit since then a new id."""

import sqlite3
from collections.abc import Collection

from erpd_hub.hub.server import commits, repos
from erpd_hub.hub.server.objects import File, Folder, git_commit_id
from erpd_hub.hub.server.repos import Commit, Repo
from erpd_hub.hub.server.trees import TreeStore


def drop_files(db: sqlite3.Connection, trees: TreeStore, repo: Repo, dropped: Collection[str]) -> None:
    """Rewrite every ref's history without the large files of these sha256; the commits rewritten go.

    Other commits stay, also those that no ref reaches: lineage names commits by their id.
    """
    rewriter = _Rewriter(db, trees, repo, dropped)
    for ref in repos.list_refs(db, repo):
        repos.move_ref(db, repo, ref.name, rewriter.rewrite(repos.get_commit(db, repo, ref.target)))
    kept = {row.oid for ref in repos.list_refs(db, repo) for row in _history(db, repo, ref.target)}
    for oid in rewriter.rewritten - kept:
        db.execute("DELETE FROM commits WHERE repo = ? AND oid = ?", (repo.id, oid))


def _history(db: sqlite3.Connection, repo: Repo, oid: str) -> list[Commit]:
    return list(commits.history(db, repo, repos.get_commit(db, repo, oid)))


class _Rewriter:
    def __init__(self, db: sqlite3.Connection, trees: TreeStore, repo: Repo, dropped: Collection[str]) -> None:
        self._db = db
        self._trees = trees
        self._repo = repo
        self._dropped = dropped
        self._new: dict[str | None, str | None] = {None: None}
        """New ids by old ones."""
        self._stripped: dict[str, Folder] = {}

    @property
    def rewritten(self) -> set[str]:
        """Commits that have another id now."""
        return {old for old, new in self._new.items() if old is not None and old != new}

    def rewrite(self, head: Commit) -> str:
        """The new id of a commit, after its ancestors got theirs."""
        for commit in reversed(list(commits.history(self._db, self._repo, head))):
            if commit.oid not in self._new:
                self._new[commit.oid] = self._rewrite_one(commit)
        new = self._new[head.oid]
        assert new is not None
        return new

    def _rewrite_one(self, commit: Commit) -> str:
        root, parent = self._strip(commit.tree), self._new[commit.parent]
        if (root.key, parent) == (commit.tree, commit.parent):
            return commit.oid
        text = f"{commit.title}\n\n{commit.message}" if commit.message else commit.title
        seconds = commit.created_ms // 1000
        oid = git_commit_id(root.oid, parent=parent, author=commit.author, seconds=seconds, text=text)
        repos.insert_commit(self._db, self._repo, commit._replace(oid=oid, tree=root.key, parent=parent))
        return oid

    def _strip(self, key: str) -> Folder:
        if key not in self._stripped:
            kept: dict[str, File | Folder] = {}
            for name, entry in self._trees.load(self._db, key).items():
                if isinstance(entry, Folder):
                    folder = self._strip(entry.key)
                    if self._trees.load(self._db, folder.key):
                        kept[name] = folder
                elif not (entry.lfs and entry.sha256 in self._dropped):
                    kept[name] = entry
            self._stripped[key] = self._trees.save(self._db, kept)
        return self._stripped[key]
