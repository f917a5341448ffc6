"""What the headers of a model's safetensors files say, read without their tensors."""

import math
import sqlite3
from collections import Counter
from typing import NamedTuple

from starlette.responses import Response

from erpd_hub.hub.server.blobs import BlobStore, read_range
from erpd_hub.hub.server.call import Call, Json, Routes, parse_json_object, reply
from erpd_hub.hub.server.errors import HubError, bad_request, entry_not_found, too_large
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.repos import MAIN, Commit, resolve_revision
from erpd_hub.hub.server.trees import TreeStore

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 16 << 20
MAX_TOTAL_BYTES = 64 << 20
MAX_SHARDS = 1000
_LENGTH_BYTES = 8


class Model(NamedTuple):
    """A sharded model: its index file, and the header of each shard by path."""

    index_file: Json
    headers: dict[str, Json]


def sharded(call: Call) -> Response:
    """Index and headers of a sharded model on main, in one answer."""
    commit = resolve_revision(call.db, call.repo(), MAIN)
    model = read_sharded(call.db, call.hub.trees, call.hub.blobs, commit, call.rest_text())
    index = {key: value for key, value in model.index_file.items() if key != "weight_map"}
    return reply({"index": index, "headers": model.headers})


def read_sharded(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, commit: Commit, path: str) -> Model:
    """Raises a 4xx when there is no index at `path` or its shards are not safetensors."""
    file = _file(db, trees, commit, path)
    if file.size > MAX_HEADER_BYTES:
        raise too_large(f"{path} is larger than {MAX_HEADER_BYTES} bytes")
    index = parse_json_object(blobs.read(db, file.sha256))
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(shard, str) for shard in weights.values()):
        raise bad_request(f"{path} has no weight_map")
    shards = sorted(set(weights.values()))
    if len(shards) > MAX_SHARDS:
        raise too_large(f"{path} names more than {MAX_SHARDS} files")
    folder = path.rpartition("/")[0]
    found = {shard: _file(db, trees, commit, f"{folder}/{shard}" if folder else shard) for shard in shards}
    left = MAX_TOTAL_BYTES
    headers = {}
    for shard, entry in found.items():
        raw = _raw_header(db, blobs, entry, left)
        left -= len(raw)
        headers[shard] = parse_json_object(raw)
    return Model(index, headers)


def parameters(db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, commit: Commit) -> Json | None:
    """Numbers of parameters by dtype, None when the commit has no safetensors model that can be read."""
    try:
        if trees.find(db, commit.tree, (SINGLE,)):
            raw = _raw_header(db, blobs, _file(db, trees, commit, SINGLE), MAX_TOTAL_BYTES)
            headers = [parse_json_object(raw)]
        elif trees.find(db, commit.tree, (INDEX,)):
            headers = list(read_sharded(db, trees, blobs, commit, INDEX).headers.values())
        else:
            return None
    except HubError:  # a user's broken file is not a broken repository
        return None
    counts: Counter[str] = Counter()
    for header in headers:
        for name, tensor in header.items():
            if name != "__metadata__" and isinstance(tensor, dict):
                counts[str(tensor.get("dtype"))] += _elements(tensor.get("shape"))
    return {"parameters": dict(counts), "total": counts.total()}


def _elements(shape: object) -> int:
    sizes = shape if isinstance(shape, list) else [0]
    return math.prod(sizes) if len(sizes) < 10 and all(type(n) is int and 0 <= n < 1 << 40 for n in sizes) else 0


def _file(db: sqlite3.Connection, trees: TreeStore, commit: Commit, path: str) -> File:
    entry = trees.find(db, commit.tree, tuple(path.split("/")))
    if not isinstance(entry, File):
        raise entry_not_found(commit=commit.oid)
    return entry


def _raw_header(db: sqlite3.Connection, blobs: BlobStore, file: File, limit: int) -> bytes:
    """The JSON text at the start of a file, at most `limit` bytes."""
    start = _read(db, blobs, file, 0, _LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, limit, file.size - _LENGTH_BYTES):
        raise bad_request("Not a safetensors file, or its header is too long")
    return _read(db, blobs, file, _LENGTH_BYTES, length)


def _read(db: sqlite3.Connection, blobs: BlobStore, file: File, start: int, length: int) -> bytes:
    content = blobs.inline(db, file.sha256)
    if content is not None:
        return content[start : start + length]
    return b"".join(read_range(blobs.path(file.sha256), start, length))


REPO_ROUTES: Routes = {("GET", "safetensors-metadata"): sharded}
