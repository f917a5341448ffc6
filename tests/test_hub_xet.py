"""Uploads as the clients make them unasked, through Xet: what arrives, what is refused, what is kept."""

import asyncio
import hashlib
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from hub_process import TOKEN, running, start, until, wait_ready
from huggingface_hub import HfApi
from test_hub_accounts import TOKENS, write_accounts

from erpd_hub.hub.server import app, bodies
from erpd_hub.hub.server.accounts import Accounts
from erpd_hub.hub.server.call import Hub
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.gc import collect
from erpd_hub.hub.server.xorbs import (
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MIN_MEAN_BYTES,
    hash_text,
    read_chunks,
    read_shard,
    unpack,
)

UPLOAD = """
import sys
from huggingface_hub import HfApi
url, repo, file, path, token = sys.argv[1:]
HfApi(url, token=token).upload_file(path_or_fileobj=file, path_in_repo=path, repo_id=repo)
"""
END = b"\xff" * 32 + bytes(16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder) as url:
        yield url


@pytest.fixture(scope="module")
def repo(url: str) -> str:
    return HfApi(url, token=TOKEN).create_repo("local/xet").repo_id


def upload(url: str, repo: str, file: Path, home: Path, token: str = "x") -> None:
    """In a process of its own, with nothing set but where the cache is: the tests' own process has Xet off."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", UPLOAD, url, repo, str(file), file.name, token]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_arrives_and_what_it_shares_with_the_next_is_not_sent_twice(
    url: str, repo: str, folder: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    content = rng.randbytes(1_500_000) + b"\0\1\2\3" * 100_000
    for name, data in (("a.bin", content), ("b.bin", content[:700_000] + b"between" + content[700_000:])):
        (tmp_path / name).write_bytes(data)
        upload(url, repo, tmp_path / name, tmp_path / "home")
        assert httpx.get(f"{url}/{repo}/resolve/main/{name}").content == data
    waiting = [path for path in (folder / "root" / "xorbs").rglob("*") if path.is_file() and path.suffix != ".in"]
    assert not waiting  # all is part of a blob, and on disk once
    row = HfApi(url, token=TOKEN).get_paths_info(repo, ["a.bin"], expand=True)[0]
    assert row.lfs.sha256 == hashlib.sha256(content).hexdigest()
    assert row.xet_hash is None  # or clients would look for reads that are not here


def test_two_accounts_of_one_cache_upload_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(random.Random(1).randbytes(300_000))
    with running(tmp_path, "--accounts", str(write_accounts(tmp_path))) as url:
        for name in ("ada", "bob"):
            repo = HfApi(url, token=TOKENS[name]).create_repo(f"{name}/same").repo_id
            upload(url, repo, tmp_path / "a.bin", tmp_path / "home", token=TOKENS[name])
            resolved = httpx.get(
                f"{url}/{repo}/resolve/main/a.bin", headers={"Authorization": f"Bearer {TOKENS[name]}"}
            )
            assert resolved.content == (tmp_path / "a.bin").read_bytes()


def test_what_was_deleted_for_good_can_be_uploaded_again(url: str, tmp_path: Path) -> None:
    api = HfApi(url, token=TOKEN)
    repo = api.create_repo("local/forgetful").repo_id
    (tmp_path / "a.bin").write_bytes(os.urandom(300_000))
    upload(url, repo, tmp_path / "a.bin", tmp_path / "home")
    api.permanently_delete_lfs_files(repo, list(api.list_lfs_files(repo)))
    assert not api.file_exists(repo, "a.bin")
    upload(url, repo, tmp_path / "a.bin", tmp_path / "home")
    assert httpx.get(f"{url}/{repo}/resolve/main/a.bin").content == (tmp_path / "a.bin").read_bytes()


def test_without_its_token_nothing_is_taken(url: str, repo: str) -> None:
    given = httpx.get(f"{url}/api/models/{repo}/xet-write-token/main").json()
    for path in ("v1/shards", f"v1/xorbs/default/{'a' * 64}"):
        for token in ("", "Basic x", "Bearer 9999999999.abc.local", f"Bearer {given['accessToken']}x"):
            answer = httpx.post(f"{given['casUrl']}/{path}", headers={"Authorization": token}, content=b"x")
            assert answer.status_code == 401
    good = {"Authorization": f"Bearer {given['accessToken']}"}
    assert httpx.post(f"{url}/xet/another/v1/shards", headers=good, content=b"x").status_code == 404
    assert httpx.get(f"{given['casUrl']}/v1/chunks/default/{'a' * 64}", headers=good).status_code == 404


def chunk(content: bytes, *, size: int | None = None, scheme: int = 0, version: int = 0) -> bytes:
    sizes = len(content).to_bytes(3, "little") + bytes([scheme]) + (size or len(content)).to_bytes(3, "little")
    return bytes([version]) + sizes + content


def shard(sha256: str | None, *runs: tuple[str, int, int, int]) -> bytes:
    """A shard of one file; a run is a xorb, its size, its first and its end chunk."""
    flags = 1 << 30 if sha256 else 0
    body = bytes(48) + b"\1" * 32 + struct.pack("<III", flags, len(runs), 0) + bytes(4)
    for xorb, size, first, end in runs:
        body += raw_hash(xorb) + struct.pack("<IIII", 0, size, first, end)
    return body + (raw_hash(sha256) + bytes(16) if sha256 else b"") + END


def raw_hash(text: str) -> bytes:
    return b"".join(bytes.fromhex(text[at : at + 16])[::-1] for at in range(0, 64, 16))


class Cas:
    """A hand-made Xet client."""

    def __init__(self, url: str, repo: str) -> None:
        given = httpx.get(f"{url}/api/models/{repo}/xet-write-token/main").json()
        self._url = given["casUrl"]
        self._headers = {"Authorization": f"Bearer {given['accessToken']}"}

    def xorb(self, content: bytes) -> tuple[str, httpx.Response]:
        name = hashlib.sha256(content).hexdigest()
        return name, self._post(f"xorbs/default/{name}", content)

    def shard(self, content: bytes) -> httpx.Response:
        return self._post("shards", content)

    def _post(self, path: str, content: bytes) -> httpx.Response:
        return httpx.post(f"{self._url}/v1/{path}", headers=self._headers, content=content, timeout=60)


def test_a_file_that_is_not_what_it_claims_is_refused(url: str, repo: str) -> None:
    parts = chunk(b"hello ") + chunk(b"world") + b"XETBLOB"
    name = hashlib.sha256(parts).hexdigest()
    sha256 = hashlib.sha256(b"hello world").hexdigest()
    refused = [
        shard("0" * 64, (name, 11, 0, 2)),
        shard(sha256, (name, 12, 0, 2)),
        shard(sha256, (name, 10, 0, 2)),
        shard(sha256, (name, 6, 0, 1), (name, 6, 0, 1)),
        shard(sha256, (name, 11, 2, 2)),
        shard(sha256, ("e" * 64, 11, 0, 2)),
        shard(sha256, (name, 11, 0, 2))[:-60],
        b"",
        os.urandom(480),
    ]
    for content in refused:
        cas = Cas(url, repo)  # at another address after each file that could not be made
        cas.xorb(parts)
        assert cas.shard(content).status_code == 400
    cas = Cas(url, repo)
    cas.xorb(parts)
    assert cas.shard(shard(None, (name, 11, 0, 2))).json() == {"result": 1}
    assert cas.shard(shard(sha256, (name, 6, 0, 1), (name, 5, 1, 2))).json() == {"result": 1}
    # The xorb is a blob now and its chunks are read from there; another file cannot pass for that blob.
    other, _ = cas.xorb(chunk(b"hellO world"))
    swapped = hashlib.sha256(b"worldhello ").hexdigest()
    assert cas.shard(shard(swapped, (name, 5, 1, 2), (name, 6, 0, 1))).status_code == 200
    assert cas.shard(shard(sha256, (other, 11, 0, 1))).status_code == 400


@pytest.mark.parametrize(
    "xorb",
    [
        b"",
        b"XETBLOB",
        chunk(b"x")[:-1],
        chunk(b"x", version=1),
        chunk(b"x", scheme=3),
        chunk(b"x", size=2),
        chunk(b"x", size=MAX_CHUNK_BYTES + 1, scheme=1),
        chunk(b"") * 2,
        chunk(b"x") * 9000,
    ],
    ids=["empty", "no chunk", "cut", "version", "scheme", "two sizes", "too long", "no content", "too many"],
)
def test_an_unreadable_xorb_is_refused(url: str, repo: str, xorb: bytes) -> None:
    assert Cas(url, repo).xorb(xorb)[1].status_code == 400


def test_chunks_unpack_to_exactly_what_their_header_says() -> None:
    from pyarrow import compress

    content = bytes(range(250)) * 3
    grouped = b"".join(content[lane::4] for lane in range(4))
    for scheme, plain in ((1, content), (2, grouped)):
        packed = compress(plain, codec="lz4", asbytes=True)
        good = memoryview(chunk(packed, size=len(content), scheme=scheme))
        assert bytes(unpack(good, read_chunks(good)[0])) == content
        for size in (len(content) - 1, 1):
            bad = memoryview(chunk(packed, size=size, scheme=scheme))
            with pytest.raises(Refusal):
                unpack(bad, read_chunks(bad)[0])
    bomb = memoryview(chunk(compress(bytes(MAX_CHUNK_BYTES * 8), codec="lz4", asbytes=True), size=1000, scheme=1))
    with pytest.raises(Refusal):
        unpack(bomb, read_chunks(bomb)[0])


def test_files_of_many_tiny_chunks_are_refused_before_they_are_made() -> None:
    """Each takes as long to unpack as an honest one; in one file or in many of one shard."""
    runs = [("cd" * 32, MAX_CHUNKS, 0, MAX_CHUNKS)] * 3
    single = shard(None, *runs)
    many = shard(None, runs[0])[: -len(END)] + b"".join(shard(None, run)[48 : -len(END)] for run in runs[1:]) + END
    for content in (single, many):
        with pytest.raises(Refusal, match="too many small chunks"):
            list(read_shard(io.BytesIO(content)))
    honest = shard(None, *[("cd" * 32, MAX_CHUNKS * MIN_MEAN_BYTES, 0, MAX_CHUNKS)] * 3)
    assert [file.chunks for file in read_shard(io.BytesIO(honest))] == [3 * MAX_CHUNKS]


def test_random_bytes_never_break_the_reader() -> None:
    rng = random.Random(0)
    good = shard("ab" * 32, ("cd" * 32, 5, 0, 1), ("cd" * 32, 5, 0, 1))
    for _ in range(2000):
        damaged = bytearray(good[: rng.randrange(len(good) + 1)])
        for _ in range(rng.randrange(4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.choice([0, 255, rng.randrange(256)])
        for read in (lambda data: list(read_shard(io.BytesIO(data))), lambda data: read_chunks(memoryview(data))):
            try:
                read(damaged)
            except Refusal as error:
                assert error.status == 400
    assert hash_text(raw_hash("0123456789abcdef" * 4)) == "0123456789abcdef" * 4


def test_garbage_collection_takes_xorbs_that_no_shard_followed(tmp_path: Path) -> None:
    hub = Hub(tmp_path, Accounts())
    address = hub.xorbs.address("ada")
    assert address != hub.xorbs.address("bob")
    (tmp_path / "xorb").write_bytes(chunk(b"x"))
    hub.xorbs.add("ada", "a" * 64, tmp_path / "xorb")
    hub.close()
    assert collect(tmp_path, min_age_s=3600, dry_run=False).blobs == 0
    (waiting,) = (tmp_path / "xorbs").glob("*/*/*")
    os.utime(waiting, (0, 0))
    assert collect(tmp_path, min_age_s=3600, dry_run=False).blobs == 1
    again = Hub(tmp_path, Accounts())
    assert again.xorbs.address("ada") != address  # or a client would not send those chunks again
    again.close()


def test_a_full_disk_ends_the_upload_and_stands_in_the_log(tmp_path: Path) -> None:
    process = start(tmp_path / "root", tmp_path / "ready.json", max_file=1_000_000)
    url = wait_ready(process, tmp_path / "ready.json")
    HfApi(url, token=TOKEN).create_repo("local/full")
    (tmp_path / "a.bin").write_bytes(random.Random(2).randbytes(1_500_000))
    with pytest.raises(AssertionError, match="413"):  # 507 would be tried again for minutes
        upload(url, "local/full", tmp_path / "a.bin", tmp_path / "home")
    process.terminate()
    log = process.communicate(timeout=30)[1].decode()
    (line,) = {line.rpartition("/")[0] + line[line.index(" failed") :] for line in log.splitlines() if "failed" in line}
    assert "POST /xet/" in line
    assert "the disk is full" in line


def test_what_is_left_half_sent_takes_no_memory_and_leaves_nothing(url: str, repo: str, folder: Path) -> None:
    """Xorbs and commits."""
    given = httpx.get(f"{url}/api/models/{repo}/xet-write-token/main").json()
    path = httpx.URL(given["casUrl"]).raw_path.decode()
    sent, count = 8 << 20, 8

    def resident() -> int:
        status = Path(f"/proc/{json.loads((folder / 'ready.json').read_text())['pid']}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    incoming = folder / "root" / "incoming"
    before = resident()
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)))
            target = f"{path}/v1/xorbs/default/{number:064x}" if number % 2 else f"/api/models/{repo}/commit/main"
            head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            token = given["accessToken"] if number % 2 else TOKEN
            head += f"Authorization: Bearer {token}\r\nContent-Length: {sent + 1}\r\n\r\n"
            connection.sendall(head.encode() + bytes(sent))
        until(lambda: sum(file.stat().st_size for file in incoming.iterdir()) > count * (sent - (1 << 20)))
        assert resident() - before < count * sent / 2
    until(lambda: not list(incoming.iterdir()))


def test_a_request_whose_body_stops_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path, Accounts())
    token, _ = hub.signer.token("xet", "local", 60)
    parts = [{"type": "http.request", "body": b"a part", "more_body": True}]
    told: list[dict] = []

    async def receive() -> dict:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: dict) -> None:
        told.append(message)

    path = f"/xet/{hub.xorbs.address('local')}/v1/xorbs/default/{'a' * 64}"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(b"authorization", f"Bearer {token}".encode())]}  # fmt: skip
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    asyncio.run(app.HubApp(hub, hosts=None)(scope, receive, send))
    assert told[0]["status"] == 408
    assert (b"connection", b"close") in told[0]["headers"]
    assert not list((tmp_path / "incoming").iterdir())
    hub.close()
