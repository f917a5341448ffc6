"""What the headers of a model's safetensors files say, read without their tensors."""

import json
import math
import re
import sqlite3
from collections import Counter
from functools import partial
from typing import NamedTuple

from starlette.responses import Response

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.call import Call, Json, Routes, reply
from erpd_hub.hub.server.errors import Refusal, bad_request, entry_not_found, too_large
from erpd_hub.hub.server.json_text import count_values, parse_json_object
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.remembered import Remembered
from erpd_hub.hub.server.repos import MAIN, Commit, Repo, resolve_revision
from erpd_hub.hub.server.trees import TreeStore

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 16 << 20
MAX_TOTAL_BYTES = 32 << 20
"""Of the headers of all shards."""
MAX_COUNTED_BYTES = 2 << 20, 8 << 20
"""The same two where parameters are counted, as every reader of a model's page has that done."""
MAX_SHARDS = 1000
MAX_VALUES = 1_000_000
"""In the headers of one model together."""
_LENGTH_BYTES = 8
_DTYPE = re.compile(r"[A-Z0-9_]{1,16}")

_counted = Remembered(16 << 20)
"""Parameters by dtype as JSON, by the sha256 of their file."""


class Store(NamedTuple):
    """Where the files of a repository are read from."""

    db: sqlite3.Connection
    trees: TreeStore
    blobs: BlobStore
    repo: Repo


class Model(NamedTuple):
    """A sharded model: its index file, and its shards by path."""

    index_file: Json
    shards: dict[str, File]


def sharded(call: Call) -> Response:
    """Index and headers of a sharded model on main, in one answer."""
    store = Store(call.db, call.hub.trees, call.hub.blobs, call.repo())
    commit = resolve_revision(store.db, store.repo, MAIN)
    model = _sharded(store, commit, call.rest_text(), MAX_HEADER_BYTES)
    left, values_left = MAX_TOTAL_BYTES, MAX_VALUES
    headers = {}
    for shard, file in model.shards.items():
        raw = _raw_header(store, file, min(left, MAX_HEADER_BYTES))
        headers[shard] = parse_json_object(raw, values_left)
        left -= len(raw)
        values_left -= count_values(raw)
    index = {key: value for key, value in model.index_file.items() if key != "weight_map"}
    return reply({"index": index, "headers": headers})


def _sharded(store: Store, commit: Commit, path: str, limit: int) -> Model:
    """Raises a 4xx when there is no index at `path`, or one of more than `limit` bytes."""
    file = _file(store, commit, path)
    if file.size > limit:
        raise too_large(f"{path} is larger than {limit} bytes")
    index = parse_json_object(possession.read(store.db, store.blobs, store.repo, file), MAX_VALUES)
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(shard, str) for shard in weights.values()):
        raise bad_request(f"{path} has no weight_map")
    shards = sorted(set(weights.values()))
    if len(shards) > MAX_SHARDS:
        raise too_large(f"{path} names more than {MAX_SHARDS} files")
    folder = path.rpartition("/")[0]
    return Model(index, {shard: _file(store, commit, f"{folder}/{shard}" if folder else shard) for shard in shards})


def parameters(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, repo: Repo, commit: Commit) -> Json | None:
    """Numbers of parameters by dtype, None when the commit has no safetensors model that can be read, or one whose
    headers are very long."""
    store = Store(db, trees, blobs, repo)
    counts: Counter[str] = Counter()
    try:
        for file in _weights(store, commit):
            possession.check_holds(db, blobs, repo, file)
            counts.update(json.loads(_counted.get(file.sha256, partial(_count, store, file))))
    except Refusal:  # a user's broken file is not a broken repository
        return None
    return {"parameters": dict(counts), "total": counts.total()} if counts else None


def _weights(store: Store, commit: Commit) -> list[File]:
    """The files of the model at the root; empty when there is none."""
    if store.trees.find(store.db, commit.tree, (SINGLE,)):
        return [_file(store, commit, SINGLE)]
    if not store.trees.find(store.db, commit.tree, (INDEX,)):
        return []
    files = list(_sharded(store, commit, INDEX, MAX_COUNTED_BYTES[1]).shards.values())
    lengths = (_header_bytes(store, file) for file in files)
    return files if sum(lengths) <= MAX_COUNTED_BYTES[1] else []


def _count(store: Store, file: File) -> str:
    counts: Counter[str] = Counter()
    for name, tensor in parse_json_object(_raw_header(store, file, MAX_COUNTED_BYTES[0]), MAX_VALUES).items():
        dtype = tensor.get("dtype") if isinstance(tensor, dict) else None
        if name != "__metadata__" and isinstance(dtype, str) and isinstance(tensor, dict) and _DTYPE.fullmatch(dtype):
            counts[dtype] += _elements(tensor.get("shape"))
    return json.dumps(counts)


def _elements(shape: object) -> int:
    sizes = shape if isinstance(shape, list) else [0]
    return math.prod(sizes) if len(sizes) < 10 and all(type(n) is int and 0 <= n < 1 << 40 for n in sizes) else 0


def _file(store: Store, commit: Commit, path: str) -> File:
    entry = store.trees.find(store.db, commit.tree, tuple(path.split("/")))
    if not isinstance(entry, File):
        raise entry_not_found(commit=commit.oid)
    return entry


def _header_bytes(store: Store, file: File) -> int:
    """Length of a file's header as the file says it."""
    possession.check_holds(store.db, store.blobs, store.repo, file)
    start = store.blobs.read_part(store.db, file.sha256, 0, _LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > file.size - _LENGTH_BYTES:
        raise bad_request("Not a safetensors file")
    return length


def _raw_header(store: Store, file: File, limit: int) -> bytes:
    """The JSON text at the start of a file; raises a 413 when it has more than `limit` bytes."""
    length = _header_bytes(store, file)
    if length > limit:
        raise too_large(f"A safetensors header is longer than {limit} bytes")
    return store.blobs.read_part(store.db, file.sha256, _LENGTH_BYTES, length)


REPO_ROUTES: Routes = {("GET", "safetensors-metadata"): sharded}
