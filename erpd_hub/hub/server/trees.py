"""Tree objects: stored once each, shared between commits and repositories, edited without touching other folders."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from erpd_hub.hub.server.errors import entry_not_found, unprocessable
from erpd_hub.hub.server.objects import (
    File,
    Folder,
    Tree,
    decode_tree,
    encode_tree,
    entries_of,
    git_tree_id,
    has_ending,
)
from erpd_hub.hub.server.remembered import Remembered

CACHED_ENTRIES = 200_000
"""Entries of decoded trees kept in memory, some 60 MB."""
_SHOWN = ("README.md", "config.json", ".eval_results")
_FORMATS = ("safetensors", "gguf")
_roots = Remembered(32 << 20)
"""As JSON by the tree's key: a listing looks at every repository's."""


class Found(NamedTuple):
    """An entry and its full path."""

    path: str
    entry: File | Folder


class Root(NamedTuple):
    """What listings show of a commit's top folder, which may have many thousand entries."""

    entries: Tree
    """Those that say what a repository is: its card, its config, its results."""
    formats: tuple[str, ...]
    """Of the weights at the top."""


class TreeStore:
    """Loads and saves tree objects; keeps recently used ones decoded, which is safe as they never change."""

    def __init__(self) -> None:
        self._cache: dict[str, Tree] = {}
        self._cached_entries = 0

    def load(self, db: sqlite3.Connection, key: str) -> Tree:
        tree = self._cache.get(key)
        if tree is None:
            tree = decode_tree(self._read(db, key))
            self._remember(key, tree)
        return tree

    def _read(self, db: sqlite3.Connection, key: str) -> bytes:
        row = db.execute("SELECT data FROM trees WHERE key = ?", (key,)).fetchone()
        assert row is not None, f"tree {key} is referenced but not stored"
        return bytes(row[0])

    def root(self, db: sqlite3.Connection, key: str) -> Root:
        """Read without decoding the whole of it, which takes a second for 50,000 entries."""

        def read() -> str:
            data = self._read(db, key)
            formats = [ending for ending in _FORMATS if has_ending(data, f".{ending}")]
            return json.dumps([encode_tree(entries_of(data, _SHOWN)).decode(), formats])

        shown, formats = json.loads(_roots.get(key, read))
        return Root(decode_tree(shown), tuple(formats))

    def _remember(self, key: str, tree: Tree) -> None:
        if self._cached_entries + len(tree) > CACHED_ENTRIES:
            self._cache.clear()
            self._cached_entries = 0
        self._cache[key] = tree
        self._cached_entries += len(tree)

    def save(self, db: sqlite3.Connection, tree: Tree) -> Folder:
        data = encode_tree(tree)
        key = hashlib.sha256(data).hexdigest()
        db.execute("INSERT OR IGNORE INTO trees VALUES (?, ?)", (key, data))
        return Folder(git_tree_id(tree), key)

    def find(self, db: sqlite3.Connection, root: str, parts: tuple[str, ...]) -> File | Folder | None:
        """The entry at a path below the tree `root`, None when there is none."""
        entry: File | Folder | None = None
        key = root
        for index, part in enumerate(parts):
            entry = self.load(db, key).get(part)
            if isinstance(entry, Folder):
                key = entry.key
            elif entry is None or index < len(parts) - 1:
                return None
        return entry

    def walk(self, db: sqlite3.Connection, key: str, *, prefix: str = "", recursive: bool = True) -> Iterator[Found]:
        """Every entry below a tree, a folder before its content."""
        for name, entry in self.load(db, key).items():
            yield Found(prefix + name, entry)
            if recursive and isinstance(entry, Folder):
                yield from self.walk(db, entry.key, prefix=f"{prefix}{name}/")

    def files(self, db: sqlite3.Connection, key: str) -> Iterator[tuple[str, File]]:
        for path, entry in self.walk(db, key):
            if isinstance(entry, File):
                yield path, entry

    def changed(self, db: sqlite3.Connection, new: str, old: str | None, *, prefix: str = "") -> Iterator[str]:
        """Paths (files and folders) of `new` that differ from `old`; equal subtrees are never opened."""
        before: Tree = self.load(db, old) if old else {}
        for name, entry in self.load(db, new).items():
            previous = before.get(name)
            if previous == entry:
                continue
            yield prefix + name
            if isinstance(entry, Folder):
                below = previous.key if isinstance(previous, Folder) else None
                yield from self.changed(db, entry.key, below, prefix=f"{prefix}{name}/")


class _Node:
    """A folder being edited: entries not yet opened stay references."""

    def __init__(self, entries: Tree) -> None:
        self.entries: dict[str, File | Folder | _Node] = dict(entries)


class TreeEditor:
    """A tree with edits applied in order; `save` stores the result and only the folders that changed."""

    def __init__(self, trees: TreeStore, db: sqlite3.Connection, root: str | None) -> None:
        self._trees = trees
        self._db = db
        self._root = _Node(trees.load(db, root) if root else {})

    def put(self, parts: tuple[str, ...], file: File) -> None:
        """Add or replace a file; raises a 422 where a file and a folder would share a path."""
        node = self._root
        for part in parts[:-1]:
            node = self._open(node, part, create=True)
        there = node.entries.get(parts[-1])
        if isinstance(there, Folder) or (isinstance(there, _Node) and not self._is_empty(there)):
            raise unprocessable(f"A folder is in the way of the file {'/'.join(parts)}")
        node.entries[parts[-1]] = file

    def delete(self, parts: tuple[str, ...]) -> None:
        """Remove a file or a whole folder; raises a 404 when there is neither."""
        node = self._root
        for part in parts[:-1]:
            node = self._open(node, part, create=False)
        if node.entries.pop(parts[-1], None) is None:
            raise entry_not_found("A file with this name doesn't exist")

    def save(self) -> Folder:
        return self._save(self._root)

    def _open(self, node: _Node, part: str, *, create: bool) -> _Node:
        child = node.entries.get(part)
        if isinstance(child, _Node):
            return child
        if not create and not isinstance(child, Folder):
            raise entry_not_found("A file with this name doesn't exist")
        if isinstance(child, File):
            raise unprocessable(f"The file {part} is in the way of a folder")
        opened = _Node(self._trees.load(self._db, child.key) if child else {})
        node.entries[part] = opened
        return opened

    def _save(self, node: _Node) -> Folder:
        tree: dict[str, File | Folder] = {}
        for name, entry in node.entries.items():
            if not isinstance(entry, _Node):
                tree[name] = entry
            elif not self._is_empty(entry):
                tree[name] = self._save(entry)
        return self._trees.save(self._db, tree)

    def _is_empty(self, node: _Node) -> bool:
        return all(isinstance(entry, _Node) and self._is_empty(entry) for entry in node.entries.values())
