"""Making commits and reading history."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from erpd_hub.hub.server import possession, repos
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.errors import Refusal, bad_request, entry_not_found, unprocessable
from erpd_hub.hub.server.objects import File, Folder, git_commit_id, regular_file
from erpd_hub.hub.server.repos import MAIN, Commit, Repo
from erpd_hub.hub.server.trees import TreeEditor, TreeStore

MAX_TITLE_CHARS = 1000
MAX_MESSAGE_CHARS = 64 << 10
STALE_PARENT = "The branch was updated since you opened this page. Please refresh and try again."

_LFS_SUFFIXES = (
    "7z arrow avro bin bz2 ckpt ftz gguf gz h5 jpeg jpg joblib lz4 mds mlmodel model mp3 mp4 msgpack npy npz"
    " onnx ot parquet pb pickle pkl png pt pth rar safetensors tar tflite tgz wasm wav webp xz zip zst"
)
GITATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES.split()
).encode()
"""First file of every repository: what its clients upload through LFS."""


@dataclass(frozen=True)
class Put:
    """Add or replace a file."""

    parts: tuple[str, ...]
    file: File
    inline: bytes | None = None
    """Content to store with the commit; None when the blob is already durable."""


@dataclass(frozen=True)
class Delete:
    """Remove a file or folder."""

    parts: tuple[str, ...]
    folder: bool


Edit = Put | Delete


@dataclass(frozen=True)
class Message:
    title: str
    body: str
    author: str


def checked_message(title: str, body: str, author: str) -> Message:
    """What somebody wrote as a message; raises a 422 when it is empty or too long."""
    if not title.strip() or len(title) > MAX_TITLE_CHARS or len(body) > MAX_MESSAGE_CHARS:
        raise unprocessable("The commit message is empty or too long")
    return Message(title, body, author)


def create_initial(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, repo: Repo, author: str) -> Commit:
    """The first commit of a new repository's main branch; a Space's README says how it runs."""
    contents = {".gitattributes": GITATTRIBUTES}
    if repo.sdk is not None:
        contents["README.md"] = f"---\ntitle: {json.dumps(repo.name)}\nsdk: {json.dumps(repo.sdk)}\n---\n".encode()
    files: dict[str, File | Folder] = {}
    for name, content in contents.items():
        file = files[name] = regular_file(content)
        blobs.put_inline(db, file.sha256, content)
    return _record(db, repo, MAIN, trees.save(db, files), None, Message("initial commit", "", author))


def create(
    db: sqlite3.Connection,
    trees: TreeStore,
    blobs: BlobStore,
    repo: Repo,
    branch: str,
    edits: Iterable[Edit],
    message: Message,
    *,
    expected_parent: str | None,
) -> Commit:
    """Apply edits in order on top of a branch (full ref name), inside the caller's write transaction.

    Raises a 412 when the branch has left `expected_parent`.
    """
    head = repos.resolve_revision(db, repo, branch)
    if expected_parent is not None and not head.oid.startswith(expected_parent):
        raise Refusal(412, STALE_PARENT)
    editor = TreeEditor(trees, db, head.tree)
    for edit in edits:
        if isinstance(edit, Delete):
            _delete(db, trees, head, editor, edit)
            continue
        if edit.inline is not None:
            blobs.put_inline(db, edit.file.sha256, edit.inline)
        elif blobs.size(db, edit.file.sha256) != edit.file.size:
            raise bad_request(f"{'/'.join(edit.parts)}: its content was not uploaded")
        if edit.file.lfs:
            possession.link(db, repo, edit.file.sha256)
        editor.put(edit.parts, edit.file)
    return _record(db, repo, branch, editor.save(), head.oid, message)


def squash(db: sqlite3.Connection, trees: TreeStore, repo: Repo, branch: str, message: Message) -> Commit:
    """Replace a branch's history by one commit of the same content."""
    head = repos.resolve_revision(db, repo, branch)
    return _record(db, repo, branch, trees.save(db, trees.load(db, head.tree)), None, message)


def history(db: sqlite3.Connection, repo: Repo, head: Commit) -> Iterator[Commit]:
    """A commit and its ancestors, newest first."""
    yield head
    while head.parent is not None:
        head = repos.get_commit(db, repo, head.parent)
        yield head


def last_touched(
    db: sqlite3.Connection, trees: TreeStore, repo: Repo, head: Commit, paths: Iterable[str]
) -> dict[str, Commit]:
    """For each path of `head`'s tree, the latest commit that changed it."""
    wanted = set(paths)
    touched: dict[str, Commit] = {}
    for commit in history(db, repo, head):
        parent = repos.get_commit(db, repo, commit.parent) if commit.parent else None
        for path in trees.changed(db, commit.tree, parent.tree if parent else None):
            if path in wanted:
                wanted.discard(path)
                touched[path] = commit
        if not wanted:
            break
    return touched


def _delete(db: sqlite3.Connection, trees: TreeStore, head: Commit, editor: TreeEditor, edit: Delete) -> None:
    if edit.folder and isinstance(trees.find(db, head.tree, edit.parts), File):
        raise entry_not_found(f"{'/'.join(edit.parts)} is not a folder")
    editor.delete(edit.parts)


def _record(
    db: sqlite3.Connection, repo: Repo, branch: str, root: Folder, parent: str | None, message: Message
) -> Commit:
    created_ms = repos.now_ms()
    text = f"{message.title}\n\n{message.body}" if message.body else message.title
    oid = git_commit_id(root.oid, parent=parent, author=message.author, seconds=created_ms // 1000, text=text)
    commit = Commit(oid, root.key, parent, message.title, message.body, message.author, created_ms)
    repos.insert_commit(db, repo, commit)
    repos.move_ref(db, repo, branch, oid)
    return commit
