"""The embedded Hub against requests no honest client sends."""

import base64
import hashlib
import http.client
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hub_process import TOKEN, running
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from erpd_hub.hub.server.paging import MAX_PAGE_BYTES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder) as url:
        yield url


@pytest.fixture(scope="module")
def repo(url: str) -> str:
    return HfApi(url, token=TOKEN).create_repo(f"local/r-{uuid.uuid4().hex[:6]}").repo_id


def commit(url: str, repo: str, *lines: dict[str, object], header: bool = True) -> httpx.Response:
    rows = [{"key": "header", "value": {"summary": "s", "description": ""}}] if header else []
    body = "\n".join(json.dumps(row) for row in [*rows, *lines])
    return httpx.post(f"{url}/api/models/{repo}/commit/main", content=body)


def put(path: str, content: bytes = b"x") -> dict[str, object]:
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode()}}


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../x",
        "/etc/passwd",
        "..\\x",
        "\\x",
        "C:\\x",
        "a\0b",
        "a//b",
        "",
        ".",
        "a/.git/config",
        ".GIT/x",
        "a/",
        "x" * 300,
    ],
)
def test_paths_that_could_escape_are_refused(url: str, repo: str, path: str) -> None:
    before = HfApi(url, token=TOKEN).model_info(repo).sha
    assert commit(url, repo, put("good.txt"), put(path)).status_code == 422
    assert HfApi(url, token=TOKEN).model_info(repo).sha == before


