"""Clients that send anything: every answer is a refusal a client can read, never a failure of the server."""

import http.client
import json
import random
import socket
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hub_process import TOKEN, running
from huggingface_hub import CommitOperationAdd, HfApi

SEEDS = range(6)
REQUESTS_PER_SEED = 250

SEGMENTS = [
    "",
    ".",
    "..",
    "%2e%2e",
    "%00",
    "a%00b",
    "%ff%fe",
    "%2F",
    "%2F%2F",
    "a//b",
    "refs%2Fpr%2F1",
    "refs%2Fheads%2Fmain",
    "refs%2Fpr%2F" + "9" * 40,
    "%F0%9F%98%80",
    "%ED%A0%80",
    "a" * 300,
    "x%0d%0aX-Evil:%201",
    "~",
    "%",
    "%zz",
    "main",
    "HEAD",
    "-1",
    "0",
    "1",
    "1e9",
    "NaN",
    "null",
    "9" * 30,
    "0" * 24,
    "f" * 40,
    "f" * 64,
    "README.md",
    ".git",
    "data",
    "*",
    "%27--",
    "items",
    "comment",
    "merge",
    "status",
    "v1",
    "shards",
    "xorbs",
    "default",
]
VALUES: list[object] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**70,
    1e308,
    "",
    " ",
    "..",
    "a/../b",
    "/abs",
    "a//b",
    "nul\0",
    "\ud800",
    "🤗" * 200,
    "x" * 5000,
    [],
    [None],
    [[]],
    {},
    {"a": None},
    "main",
    "refs/heads/main",
    "refs/pr/1",
    "f" * 40,
    "f" * 64,
    ["x"] * 300,
    {"path": 1},
    "2020-01-01",
    "*",
    "%",
    "'; DROP TABLE repos; --",
    float("inf"),
    "model",
    "dataset",
    "space",
    "public",
    "open",
    "upload",
]
HEADERS: list[tuple[str, str]] = [
    ("Authorization", "Bearer "),
    ("Authorization", "Basic x"),
    ("Authorization", "Bearer " + "x" * 9000),
    ("Range", "bytes=9-1"),
    ("Range", "bytes=-99999999999999999999"),
    ("Range", "bytes=0-0,2-3"),
    ("Range", "lines=1"),
    ("Content-Type", "\x7f"),
    ("X-Request-Id", "a\tb"),
    ("Content-Encoding", "gzip"),
    ("Accept-Encoding", "zstd"),
]
INVALID = b"Invalid HTTP request received."
"""What uvicorn says of bytes that are no HTTP."""
REPO = "/api/models/{repo}"
BODIES: dict[str, dict[str, object]] = {
    "POST /api/repos/create": {
        "name": "n",
        "organization": None,
        "type": "model",
        "visibility": "public",
        "sdk": "gradio",
    },
    "DELETE /api/repos/delete": {"name": "n", "organization": "local", "type": "model"},
    "POST /api/repos/move": {"fromRepo": "local/a", "toRepo": "local/b", "type": "model"},
    "POST /api/validate-yaml": {"content": "---\na: 1\n---\n", "repoType": "model"},
    "POST /api/collections": {"title": "t", "namespace": "local", "description": "d", "private": False},
    "PATCH {collection}": {"title": "t", "description": "d", "theme": "pink", "private": True, "position": 0},
    "POST {collection}/items": {"item": {"type": "model", "id": "{repo}"}, "note": "n"},
    "PATCH {collection}/items/0": {"note": "n", "position": 1},
    f"PUT {REPO}/settings": {"visibility": "public", "gated": "auto"},
    f"POST {REPO}/duplicate": {"repository": "local/copy", "visibility": "public"},
    f"POST {REPO}/preupload/main": {"files": [{"path": "a", "sample": "", "size": 1}], "gitIgnore": "*"},
    f"POST {REPO}/branch/b": {"startingPoint": "main"},
    f"POST {REPO}/tag/main": {"tag": "t", "message": "m"},
    f"POST {REPO}/super-squash/main": {"message": "m"},
    f"POST {REPO}/lfs-files/batch": {"deletions": {"sha": ["f"], "rewriteHistory": True}},
    f"POST {REPO}/lfs-files/duplicate": {"target": {"type": "model", "name": "local/x"}, "files": [{"sha256": "f"}]},
    f"POST {REPO}/discussions": {"title": "title", "description": "d", "pullRequest": True},
    f"POST {REPO}/discussions/1/comment": {"comment": "c"},
    f"POST {REPO}/discussions/1/status": {"status": "closed", "comment": "c"},
    f"POST {REPO}/discussions/1/title": {"title": "other"},
    f"POST {REPO}/discussions/1/merge": {"comment": "c"},
    "POST /{repo}.git/info/lfs/objects/batch": {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": "f" * 64, "size": 5}],
    },
}
READS = [
    "/",
    "/api/whoami-v2",
    "/api/models",
    "/api/datasets",
    "/api/collections",
    "{collection}",
    "/{repo}/resolve/main/README.md",
    *(
        f"{REPO}{end}"
        for end in (
            "",
            "/revision/main",
            "/tree/main",
            "/tree/main/data",
            "/commits/main",
            "/refs",
            "/discussions",
            "/discussions/1",
            "/lfs-files",
            "/xet-write-token/main",
            "/safetensors-metadata/model.safetensors.index.json",
            "/auth-check/write",
        )
    ),
]
QUERIES = [
    "limit",
    "cursor",
    "expand",
    "sort",
    "direction",
    "author",
    "search",
    "filter",
    "recursive",
    "p",
    "create_pr",
    "blobs",
    "size",
    "expires",
    "signature",
    "gated",
    "sdk",
    "base_model",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("hub")) as url:
        yield url


