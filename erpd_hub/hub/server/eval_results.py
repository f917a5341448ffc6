"""Evaluation results that a model carries in `.eval_results/*.yaml`, as clients ask for them: a model's own, and all
models' on one benchmark dataset."""

import json
import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import islice

from starlette.responses import Response

from erpd_hub.hub.server import possession, repos
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.call import Call, Json, Routes, reply
from erpd_hub.hub.server.cards import CardError, card_of, parse_yaml
from erpd_hub.hub.server.objects import File, Folder, decode_tree, encode_tree
from erpd_hub.hub.server.remembered import Remembered
from erpd_hub.hub.server.repos import Commit, Repo
from erpd_hub.hub.server.trees import TreeStore

FOLDER = ".eval_results"
MAX_BYTES = 256 << 10
"""Of all files of a repository together: a leaderboard reads those of every model."""

MAX_FILES = 256
_listed = Remembered(16 << 20)
"""The files of a folder by its key."""
_parsed = Remembered(64 << 20)
"""Results as JSON by the sha256 of their file."""


def read_results(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, repo: Repo, commit: Commit) -> list[Json]:
    """Every result of every file that can be read; older clients break on anything else in its place."""
    folder = trees.root(db, commit.tree).entries.get(FOLDER)
    if not isinstance(folder, Folder):
        return []
    rows: list[Json] = []
    left = MAX_BYTES
    for name, entry in decode_tree(_listed.get(folder.key, partial(_files, trees, db, folder))).items():
        assert isinstance(entry, File), "of the files alone"
        if entry.size <= left and possession.holds(db, blobs, repo, entry):
            left -= entry.size
            text = _parsed.get(entry.sha256, partial(_results, blobs, db, entry))
            rows += [{"filename": f"{FOLDER}/{name}", "verified": False, "data": data} for data in json.loads(text)]
    return rows


def _files(trees: TreeStore, db: sqlite3.Connection, folder: Folder) -> str:
    """The files that are looked at, as a stored tree."""
    tree = trees.load(db, folder.key)
    found = (name for name in tree if isinstance(tree[name], File) and name.endswith((".yaml", ".yml")))
    return encode_tree({name: tree[name] for name in islice(found, MAX_FILES)}).decode()


def _results(blobs: BlobStore, db: sqlite3.Connection, file: File) -> str:
    """The results of a file as a JSON list, empty when it is malformed."""
    try:
        entries = parse_yaml(blobs.read(db, file.sha256).decode("utf-8", errors="replace"))
        if not isinstance(entries, list):
            raise CardError("expected a list of results")
        return json.dumps([_checked(entry) for entry in entries])
    except CardError:
        return "[]"


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
    rows = [row for row in _entries(call, dataset, everyone=everyone) if type(row["value"]) in (int, float)]
    rows.sort(key=lambda row: -float(str(row["value"])))
    return reply([{"rank": rank, **row} for rank, row in enumerate(rows, start=1)])


def _entries(call: Call, dataset: str, *, everyone: bool) -> Iterator[Json]:
    hub = call.hub
    for repo in repos.list_repos(call.db, "model", author=None, searches=[]):
        if not hub.accounts.may_read(call.user, repo):
            continue
        commit = repos.resolve_revision(call.db, repo, repos.MAIN)
        if not everyone and _is_derived(call, repo, commit):
            continue
        for row in read_results(call.db, hub.trees, hub.blobs, repo, commit):
            data = row.get("data")
            if isinstance(data, dict) and data["dataset"]["id"] == dataset:
                author = {"name": repo.namespace, "fullname": repo.namespace, "type": "user", "avatarUrl": ""}
                optional = {key: data[key] for key in ("source", "notes") if key in data}
                known = {"filename": row["filename"], "verified": False, "author": author}
                yield {"modelId": repo.full_name, "value": data["value"], **known, **optional}


def _is_derived(call: Call, repo: Repo, commit: Commit) -> bool:
    return bool(card_of(call.db, call.hub.trees, call.hub.blobs, repo, commit).get("base_model"))


REPO_ROUTES: Routes = {("GET", "leaderboard"): leaderboard}
