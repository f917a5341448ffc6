"""Committing: how each file should be uploaded, and the ndjson commit itself."""

import binascii
import sqlite3
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from anyio import to_thread
from starlette.responses import Response

from erpd_hub.hub.server import commits, possession, pulls, repos
from erpd_hub.hub.server.blobs import INLINE_LIMIT
from erpd_hub.hub.server.bodies import spooled
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    object_list,
    reply,
    text_field,
)
from erpd_hub.hub.server.cards import CARD, readme_errors
from erpd_hub.hub.server.commits import Delete, Edit, Message, Put
from erpd_hub.hub.server.errors import bad_request, too_large
from erpd_hub.hub.server.ignoring import MAX_STEPS, Ignored, LargeFiles, ignore_rule, lfs_rule
from erpd_hub.hub.server.json_text import parse_json_object
from erpd_hub.hub.server.objects import File, lfs_file, regular_file
from erpd_hub.hub.server.paths import is_hex, split_path
from erpd_hub.hub.server.repos import Commit

REGULAR_LIMIT = 10 << 20
"""Bytes above which a file always goes through LFS."""
MAX_COMMIT_BYTES = 4 << 30
MAX_LINE_BYTES = 32 << 20
BATCH_BYTES = 8 << 20
"""Bytes of ndjson gathered before they are decoded and stored, so that a huge commit never sits in memory whole."""
MAX_EDITS = 50_000
MAX_ASKED = 1000
"""Files of one preupload; clients ask for 256 at a time."""


def preupload(call: Call) -> Response:
    call.commit_repo(call.rest_text())
    commit = call.revision()
    files = object_list(call.json, "files")
    if len(files) > MAX_ASKED:
        raise too_large(f"At most {MAX_ASKED} files may be asked for at a time")
    ignored = text_field(call.json, "gitIgnore", "")
    if len(ignored) > INLINE_LIMIT:
        raise too_large(f"The .gitignore is larger than {INLINE_LIMIT} characters")
    rules = _Rules(
        lfs_rule(_root_file(call, commit, ".gitattributes")),
        ignore_rule(ignored or _root_file(call, commit, ".gitignore").decode(errors="replace")),
    )
    paths = [text_field(item, "path") for item in files]
    if rules.is_lfs.steps(paths) + rules.is_ignored.steps(paths) > MAX_STEPS:
        raise too_large("The .gitignore or .gitattributes takes too long for so many files; ask for fewer at a time")
    return reply({"files": [_upload_mode(call, commit, item, rules) for item in files]})


class _Rules(NamedTuple):
    """What the repository says of paths."""

    is_lfs: LargeFiles
    is_ignored: Ignored


def _upload_mode(call: Call, commit: Commit, item: Json, rules: _Rules) -> Json:
    """How to upload a file; `oid` tells the client what is there now, so that it drops a file that would not change."""
    path, size = text_field(item, "path"), item.get("size")
    parts = split_path(path)
    if type(size) is not int or size < 0:
        raise bad_request('"size" must be a number of bytes')
    lfs = size > REGULAR_LIMIT or (
        size > 0 and (rules.is_lfs(path) or b"\0" in _decode(text_field(item, "sample", "")))
    )
    answer: Json = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": rules.is_ignored(path)}
    entry = call.hub.trees.find(call.db, commit.tree, parts)
    held = isinstance(entry, File) and possession.holds(call.db, call.hub.blobs, call.repo(), entry)
    if isinstance(entry, File) and entry.lfs == lfs and held:
        answer["oid"] = entry.sha256 if lfs else entry.oid
    return answer


def _root_file(call: Call, commit: Commit, name: str) -> bytes:
    entry = call.hub.trees.find(call.db, commit.tree, (name,))
    if not isinstance(entry, File) or entry.size > INLINE_LIMIT:
        return b""
    if not possession.holds(call.db, call.hub.blobs, call.repo(), entry):
        return b""  # or nobody could bring it again
    return possession.read(call.db, call.hub.blobs, call.repo(), entry)


async def commit(call: Call) -> Response:
    draft = Draft(call)
    await to_thread.run_sync(draft.check_writable)  # before the first byte, as the body is kept until it is stored
    async with spooled(call.request, call.hub.blobs, MAX_COMMIT_BYTES) as body:
        return await to_thread.run_sync(draft.take, body)