@pytest.fixture(scope="module")
def names(url: str) -> dict[str, str]:
    """What the requests are about: a repository with a pull request, and a collection."""
    api = HfApi(url, token=TOKEN)
    repo = api.create_repo(f"local/h-{uuid.uuid4().hex[:6]}").repo_id
    files = {"README.md": b"# x", "data/a.txt": b"a", "big.bin": b"\0" * 100, "model.safetensors.index.json": b"{}"}
    api.create_commit(repo, [CommitOperationAdd(path, content) for path, content in files.items()], commit_message="c")
    api.create_pull_request(repo, "Some change")
    slug = api.create_collection("Things", namespace="local").slug
    return {"repo": repo, "collection": f"/api/collections/{slug}"}


class Sender:
    """Requests as bytes, with nothing normalised on the way; one connection, a new one after each that broke."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: bytes, headers: list[tuple[str, str]]) -> tuple[int, dict, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=20)
        try:
            self._connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in [("Content-Length", str(len(body))), *headers]:
                self._connection.putheader(name, value)
            self._connection.endheaders(body)
            response = self._connection.getresponse()
            answer = response.status, dict(response.getheaders()), response.read()
        except (http.client.BadStatusLine, BrokenPipeError, ConnectionResetError) as error:
            raise AssertionError(f"{method} {path[:200]!r}: no answer") from error
        if response.will_close:
            self._connection.close()
            self._connection = None
        return answer


def mutated(rng: random.Random, value: object) -> object:
    """A JSON value with something wrong at one place."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        return [mutated(rng, value[0]), *value[1:]]
    return rng.choice(VALUES)


def mutated_path(rng: random.Random, path: str) -> str:
    parts = path.split("/")
    for _ in range(rng.choice([0, 1, 1, 2])):
        parts.insert(rng.randrange(1, len(parts) + 1), rng.choice(SEGMENTS))
        if rng.random() < 0.7:
            parts.pop(rng.randrange(1, len(parts)))
    query = "&".join(f"{rng.choice(QUERIES)}={rng.choice(SEGMENTS)}" for _ in range(rng.choice([0, 0, 1, 2])))
    return "/".join(parts).replace(" ", "%20") + (f"?{query}" if query else "")


def mutated_body(rng: random.Random, template: dict[str, object]) -> bytes:
    body = json.dumps(mutated(rng, template)).encode()
    damage = rng.random()
    if damage < 0.1:
        return body[: rng.randrange(len(body) + 1)]
    if damage < 0.15:
        return rng.randbytes(rng.randrange(200))
    return b"[" * 100_000 if damage < 0.16 else body


