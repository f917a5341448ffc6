"""Files and folders of a tree, with the object ids git gives them.

A large file appears in git as a short pointer text; its `oid` is the pointer's blob id and its `sha256` the content's.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class File(NamedTuple):
    """A file's content, by reference."""

    oid: str
    """git blob id (40 hex): of the content, or of the pointer for an LFS file."""
    sha256: str
    """Key of the content in the blob store."""
    size: int
    """Bytes of content."""
    lfs: bool


class Folder(NamedTuple):
    """A tree object, by reference."""

    oid: str
    """git tree id (40 hex)."""
    key: str
    """Key of the stored tree. A pointer text committed as an ordinary file has the LFS file's git id, so ids alone
    could not tell the two trees apart."""


Tree = Mapping[str, File | Folder]


def git_blob_id(content: bytes) -> str:
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def regular_file(content: bytes) -> File:
    return File(git_blob_id(content), hashlib.sha256(content).hexdigest(), len(content), lfs=False)


def lfs_file(sha256: str, size: int) -> File:
    return File(git_blob_id(lfs_pointer(sha256, size)), sha256, size, lfs=True)


def git_tree_id(tree: Tree) -> str:
    """Id of the tree object; git orders a folder as if its name ended in a slash."""
    rows = sorted((name.encode() + (b"/" if isinstance(entry, Folder) else b""), entry) for name, entry in tree.items())
    body = b"".join(
        (b"40000 " + name[:-1] if isinstance(entry, Folder) else b"100644 " + name) + b"\0" + bytes.fromhex(entry.oid)
        for name, entry in rows
    )
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def git_commit_id(tree_oid: str, *, parent: str | None, author: str, seconds: int, text: str) -> str:
    who = f"{author} <{author}@localhost> {seconds} +0000"
    parents = f"parent {parent}\n" if parent else ""
    body = f"tree {tree_oid}\n{parents}author {who}\ncommitter {who}\n\n{text}\n".encode()
    return hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def encode_tree(tree: Tree) -> bytes:
    """The stored form, equal for equal trees."""
    return json.dumps([[name, *tree[name]] for name in sorted(tree)], separators=(",", ":")).encode()


def decode_tree(data: bytes | str) -> dict[str, File | Folder]:
    return {name: Folder(*fields) if len(fields) == 2 else File(*fields) for name, *fields in json.loads(data)}


def entries_of(data: bytes, names: Iterable[str]) -> Tree:
    """Some entries of a stored tree, found in its text: no name holds a quote that is not escaped there."""
    starts = {name: data.find(f"[{json.dumps(name)},".encode()) for name in names}
    found = (data[start : data.index(b"]", start) + 1] for start in starts.values() if start >= 0)
    return decode_tree(b"[" + b",".join(found) + b"]")


def has_ending(data: bytes, ending: str) -> bool:
    """Whether the name of an entry of a stored tree ends so."""
    return f'{ending}",'.encode() in data