class Draft:
    """A commit being received: its edits in order, with their content as soon as it can be stored."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._header: Json | None = None
        self._edits: list[Edit] = []

    def take(self, body: Path) -> Response:
        """Take in a file of lines and commit."""
        lines = bytearray()
        with body.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    told = f"A line of the commit is larger than {MAX_LINE_BYTES} bytes; upload the file through LFS"
                    raise too_large(told)
                lines += line
                if len(lines) >= BATCH_BYTES:
                    self.store(bytes(lines))
                    lines.clear()
        return self.finish(bytes(lines))

    def store(self, lines: bytes) -> None:
        """Take in whole lines and make their content durable ahead of the commit."""
        self.check_writable()
        first = len(self._edits)
        self._add(lines)
        with self._call.hub.db.write() as db:
            for index, edit in enumerate(self._edits[first:], start=first):
                if isinstance(edit, Put) and edit.inline is not None:
                    self._call.hub.blobs.put_inline(db, edit.file.sha256, edit.inline)
                    self._edits[index] = replace(edit, inline=None)

    def finish(self, lines: bytes) -> Response:
        """Take in the last lines and commit."""
        repo = self.check_writable()
        self._add(lines)
        call = self._call
        if self._header is None:
            raise bad_request("The commit has no header")
        hub, user = call.hub, call.member()
        parent = text_field(self._header, "parentCommit", "") or None
        title, body = text_field(self._header, "summary"), text_field(self._header, "description", "")
        message = commits.checked_message(title, body, user.name)
        with hub.db.write() as db:
            pull, branch = self._place(db, repo, message)
            if pull:
                pulls.check_room(db, pull)
            made = commits.create(
                db,
                hub.trees,
                hub.blobs,
                repo,
                branch,
                self._edits,
                message,
                expected_parent=parent,
            )
            if pull:
                pulls.add_event(db, pull, "commit", user.name, {"subject": message.title, "oid": made.oid})
        url = call.repo_url(repo)
        answer: Json = {
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{url}/commit/{made.oid}",
            "hookOutput": "",
        }
        if call.flag("create_pr") and pull:
            answer["pullRequestUrl"] = f"{url}/discussions/{pull.num}"
        return reply(answer)

    def _place(self, db: sqlite3.Connection, repo: repos.Repo, message: Message) -> tuple[pulls.Discussion | None, str]:
        """The pull request the commit belongs to, if any, and the ref it is made on."""
        revision = self._call.rest_text()
        if self._call.flag("create_pr"):
            pull = pulls.open_with_commit(db, repo, revision, message)
            return pull, pull.ref
        branch = repos.branch_ref(db, repo, revision)
        ours = pulls.of_ref(db, repo, branch)
        if ours and ours.status == "merged":
            raise bad_request("This pull request is merged; open another one")
        return ours, branch

    def check_writable(self) -> repos.Repo:
        """The repository; raises where the caller may not commit what they say."""
        repo = self._call.commit_repo(self._call.rest_text())
        if not self._call.flag("create_pr"):
            repos.branch_ref(self._call.db, repo, self._call.rest_text())
        return repo

    def _add(self, lines: bytes) -> None:
        for line in lines.splitlines():
            if not line.strip():
                continue
            item = parse_json_object(line)
            value = item.get("value")
            if not isinstance(value, dict):
                raise bad_request("A line of the commit has no value")
            if item.get("key") == "header":
                self._header = value
            else:
                self._edits.append(self._edit(item.get("key"), value))
        if len(self._edits) > MAX_EDITS:
            raise too_large(f"A commit may change at most {MAX_EDITS} files")

    def _edit(self, key: object, value: Json) -> Edit:
        path = text_field(value, "path")
        match key:
            case "file":
                return self._put_regular(split_path(path), _decode(text_field(value, "content")))
            case "lfsFile":
                return self._put_lfs(split_path(path), value)
            case "deletedFile":
                return Delete(split_path(path), folder=False)
            case "deletedFolder":
                return Delete(split_path(path.removesuffix("/")), folder=True)
        raise bad_request(f"Unknown commit operation: {key!r}")

    def _put_regular(self, parts: tuple[str, ...], content: bytes) -> Put:
        if parts == (CARD,) and (errors := readme_errors(content)):
            raise bad_request("\n".join([f"Invalid metadata in {CARD}.", *(f"- Error: {text}" for text in errors)]))
        file = regular_file(content)
        if file.size <= INLINE_LIMIT:
            return Put(parts, file, inline=content)
        self._call.hub.blobs.put_file(file.sha256, content)
        return Put(parts, file)

    def _put_lfs(self, parts: tuple[str, ...], value: Json) -> Put:
        """An uploaded file by reference; copies made by the client leave out the size."""
        oid = text_field(value, "oid")
        call, repo = self._call, self._call.repo()
        assert call.user is not None
        known = is_hex(oid, 64) and possession.may_use(call.db, call.hub.accounts, call.user, repo, oid)
        stored = call.hub.blobs.size(call.db, oid) if known else None
        if stored is None or value.get("size", stored) != stored:
            raise bad_request(f"{'/'.join(parts)}: its content was not uploaded")
        return Put(parts, lfs_file(oid, stored))


def _decode(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request("Content is not base64") from error


REPO_ROUTES: Routes = {("POST", "preupload"): preupload, ("POST", "commit"): commit}