def check(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> None:
    where = f"{method} {path[:300]!r}: {status} {body[:300]!r}"
    assert status < 500, where
    if status >= 400 and method != "HEAD" and path.startswith("/api/") and body != INVALID:
        assert headers["content-type"].startswith("application/json"), where
        assert isinstance(json.loads(body), dict), where
    assert b"Traceback" not in body, where
    assert "X-Evil" not in headers, where


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_requests_are_answered(url: str, names: dict[str, str], seed: int) -> None:
    rng, sender = random.Random(seed), Sender(url)
    for _ in range(REQUESTS_PER_SEED):
        if rng.random() < 0.6:
            target, template = rng.choice(list(BODIES.items()))
            method, path = target.split(" ", 1)
            body = mutated_body(rng, template)
        else:
            method, path, body = (
                rng.choice(["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
                rng.choice(READS),
                b"",
            )
        path = mutated_path(rng, path.format(**names))
        headers = [rng.choice(HEADERS)] if rng.random() < 0.2 else []
        check(method, path, *sender.send(method, path, body, headers))


def commit_lines(rng: random.Random) -> bytes:
    """A commit with something wrong in one line, at its end, or in the order of its lines."""
    lines: list[object] = [
        {"key": "header", "value": {"summary": "s", "description": "d", "parentCommit": None}},
        {"key": "file", "value": {"path": "a.txt", "content": "eA==", "encoding": "base64"}},
        {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": "f" * 64, "size": 3}},
        {"key": "deletedFile", "value": {"path": "absent"}},
        {"key": "deletedFolder", "value": {"path": "data/"}},
        {"key": "copy", "value": {"path": "a"}},
    ]
    chosen = lines[:1] + rng.sample(lines, rng.randrange(1, 4))
    index = rng.randrange(len(chosen))
    chosen[index] = mutated(rng, chosen[index])
    if rng.random() < 0.2:
        rng.shuffle(chosen)
    body = b"\n".join(json.dumps(line).encode() for line in chosen)
    return body[: rng.randrange(len(body))] if rng.random() < 0.2 else body


@pytest.mark.parametrize("seed", range(2))
def test_mutated_commits_are_answered(url: str, names: dict[str, str], seed: int) -> None:
    rng, sender = random.Random(seed), Sender(url)
    for _ in range(150):
        path = f"/api/models/{names['repo']}/commit/{rng.choice(['main', 'main', 'refs%2Fpr%2F1', 'absent'])}"
        path += rng.choice(["", "", "?create_pr=1"])
        check("POST", path, *sender.send("POST", path, commit_lines(rng), []))


def test_too_much_is_refused(url: str, names: dict[str, str]) -> None:
    sender = Sender(url)
    for headers in ([("X-Long", "x" * 200_000)], [(f"X-{number}", "x" * 500) for number in range(400)]):
        try:
            status, *_ = sender.send("GET", "/api/models", b"", headers)
        except AssertionError:  # the connection was closed on us while we were still sending
            sender = Sender(url)
        else:
            assert 400 <= status < 500
    large = json.dumps({"content": "x" * (33 << 20)}).encode()
    assert sender.send("POST", "/api/validate-yaml", large, [])[0] == 413
    api, lfs = f"/api/models/{names['repo']}", f"/{names['repo']}.git/info/lfs/objects/batch"
    files = [{"path": f"a{number}", "sample": "", "size": 1} for number in range(1001)]
    deep = [{"path": "/".join("x" * 64), "sample": "", "size": 1}]
    objects = [{"oid": f"{number:064x}", "size": 1 << 40} for number in range(1001)]
    batch = {"operation": "upload", "transfers": ["multipart"]}
    one_file = {"key": "header", "value": {"summary": "s", "x": [[]] * 400_000}}
    refused: list[tuple[str, object, int]] = [
        ("/api/validate-yaml", {"content": "", "x": [[]] * 400_000}, 413),
        (f"{api}/commit/main", one_file, 413),
        (f"{api}/preupload/main", {"files": files}, 413),
        (f"{api}/preupload/main", {"files": [], "gitIgnore": "a\n" * 40_000}, 413),
        (f"{api}/preupload/main", {"files": deep, "gitIgnore": "x/**/x/**/x/**/y\n" * 1000}, 413),
        (lfs, batch | {"objects": objects}, 413),
        (lfs, batch | {"objects": objects[:100]}, 413),
        (f"{api}/super-squash/main", {"message": "x" * 2000}, 422),
        (f"{api}/tag/main", {"tag": "t", "message": "x" * 100_000}, 422),
    ]
    for path, value, expected in refused:
        status, headers, body = Sender(url).send("POST", path, json.dumps(value).encode(), [])
        check("POST", path, status, headers, body)
        assert status == expected, f"{path}: {status} {body[:200]!r}"


def test_a_client_that_goes_away_leaves_nothing(url: str, names: dict[str, str]) -> None:
    address = urlsplit(url)
    api = HfApi(url, token=TOKEN)
    before = api.model_info(names["repo"]).sha
    for _ in range(5):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            path = f"/api/models/{names['repo']}/commit/main"
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode())
            connection.sendall(b'{"key": "header", "value": {"summary": "s"}}\n')
    assert api.model_info(names["repo"]).sha == before