@pytest.mark.parametrize(
    "path",
    [
        "/{repo}/resolve/main/../../../secret",
        "/{repo}/resolve/main/%2e%2e%2fsecret",
        "/{repo}/resolve/..%2f..%2fsecret/x",
        "/../secret",
        "/{repo}/resolve/main/%00",
        "/{repo}/resolve/main/%ff",
        "/api/models/..%2f..%2fx/y",
        "//etc/passwd",
        "/api/models/{repo}/tree/a%0d%0aX-Evil:%201%f0%9f%98%80",
    ],
)
def test_urls_that_could_escape_find_nothing(url: str, repo: str, folder: Path, path: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", path.format(repo=repo))
    response = connection.getresponse()
    body = response.read()
    assert 400 <= response.status < 500
    assert str(folder).encode() not in body


def test_malformed_commits_change_nothing(url: str, repo: str) -> None:
    before = HfApi(url, token=TOKEN).model_info(repo).sha
    bad = [
        commit(url, repo, put("a.txt"), header=False),
        commit(url, repo, {"key": "what", "value": {"path": "x"}}),
        commit(url, repo, {"key": "file", "value": {"path": "x", "content": "?not base64?"}}),
        commit(url, repo, {"key": "file", "value": {"path": 3, "content": ""}}),
        commit(url, repo, {"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "0" * 64, "size": 1}}),
        commit(url, repo, {"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "../../secret"}}),
        commit(url, repo, {"key": "deletedFile", "value": {"path": "absent"}}),
        commit(url, repo, put("f"), put("f/below")),
        httpx.post(f"{url}/api/models/{repo}/commit/main", content=b"\xff\xfe{"),
        httpx.post(f"{url}/api/models/{repo}/commit/main", content=b"[" * 100_000),
    ]
    assert all(400 <= response.status_code < 500 for response in bad), [response.status_code for response in bad]
    assert HfApi(url, token=TOKEN).model_info(repo).sha == before


def upload_link(url: str, repo: str, oid: str, size: int) -> str:
    body = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": size}],
        "hash_algo": "sha256",
    }
    answer = httpx.post(f"{url}/{repo}.git/info/lfs/objects/batch", json=body).json()
    return answer["objects"][0]["actions"]["upload"]["href"]


@pytest.mark.parametrize("size", [100, 300_000])
def test_bad_uploads_are_refused(url: str, repo: str, folder: Path, size: int) -> None:
    content = uuid.uuid4().bytes * (size // 16) + b"x" * (size % 16)
    oid = hashlib.sha256(content).hexdigest()
    link = upload_link(url, repo, oid, size)
    assert httpx.put(link, content=b"y" * size).status_code == 400
    assert httpx.put(link, content=content[:-1]).status_code == 400
    assert httpx.put(link, content=iter([content, b"more"])).status_code in (400, 413)
    assert httpx.put(link.replace("signature=", "signature=0"), content=content).status_code == 403
    assert httpx.put(link.replace(f"size={size}", f"size={size + 1}"), content=content + b"y").status_code == 403
    assert httpx.put(link.replace(oid, "0" * 64), content=content).status_code == 403
    reference = {"key": "lfsFile", "value": {"path": "l.bin", "algo": "sha256", "oid": oid, "size": size}}
    assert commit(url, repo, reference).status_code == 400
    assert not list((folder / "root" / "incoming").iterdir())
    assert httpx.put(link, content=content).status_code == 200
    assert commit(url, repo, reference).status_code == 200


@pytest.mark.parametrize("name", ["..", "a/b/c", ".hidden", "a--b", "x.git", "a b", "x" * 97, "resolve"])
def test_bad_repository_names_are_refused(url: str, name: str) -> None:
    assert httpx.post(f"{url}/api/repos/create", json={"name": name, "type": "model"}).status_code == 400


@pytest.mark.parametrize("name", ["../x", "a..b", "refs/heads/x", "x.lock", "-x", "a b", "0" * 40, "x" * 300])
def test_bad_tag_names_are_refused(url: str, repo: str, name: str) -> None:
    assert httpx.post(f"{url}/api/models/{repo}/tag/main", json={"tag": name}).status_code == 400


def test_web_pages_cannot_reach_a_server_without_a_token(url: str, repo: str) -> None:
    assert httpx.get(f"{url}/api/models", headers={"Host": "evil.example"}).status_code == 403
    create = {"name": "planted", "type": "model"}
    response = httpx.post(f"{url}/api/repos/create", json=create, headers={"Origin": "https://evil.example"})
    assert response.status_code == 403
    page = commit(url, repo, put("index.html", b"<script>1</script>"))
    assert page.status_code == 200
    served = httpx.get(f"{url}/{repo}/resolve/main/index.html")
    assert served.headers["content-type"].startswith("text/plain")
    assert "sandbox" in served.headers["content-security-policy"]


def test_a_card_that_cannot_be_sent_spoils_no_listing(url: str, repo: str) -> None:
    """A commit brings none as a regular file; as a large one nobody has looked at it."""
    headers = ['tags: ["\\ud800"]', '"\\ud800": 1', "x: 0x" + "f" * 6000, "a: *a", "license: [", "tags: {a: 1}"]
    for header in (*headers, "x: !!bool foo", "tags: 5"):
        card = f"---\n{header}\n---\n".encode()
        refused = commit(url, repo, put("README.md", card))
        assert (refused.status_code, "Invalid metadata in README.md" in refused.text) == (400, True)
        assert commit(url, repo, lfs(url, repo, "README.md", card)).status_code == 200
        assert repo in [found.id for found in HfApi(url).list_models(full=True, cardData=True)]
        assert httpx.get(f"{url}/").status_code == 200


def lfs(url: str, repo: str, path: str, content: bytes) -> dict[str, object]:
    """The line of a commit for a large file, uploaded."""
    oid = hashlib.sha256(content).hexdigest()
    assert httpx.put(upload_link(url, repo, oid, len(content)), content=content).status_code == 200
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": len(content)}}


def test_lost_rules_of_a_repository_do_not_lock_it(url: str) -> None:
    """Also the upload that would bring them again asks first."""
    api = HfApi(url, token=TOKEN)
    repo = api.create_repo(f"local/r-{uuid.uuid4().hex[:6]}").repo_id
    rules = [lfs(url, repo, name, f"# {name}".encode()) for name in (".gitattributes", ".gitignore")]
    assert commit(url, repo, *rules).status_code == 200
    api.permanently_delete_lfs_files(repo, list(api.list_lfs_files(repo)), rewrite_history=False)
    assert httpx.get(f"{url}/{repo}/resolve/main/.gitattributes").status_code == 410
    for name in (".gitattributes", ".gitignore"):
        api.upload_file(path_or_fileobj=b"*.x", path_in_repo=name, repo_id=repo)
    assert httpx.get(f"{url}/{repo}/resolve/main/.gitignore").content == b"*.x"


def test_a_page_of_a_listing_has_so_many_bytes(url: str) -> None:
    api = HfApi(url, token=TOKEN)
    first = api.create_repo("local/long-0").repo_id
    card = b"---\nx: " + b"x" * 120_000 + b"\n---\n"
    assert commit(url, first, put("README.md", card)).status_code == 200
    names = {first, *(api.duplicate_repo(first, f"local/long-{number}").repo_id for number in range(1, 75))}
    page = httpx.get(f"{url}/api/models?search=long-&cardData=true")
    assert (len(page.content) < MAX_PAGE_BYTES + len(card) + 2000, "next" in page.links) == (True, True)
    assert {found.id for found in api.list_models(search="long-", cardData=True)} == names


def test_a_discussion_has_so_much_text(url: str, repo: str) -> None:
    api = HfApi(url, token=TOKEN)
    api.create_discussion(repo, "Title")
    with pytest.raises(HfHubHTTPError, match="too long; open another") as refused:
        for _ in range(9):
            comment = api.comment_discussion(repo, 1, "\u00e9" * 60_000)
    assert refused.value.response.status_code == 422
    with pytest.raises(HfHubHTTPError, match="too long"):
        api.edit_discussion_comment(repo, 1, comment.id, "\u00e9" * 60_000)
    api.change_discussion_status(repo, 1, "closed")


def test_one_of_many_moves_at_once_is_made(url: str) -> None:
    HfApi(url, token=TOKEN).create_repo("local/moving")

    def move(number: int) -> int:
        body = {"fromRepo": "local/moving", "toRepo": f"local/moving-{number}", "type": "model"}
        return httpx.post(f"{url}/api/repos/move", json=body, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(move, range(8))) == [200] + [400] * 7
