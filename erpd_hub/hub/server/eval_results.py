"""Evaluation results that a model carries in `.eval_results/*.yaml`, as clients ask for them: a model's own, and all
models' on one benchmark dataset."""

import sqlite3
from collections.abc import Iterator

from starlette.responses import Response

from erpd_hub.hub.server import repos
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.call import Call, Json, Routes, reply
from erpd_hub.hub.server.cards import CardError, parse_yaml, read_card
from erpd_hub.hub.server.objects import File, Folder
from erpd_hub.hub.server.repos import Commit
from erpd_hub.hub.server.trees import TreeStore

FOLDER = ".eval_results"
MAX_FILES = 500
MAX_FILE_BYTES = 1 << 20


def read_results(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, commit: Commit) -> list[Json]:
    """Every result of every file that can be read; older clients break on anything else in its place."""
    folder = trees.find(db, commit.tree, (FOLDER,))
    if not isinstance(folder, Folder):
        return []
    files = [(name, entry) for name, entry in trees.load(db, folder.key).items() if name.endswith((".yaml", ".yml"))]
    rows: list[Json] = []
    for name, entry in files[:MAX_FILES]:
        if isinstance(entry, File) and entry.size <= MAX_FILE_BYTES:
            rows += _results(f"{FOLDER}/{name}", blobs.read(db, entry.sha256))
    return rows


def _results(path: str, content: bytes) -> list[Json]:
    try:
        entries = parse_yaml(content.decode("utf-8", errors="replace"))
        if not isinstance(entries, list):
            raise CardError("expected a list of results")
        return [{"filename": path, "verified": False, "data": _checked(entry)} for entry in entries]
    except CardError:
        return []


def _checked(entry: object) -> Json:
    dataset = entry.get("dataset") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(dataset, dict) or "value" not in entry:
        raise CardError("expected results with a dataset and a value")
    if not all(isinstance(dataset.get(key), str) for key in ("id", "task_id")):
        raise CardError("expected texts for the dataset's id and task_id")
    if not isinstance(entry.get("source"), dict | None):
        raise CardError("expected a source with a url")
    return entry


def leaderboard(call: Call) -> Response:
    """The results of all visible models on this dataset, best first; fine-tuned models only when asked for."""
    dataset = call.repo().full_name
    everyone = call.query("base_model") in ("false", "False")
    rows = [row for row in _entries(call, dataset, everyone=everyone) if isinstance(row["value"], int | float)]
    rows.sort(key=lambda row: -float(str(row["value"])))
    return reply([{"rank": rank, **row} for rank, row in enumerate(rows, start=1)])


def _entries(call: Call, dataset: str, *, everyone: bool) -> Iterator[Json]:
    hub = call.hub
    for repo in repos.list_repos(call.db, "model", author=None, searches=[]):
        if not hub.accounts.may_read(call.user, repo):
            continue
        commit = repos.resolve_revision(call.db, repo, repos.MAIN)
        if not everyone and _is_derived(call, commit):
            continue
        for row in read_results(call.db, hub.trees, hub.blobs, commit):
            data = row.get("data")
            if isinstance(data, dict) and data["dataset"]["id"] == dataset:
                author = {"name": repo.namespace, "fullname": repo.namespace, "type": "user", "avatarUrl": ""}
                optional = {key: data[key] for key in ("source", "notes") if key in data}
                known = {"filename": row["filename"], "verified": False, "author": author}
                yield {"modelId": repo.full_name, "value": data["value"], **known, **optional}


def _is_derived(call: Call, commit: Commit) -> bool:
    entry = call.hub.trees.find(call.db, commit.tree, ("README.md",))
    if not isinstance(entry, File) or entry.size > MAX_FILE_BYTES:
        return False
    return bool(read_card(call.hub.blobs.read(call.db, entry.sha256)).get("base_model"))


REPO_ROUTES: Routes = {("GET", "leaderboard"): leaderboard}
