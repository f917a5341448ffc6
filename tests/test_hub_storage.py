"""What the embedded Hub keeps, gives away and takes back: deleting for good, uploads in parts, xorbs that went bad.

The server runs in this process, so that a test can look into it and make its parts small.
"""

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from hub_process import until
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.lfs import _upload_multi_part
from test_hub_accounts import TOKENS, write_accounts
from test_hub_xet import chunk

from erpd_hub.hub.server import (
    collection_store,
    pulls,
    routes_collections,
    routes_commit,
    routes_multipart,
    routes_xet,
    uploads,
    xet,
)
from erpd_hub.hub.server.accounts_file import read_accounts
from erpd_hub.hub.server.app import HubApp
from erpd_hub.hub.server.call import Hub
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.signing import Upload
from erpd_hub.hub.server.xorbs import Run, SharedFile

PART = 100_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    hub = Hub(folder / "root", read_accounts(write_accounts(folder)))
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def url(hub: Hub) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(HubApp(hub, hosts=None), lifespan="off", log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def ada(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["ada"])


def add(api: HfApi, repo: str, files: dict[str, bytes]) -> None:
    api.create_commit(repo, [CommitOperationAdd(*item) for item in files.items()], commit_message="add")


def test_what_was_deleted_for_good_is_not_read_from_other_holders(ada: HfApi, url: str) -> None:
    """The bytes are still here, as a private copy's; but of this repository they are gone, whichever way one asks."""
    header = b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    files = {
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(8),
        "README.md": b"---\nlicense: mit\n---\n\0",
        "picture.png": b"\0picture",
    }
    repo = ada.create_repo("ada/open").repo_id
    add(ada, repo, files)
    assert ada.model_info(repo).safetensors is not None
    ada.create_repo("ada/hidden", private=True)
    add(ada, "ada/hidden", files)
    ada.permanently_delete_lfs_files(repo, list(ada.list_lfs_files(repo)), rewrite_history=False)

    for name, content in files.items():
        assert httpx.get(f"{url}/{repo}/resolve/main/{name}").status_code == 410, name
        hidden = httpx.get(
            f"{url}/ada/hidden/resolve/main/{name}", headers={"Authorization": f"Bearer {TOKENS['ada']}"}
        )
        assert hidden.content == content
    assert not list(ada.list_lfs_files(repo))
    info = ada.model_info(repo)
    assert (info.safetensors, info.card_data) == (None, None)
    assert "picture.png" in ada.list_repo_files(repo)
    assert httpx.get(f"{url}/{repo}/media/main/picture.png").status_code in (404, 410)
    add(ada, repo, {"picture.png": files["picture.png"]})  # the client is not told that it is there
    assert httpx.get(f"{url}/{repo}/resolve/main/picture.png").content == files["picture.png"]


def test_a_tag_keeps_its_message_when_its_commit_is_rewritten(ada: HfApi, hub: Hub) -> None:
    repo = ada.create_repo("ada/tagged").repo_id
    add(ada, repo, {"a.bin": b"\0tagged", "b.txt": b"b"})
    ada.create_tag(repo, tag="half", tag_message="half way")
    read = "SELECT target, message FROM refs JOIN repos ON repos.id = repo WHERE refs.name = 'refs/tags/half'"
    before = hub.db.read().execute(read).fetchone()
    ada.permanently_delete_lfs_files(repo, list(ada.list_lfs_files(repo)))
    after = hub.db.read().execute(read).fetchone()
    assert after[0] != before[0]
    assert after[1] == "half way"


def test_a_deletion_that_came_half_way_is_finished_by_the_next(ada: HfApi, url: str) -> None:
    repo = ada.create_repo("ada/half").repo_id
    add(ada, repo, {"a.bin": b"\0half", "b.txt": b"b"})
    large = list(ada.list_lfs_files(repo))
    ada.permanently_delete_lfs_files(repo, large, rewrite_history=False)
    assert httpx.get(f"{url}/{repo}/resolve/main/a.bin").status_code == 410
    ada.permanently_delete_lfs_files(repo, large)
    assert set(ada.list_repo_files(repo)) == {".gitattributes", "b.txt"}


def test_deleting_for_good_reads_trees_while_others_may_commit(
    ada: HfApi, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a large history: what the one writer is stopped for is what makes the result visible."""
    repo = ada.create_repo("ada/long").repo_id
    for number in range(3):
        add(ada, repo, {f"{number}/a.bin": b"\0long %d" % number, f"{number}/b.txt": b"b"})
    locked: list[bool] = []
    load = hub.trees.load
    monkeypatch.setattr(hub.trees, "load", lambda db, key: locked.append(hub.db._writer.locked()) or load(db, key))
    ada.permanently_delete_lfs_files(repo, list(ada.list_lfs_files(repo)))
    assert set(ada.list_repo_files(repo)) == {".gitattributes", *(f"{number}/b.txt" for number in range(3))}
    assert set(locked) == {False}


def test_who_commits_while_another_deletes_for_good_loses_nothing(ada: HfApi, url: str) -> None:
    bob = HfApi(url, token=TOKENS["bob"])
    files = {"small.bin": b"\0beside", "large.bin": b"\0beside" * 20_000}
    mine, theirs = ada.create_repo("ada/beside").repo_id, bob.create_repo("bob/beside").repo_id
    ready = [CommitOperationAdd(*item) for item in files.items()]
    bob.preupload_lfs_files(theirs, ready)
    add(ada, mine, files)
    ada.permanently_delete_lfs_files(mine, list(ada.list_lfs_files(mine)))
    bob.create_commit(theirs, ready, commit_message="add")
    for name, content in files.items():
        assert httpx.get(f"{url}/{theirs}/resolve/main/{name}").content == content


@pytest.fixture
def offer(ada: HfApi, url: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], dict]:
    """What a client is told of an upload in parts."""
    monkeypatch.setattr(routes_multipart, "MIN_PART_BYTES", PART)
    ada.create_repo("ada/parts", exist_ok=True)
    key = hub.db.read().execute("SELECT id FROM repos WHERE name = 'parts'").fetchone()[0]

    def make(content: bytes) -> dict:
        oid = hashlib.sha256(content).hexdigest()
        query = hub.signer.query(Upload(key, "ada", oid, len(content)))
        return routes_multipart.action(url, oid, len(content), query)

    return make


def test_parts_become_a_blob_where_they_are(offer: Callable[[bytes], dict], hub: Hub) -> None:
    content = random.Random(0).randbytes(3 * PART + 1)
    given, operation = offer(content), CommitOperationAdd("large.bin", content)
    links = [link for number, link in given["header"].items() if number.isdigit()]
    assert len(links) == 4
    pieces = [content[at : at + PART] for at in range(0, len(content), PART)]
    for link, piece in zip(links[1:], pieces[1:], strict=True):
        assert httpx.put(link, content=piece).status_code == 200
    (parts,) = (path for path in (hub.root / "parts").iterdir() if path.suffix != ".done")
    assert httpx.post(given["href"], json={}).status_code == 400, "the first is missing, though the length is right"
    inode = parts.stat().st_ino
    _upload_multi_part(operation, given["header"], PART, given["href"])
    blob = hub.blobs.path(hashlib.sha256(content).hexdigest())
    assert (blob.read_bytes(), blob.stat().st_ino) == (content, inode)
    assert not list((hub.root / "parts").iterdir())
    assert httpx.post(given["href"], json={}).status_code == 200, "the answer may have been lost"


def test_one_byte_at_the_end_does_not_pass_for_a_large_file(offer: Callable[[bytes], dict], hub: Hub) -> None:
    given = offer(bytes(2 * PART + 1))
    assert httpx.put(f"{given['header']['00003']}&part=1", content=b"\0").status_code == 200
    assert httpx.put(given["header"]["00003"].replace("/3?", "/4?"), content=b"\0").status_code == 400
    answer = httpx.post(given["href"], json={})
    assert (answer.status_code, "missing" in answer.text) == (400, True)


def test_a_part_that_stalls_stops_no_completion_and_changes_no_blob(
    offer: Callable[[bytes], dict], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is gone without a word: the connection stays open."""
    monkeypatch.setattr(uploads, "WRITE_CHUNK", 10)
    content = random.Random(1).randbytes(PART)
    given, sha = offer(content), hashlib.sha256(content).hexdigest()
    link = urlsplit(given["header"]["00001"])
    with socket.create_connection((link.hostname, link.port)) as stalled:
        head = f"PUT {link.path}?{link.query} HTTP/1.1\r\nHost: {link.netloc}\r\nContent-Length: {PART}\r\n\r\n"
        stalled.sendall(head.encode() + b"\1" * 10)
        until(lambda: any(path.read_bytes() == b"\1" * 10 for path in (hub.root / "parts").glob(f"{sha}-*")))
        assert httpx.put(given["header"]["00001"], content=content).status_code == 200
        assert httpx.post(given["href"], json={}).status_code == 200
        stalled.sendall(bytes(PART - 10))
        assert b" 503 " in stalled.recv(1000).splitlines()[0], "which clients try again"
    assert hub.blobs.path(sha).read_bytes() == content
    assert not list((hub.root / "parts").glob(f"{sha}-*"))


def test_a_body_beyond_its_bound_is_refused_and_leaves_nothing(
    hub: Hub, ada: HfApi, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not say its length."""
    for module, name in ((routes_commit, "COMMIT"), (routes_xet, "XORB"), (routes_xet, "SHARD")):
        monkeypatch.setattr(module, f"MAX_{name}_BYTES", 1000)
    repo = ada.create_repo("ada/bounded").repo_id
    headers = {"Authorization": f"Bearer {TOKENS['ada']}"}
    given = httpx.get(f"{url}/api/models/{repo}/xet-write-token/main", headers=headers).json()
    of_xet = {"Authorization": f"Bearer {given['accessToken']}"}
    for path, who in (
        (f"{url}/api/models/{repo}/commit/main", headers),
        (f"{given['casUrl']}/v1/xorbs/default/{'c' * 64}", of_xet),
        (f"{given['casUrl']}/v1/shards", of_xet),
    ):
        answer = httpx.post(path, content=iter([b" " * 600] * 2), headers=who)
        assert (answer.status_code, "larger than 1000 bytes" in answer.text) == (413, True), path
    assert not list((hub.root / "incoming").iterdir())


def test_lists_are_read_in_pages_and_have_an_end(ada: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a discussion, items of a collection, collections of an owner."""
    monkeypatch.setattr(pulls, "MAX_EVENTS", 2)
    monkeypatch.setattr(routes_collections, "MAX_ITEMS", 1)
    monkeypatch.setattr(routes_collections, "PER_PAGE", 1)
    monkeypatch.setattr(collection_store, "MAX_COLLECTIONS", 3)
    repo, other = (ada.create_repo(f"ada/listed-{number}").repo_id for number in range(2))
    ada.create_discussion(repo, "Title")
    ada.comment_discussion(repo, 1, "the last")
    with pytest.raises(HfHubHTTPError, match="too long; open another"):
        ada.comment_discussion(repo, 1, "one more")
    slugs = {ada.create_collection(f"List {number}", namespace="ada").slug for number in range(3)}
    with pytest.raises(HfHubHTTPError, match="has 3 collections already"):
        ada.create_collection("One more", namespace="ada")
    found = [item.slug for item in islice(ada.list_collections(owner="ada"), 4)]
    assert (len(found), set(found)) == (3, slugs)
    ada.add_collection_item(found[0], repo, "model")
    with pytest.raises(HfHubHTTPError, match="at most 1 items"):
        ada.add_collection_item(found[0], other, "model")


XORB = chunk(b"a" * 1000) + chunk(b"b" * 1000)
FILE = SharedFile(hashlib.sha256(b"a" * 1000 + b"b" * 1000).hexdigest(), (Run("e" * 64, 0, 2, 2000),))


def test_while_one_upload_of_xet_is_made_a_file_others_are_answered(
    hub: Hub, ada: HfApi, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    place = xet.Place
    monkeypatch.setattr(xet, "Place", lambda *fields: held.append(hub.xorbs._lock.locked()) or place(*fields))
    _add(hub, "ada", "e" * 64, XORB)
    hub.xorbs.assemble("ada", FILE)
    assert held == [False, False]
    repo = ada.create_repo("ada/waiting").repo_id
    given = httpx.get(
        f"{url}/api/models/{repo}/xet-write-token/main", headers={"Authorization": f"Bearer {TOKENS['ada']}"}
    ).json()
    link = urlsplit(given["casUrl"])
    with hub.xorbs._lock, socket.create_connection((link.hostname, link.port)) as waiting:
        head = f"POST {link.path}/v1/xorbs/default/{'d' * 64} HTTP/1.1\r\nHost: {link.netloc}\r\n"
        waiting.sendall(f"{head}Authorization: Bearer {given['accessToken']}\r\nContent-Length: 1\r\n\r\n".encode())
        for _ in range(5):
            assert httpx.get(f"{url}/-/icon.svg", timeout=20).status_code == 200


def _spoil(hub: Hub, how: str) -> None:
    (raw,) = (hub.root / xet.FOLDER).glob(f"*/*/{'e' * 64}")
    match how:
        case "empty":
            raw.write_bytes(b"")
        case "cut":
            raw.write_bytes(XORB[:-1])
        case "flipped":
            raw.write_bytes(XORB[:-1] + b"c")
        case "nothing of its note":
            hub.xorbs.assemble("ada", FILE)
            assert not raw.exists()
            raw.with_suffix(".in").write_bytes(b"")
        case "its blob is gone":
            hub.xorbs.assemble("ada", FILE)
            with hub.db.write() as db:
                db.execute("DELETE FROM blobs")


def _add(hub: Hub, owner: str, xorb: str, content: bytes) -> None:
    with hub.blobs.scratch() as file:
        file.write(content)
        file.flush()
        hub.xorbs.add(owner, xorb, Path(file.name))


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "nothing of its note", "its blob is gone"])
def test_a_spoiled_xorb_is_sent_again_by_the_next_try(tmp_path: Path, how: str) -> None:
    hub = Hub(tmp_path, read_accounts(write_accounts(tmp_path)))
    _add(hub, "bob", "f" * 64, XORB)
    _add(hub, "ada", "e" * 64, XORB)
    addresses = [hub.xorbs.address(owner) for owner in ("ada", "bob")]
    _spoil(hub, how)
    with pytest.raises(Refusal) as refused:
        hub.xorbs.assemble("ada", FILE)
    assert refused.value.status == 400
    assert not hub.xorbs.has("ada", "e" * 64)
    assert [hub.xorbs.address(owner) == old for owner, old in zip(("ada", "bob"), addresses, strict=True)] == [
        False,
        True,
    ]
    packed_otherwise = chunk(b"a" * 500) + chunk(b"a" * 500 + b"b" * 1000)
    _add(hub, "ada", "e" * 64, packed_otherwise)
    assert hub.xorbs.assemble("ada", FILE) == FILE.sha256
    hub.close()
