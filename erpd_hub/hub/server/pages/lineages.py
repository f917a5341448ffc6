"""The lineage of an artifact, or of all artifacts of a run, as nodes to draw: read from the records in the Hub's own
repositories, as far as the reader may see them."""

import json
from typing import TYPE_CHECKING, NamedTuple

from erpd_hub.hub.server import possession, repos
from erpd_hub.hub.server.call import Call, Target, find_current, url_prefix
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.pages.graph import Node
from erpd_hub.hub.server.paths import split_path
from erpd_hub.hub.server.remembered import Remembered
from erpd_hub.hub.server.repos import Commit, Kind, Repo

if TYPE_CHECKING:
    from erpd_hub.artifacts import InputRecord, LineageRecord

LINEAGE = "lineage.json"
"""As in erpd_hub.artifacts, which takes longer to import than the server."""
MAX_NODES = 250
MAX_EDGES = 1000
MAX_RECORD_BYTES = 1 << 20
MAX_RUN_REPOS = 200
MAX_FOLDERS = 1000
_folders = Remembered(16 << 20)
"""The artifacts of a commit, as JSON by the key of its tree: a run's page asks for those of many repositories."""


def read_record(call: Call, repo: Repo, commit: Commit, folder: str) -> "LineageRecord | None":
    """The record of an artifact in a commit; None where there is none that can be read."""
    from erpd_hub.artifacts import LineageRecord  # not before somebody looks

    try:
        entry = call.hub.trees.find(call.db, commit.tree, split_path(f"{folder}/{LINEAGE}" if folder else LINEAGE))
        if not isinstance(entry, File) or entry.size > MAX_RECORD_BYTES:
            return None
        return LineageRecord.model_validate_json(possession.read(call.db, call.hub.blobs, repo, entry))
    except (Refusal, ValueError):  # anybody may write a file of this name
        return None


def ancestry(call: Call, starts: list[tuple[Repo, Commit, str]], *, marked: bool = True) -> dict[str, Node]:
    """The artifacts, marked as what it is about, and everything above them, by key; at most MAX_NODES."""
    nodes: dict[str, Node] = {}
    for repo, commit, folder in starts:
        record = read_record(call, repo, commit, folder)
        if record is not None and len(nodes) < MAX_NODES:
            key = _key(repo.kind, repo.full_name, commit.oid, folder)
            if key not in nodes:
                nodes[key] = _artifact(record, repo, commit, folder)
                _add_inputs(call, record, nodes, key)
            nodes[key].here = marked
    return nodes


def _add_inputs(call: Call, record: "LineageRecord", nodes: dict[str, Node], key: str) -> None:
    pending = [(record, key)]
    left = MAX_EDGES - sum(len(node.inputs) for node in nodes.values())
    while pending:
        below, its_key = pending.pop()
        for item in below.inputs:
            above = _key(item.repo_type or "", item.repo_id or item.digest, item.revision or "", item.folder)
            if above not in nodes:
                if len(nodes) >= MAX_NODES:
                    continue
                nodes[above], found = _node(call, item)
                if found is not None:
                    pending.append((found, above))
            if above != its_key and left and (item.role, above) not in nodes[its_key].inputs:
                nodes[its_key].inputs.append((item.role, above))
                left -= 1


def _node(call: Call, item: "InputRecord") -> "tuple[Node, LineageRecord | None]":
    """The box of an input, and its own record where it is an artifact of this Hub."""
    if item.repo_type is None or item.repo_id is None or item.revision is None:
        what = "endpoint, not pinned" if item.kind == "endpoint" else "local source"
        return Node(what, item.digest[:12], look="outside"), None
    namespace, _, name = item.repo_id.partition("/")
    try:
        repo = find_current(call.hub, call.db, call.user, Target(item.repo_type, namespace, name))
        commit = repos.resolve_revision(call.db, repo, item.revision)
    except Refusal:
        where = "on the upstream Hub" if item.upstream else "not to be seen here"
        return Node(item.kind, item.repo_id, f"{item.revision[:7]}, {where}", look="outside"), None
    record = read_record(call, repo, commit, item.folder) if item.kind != "external" else None
    if record is not None:
        return _artifact(record, repo, commit, item.folder), record
    href = f"{repo_url(repo)}/tree/{commit.oid}"
    return Node(item.kind, repo.full_name, commit.oid[:7], href, look="outside"), None


def _artifact(record: "LineageRecord", repo: Repo, commit: Commit, folder: str) -> Node:
    step = f" · step {record.saved_step}" if record.saved_step is not None else ""
    name = f"{repo.name}/{folder}" if folder else repo.name
    href = f"{repo_url(repo)}/tree/{commit.oid}" + (f"/{folder}" if folder else "")
    copied = "copied · " if record.origin is not None else ""
    note = f"{copied}round {record.round} · {record.step} · {commit.oid[:7]}"
    return Node(f"{record.stage}{step}", name, note, href)


class Run(NamedTuple):
    """What a run made that the reader may see."""

    artifacts: list[tuple[Repo, Commit, str]]
    """Finished ones that have a repository each, newest of it."""
    collections: list[Repo]
    """Repositories with an artifact in each of their folders: what was measured."""


def run_of(call: Call, namespace: str, run: str) -> Run:
    found = Run([], [])
    for kind in ("model", "dataset"):
        for repo in repos.list_repos(call.db, kind, author=namespace, searches=[f"{namespace}/{run}-"])[:MAX_RUN_REPOS]:
            if not call.hub.accounts.may_read(call.user, repo):
                continue
            head = repos.resolve_revision(call.db, repo, repos.MAIN)
            folders = artifact_folders(call, head)
            record = read_record(call, repo, head, folders[0]) if folders else None
            if record is None or record.run != run:
                continue
            if folders == [""]:
                found.artifacts.append((repo, _finished(call, repo, head, record), ""))
            else:
                found.collections.append(repo)
    return found


def _finished(call: Call, repo: Repo, head: Commit, record: "LineageRecord") -> Commit:
    """The commit of an artifact's finished tag, which is what its users name; main when there is none."""
    try:
        return repos.resolve_revision(call.db, repo, f"{repos.TAGS}fp-{record.fingerprint[:16]}")
    except Refusal:
        return head


def artifact_folders(call: Call, commit: Commit) -> list[str]:
    """The folders of a commit that are artifacts, "" being the root."""

    def read() -> str:
        files = (path for path, _ in call.hub.trees.files(call.db, commit.tree))
        found = [path.removesuffix(LINEAGE).rstrip("/") for path in files if path.rsplit("/", 1)[-1] == LINEAGE]
        return json.dumps(sorted(found)[:MAX_FOLDERS])

    folders: list[str] = json.loads(_folders.get(commit.tree, read))
    return folders


def repo_url(repo: Repo) -> str:
    return f"/{url_prefix(repo.kind)}{repo.full_name}"


def _key(kind: Kind | str, repo_id: str, revision: str, folder: str) -> str:
    return f"{kind}:{repo_id}@{revision}/{folder}"
