"""Taking large files out of a repository's whole history, which gives every commit since then a new id."""

import itertools
import sqlite3
from collections.abc import Callable, Collection, Iterator

from erpd_hub.hub.server import commits, repos
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.objects import File, Folder, Tree, git_commit_id, git_tree_id
from erpd_hub.hub.server.repos import Commit, Repo
from erpd_hub.hub.server.trees import TreeStore


class Rewriter:
    """A repository's history without the large files of these sha256.

    `strip_trees` does what takes long, in many short transactions; `move_refs` does the rest in the caller's, which
    makes it visible at once.
    """

    def __init__(self, trees: TreeStore, repo: Repo, dropped: Collection[str]) -> None:
        self._trees = trees
        self._repo = repo
        self._dropped = dropped
        self._new: dict[str | None, str | None] = {None: None}
        """New ids by old ones."""
        self._stripped: dict[str, Folder] = {}

    def strip_trees(self, database: Database) -> None:
        """Store the trees that the commits of today's refs will have; nothing refers to them yet."""

        def save(tree: Tree) -> Folder:
            with database.write() as db:
                return self._trees.save(db, tree)

        db = database.read()
        with database.snapshot():
            roots = {commit.tree for commit in _reached(db, self._repo)}
        for root in roots:
            self._strip(db, root, save)

    def move_refs(self, db: sqlite3.Connection) -> None:
        """Give every ref its new history; the commits rewritten go.

        Other commits stay, also those that no ref reaches: lineage names commits by their id.
        """
        for ref in repos.list_refs(db, self._repo):
            target = self._rewrite(db, repos.get_commit(db, self._repo, ref.target))
            if target != ref.target:
                repos.move_ref(db, self._repo, ref.name, target)
        kept = {commit.oid for commit in _reached(db, self._repo)}
        for oid in {old for old, new in self._new.items() if old is not None and old != new} - kept:
            db.execute("DELETE FROM commits WHERE repo = ? AND oid = ?", (self._repo.id, oid))

    def _rewrite(self, db: sqlite3.Connection, head: Commit) -> str:
        """The new id of a commit, after its ancestors got theirs."""
        ahead = itertools.takewhile(lambda commit: commit.oid not in self._new, commits.history(db, self._repo, head))
        for commit in reversed(list(ahead)):
            self._new[commit.oid] = self._rewrite_one(db, commit)
        new = self._new[head.oid]
        assert new is not None
        return new

    def _rewrite_one(self, db: sqlite3.Connection, commit: Commit) -> str:
        root = self._strip(db, commit.tree, lambda tree: self._trees.save(db, tree))  # of a commit made meanwhile
        parent = self._new[commit.parent]
        if (root.key, parent) == (commit.tree, commit.parent):
            return commit.oid
        text = f"{commit.title}\n\n{commit.message}" if commit.message else commit.title
        seconds = commit.created_ms // 1000
        oid = git_commit_id(root.oid, parent=parent, author=commit.author, seconds=seconds, text=text)
        repos.insert_commit(db, self._repo, commit._replace(oid=oid, tree=root.key, parent=parent))
        return oid

    def _strip(self, db: sqlite3.Connection, key: str, save: Callable[[Tree], Folder]) -> Folder:
        if key not in self._stripped:
            tree = self._trees.load(db, key)
            kept: dict[str, File | Folder] = {}
            for name, entry in tree.items():
                if isinstance(entry, Folder):
                    folder = self._strip(db, entry.key, save)
                    if self._trees.load(db, folder.key):
                        kept[name] = folder
                elif not (entry.lfs and entry.sha256 in self._dropped):
                    kept[name] = entry
            self._stripped[key] = Folder(git_tree_id(tree), key) if kept == tree else save(kept)
        return self._stripped[key]


def _reached(db: sqlite3.Connection, repo: Repo) -> Iterator[Commit]:
    """Every commit that a ref reaches, once."""
    seen: set[str] = set()
    for ref in repos.list_refs(db, repo):
        for commit in commits.history(db, repo, repos.get_commit(db, repo, ref.target)):
            if commit.oid in seen:
                break
            seen.add(commit.oid)
            yield commit
