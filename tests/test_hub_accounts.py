"""Several accounts on one embedded Hub: who sees, who may change, and what becomes known of tokens."""

import hashlib
import json
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from hub_process import running, start, wait_ready
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from erpd_hub.errors import ConfigError
from erpd_hub.hub.server import app
from erpd_hub.hub.server.accounts_file import read_accounts
from erpd_hub.hub.server.signing import Signer, Upload

TOKENS = {name: f"hf_{name}_s3cret" for name in ("ada", "bob", "eve")}
FILE = f"""
users:
  ada: {{token: {TOKENS["ada"]}, fullname: Ada Lovelace, orgs: [engines, shut]}}
  bob: {{token: {TOKENS["bob"]}, orgs: [engines]}}
  eve: {{token: {TOKENS["eve"]}}}
orgs:
  engines: {{default_visibility: public, fullname: The Engines}}
  shut: {{default_visibility: private}}
"""


def write_accounts(folder: Path, text: str = FILE) -> Path:
    path = folder / "accounts.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder, "--accounts", str(write_accounts(folder))) as url:
        yield url
    for path in [folder / "ready.json", *(folder / "root").glob("*")]:
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


@pytest.fixture(scope="module")
def ada(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["ada"])


@pytest.fixture(scope="module")
def bob(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["bob"])


@pytest.fixture(scope="module")
def eve(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["eve"])


def fresh(namespace: str) -> str:
    return f"{namespace}/r-{uuid.uuid4().hex[:8]}"


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_whoami_says_name_and_organizations(ada: HfApi, url: str) -> None:
    me = ada.whoami()
    assert (me["name"], me["fullname"], me["auth"]["accessToken"]["role"]) == ("ada", "Ada Lovelace", "write")
    assert [(org["name"], org["fullname"]) for org in me["orgs"]] == [("engines", "The Engines"), ("shut", "shut")]
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
        HfApi(url, token="hf_wrong").model_info("ada/any")
    assert httpx.get(f"{url}/api/whoami-v2", headers={"Authorization": f"Basic {TOKENS['ada']}"}).status_code == 401


def test_members_write_and_others_read_only(ada: HfApi, bob: HfApi, eve: HfApi, url: str) -> None:
    repo = ada.create_repo(fresh("engines")).repo_id
    bob.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id=repo)
    assert eve.file_exists(repo, "b.txt")
    changes = [
        lambda: eve.upload_file(path_or_fileobj=b"e", path_in_repo="e.txt", repo_id=repo),
        lambda: eve.create_tag(repo, tag="t"),
        lambda: eve.delete_repo(repo),
        lambda: eve.update_repo_settings(repo, private=True),
        lambda: eve.move_repo(repo, fresh("eve")),
        lambda: eve.super_squash_history(repo),
        lambda: eve.create_repo(fresh("engines")),
        lambda: eve.create_repo(fresh("nobody")),
        lambda: bob.create_repo(fresh("ada")),
        lambda: bob.move_repo(repo, fresh("shut")),
    ]
    for change in changes:
        with pytest.raises(HfHubHTTPError) as error:
            change()
        assert status_of(error) == 403
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(url, token=False).upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    assert status_of(error) == 401
    assert bob.move_repo(repo, target := fresh("bob")) is None
    assert eve.model_info(repo).id == target


def test_an_organization_says_how_visible_new_repositories_are(ada: HfApi, eve: HfApi) -> None:
    shut, opened = fresh("shut"), fresh("shut")
    ada.create_repo(shut)
    ada.create_repo(opened, private=False)
    assert ada.model_info(shut).private
    assert not eve.model_info(opened).private
    assert not ada.model_info(ada.create_repo(fresh("engines")).repo_id).private


def test_a_private_repository_looks_absent_on_every_route(ada: HfApi, eve: HfApi, url: str) -> None:
    """Every route there is: what a stranger is told about a private repository and its former id is, byte for byte,
    what they are told about one that never was."""
    was, private = fresh("ada"), fresh("ada")
    ada.create_repo(was, private=True)
    ada.upload_file(path_or_fileobj=b"s" * 100_000, path_in_repo="f.bin", repo_id=was)
    ada.move_repo(was, private)
    absent = fresh("ada")
    assert len(absent) == len(private)
    paths = [(method, f"/api/models/{{id}}/{word}/main/f.bin".replace("//", "/")) for method, word in app.REPO_ROUTES]
    paths += [(method, f"/api/models/{{id}}/{word}/main") for method, word in app.REPO_ROUTES]
    paths += [("GET", "/api/models/{id}")]
    paths += [(method, f"/{{id}}/{word}/main/f.bin") for method, word in app.CONTENT_ROUTES]
    paths += [("POST", "/{id}.git/info/lfs/objects/batch")]
    words = ("tree", "blob", "commits", "lineage", "media")
    paths += [("GET", "/{id}"), *(("GET", f"/{{id}}/{word}/main/f.bin") for word in words)]
    for token in (TOKENS["eve"], None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=url, headers=headers) as client:
            for method, path in paths:
                told = [_told(client, method, path.format(id=name), name) for name in (private, was, absent)]
                assert told[0] == told[1] == told[2], path
                assert told[0][0] in (400, 401, 403, 404), path


def _told(client: httpx.Client, method: str, path: str, name: str) -> tuple[int, str, dict[str, str]]:
    body = json.dumps({"operation": "upload", "objects": [], "files": [], "name": "x", "tag": "t", "message": "m"})
    response = client.request(method, path, content=None if method in ("GET", "HEAD") else body)
    headers = {key: value for key, value in response.headers.items() if key not in ("date", "x-request-id")}
    assert "location" not in response.headers
    return response.status_code, response.text.replace(name, "ID"), headers


def test_a_private_repository_named_in_a_body_looks_absent_too(ada: HfApi, eve: HfApi) -> None:
    private = ada.create_repo(fresh("ada"), private=True).repo_id
    assert private not in [model.id for model in eve.list_models(author="ada")]
    assert private in [model.id for model in ada.list_models(author="ada")]
    for name in (private, fresh("ada")):
        for ask in (lambda name=name: eve.delete_repo(name), lambda name=name: eve.move_repo(name, fresh("eve"))):
            with pytest.raises(RepositoryNotFoundError):
                ask()
        with pytest.raises(HfHubHTTPError) as error:
            eve.create_repo(name)
        assert status_of(error) == 403
        with pytest.raises(HfHubHTTPError):
            eve.create_repo(name, exist_ok=True)


def test_knowing_a_hash_is_not_having_the_file(ada: HfApi, bob: HfApi, eve: HfApi, url: str) -> None:
    """Eve knows the sha256 of a private file; she can neither commit it by that nor skip its upload."""
    content = uuid.uuid4().bytes * 10_000
    private, shared, own = ada.create_repo(fresh("ada"), private=True).repo_id, fresh("engines"), fresh("eve")
    ada.upload_file(path_or_fileobj=content, path_in_repo="f.bin", repo_id=private)
    eve.create_repo(own)
    assert "actions" in _offer(url, "eve", own, content)
    assert _commit_by_hash(url, "eve", own, content) == 400
    assert not eve.file_exists(own, "f.bin")
    ada.create_repo(shared)
    assert "actions" not in _offer(url, "ada", shared, content), "who may read it need not send it again"
    assert _commit_by_hash(url, "ada", shared, content) == 200
    assert "actions" not in _offer(url, "eve", own, content), "now it is public"
    ada.update_repo_settings(shared, private=True)
    assert "actions" in _offer(url, "eve", own, content)
    assert "actions" not in _offer(url, "bob", shared, content)
    eve.upload_file(path_or_fileobj=content, path_in_repo="f.bin", repo_id=own)
    assert eve.file_exists(own, "f.bin"), "who has the bytes may commit them"


def _headers(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[user]}"}


def _offer(url: str, user: str, repo: str, content: bytes) -> dict[str, object]:
    body = {"operation": "upload", "transfers": ["basic"], "objects": [_object(content)], "hash_algo": "sha256"}
    answer = httpx.post(f"{url}/{repo}.git/info/lfs/objects/batch", json=body, headers=_headers(user))
    return answer.json()["objects"][0]


def _object(content: bytes) -> dict[str, object]:
    return {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _commit_by_hash(url: str, user: str, repo: str, content: bytes) -> int:
    rows = [
        {"key": "header", "value": {"summary": "s", "description": ""}},
        {"key": "lfsFile", "value": {"path": "f.bin", "algo": "sha256", **_object(content)}},
    ]
    body = "\n".join(json.dumps(row) for row in rows)
    return httpx.post(f"{url}/api/models/{repo}/commit/main", content=body, headers=_headers(user)).status_code


def test_an_upload_link_is_for_one_upload_and_for_a_while(ada: HfApi, url: str, folder: Path) -> None:
    content = uuid.uuid4().bytes * 10_000
    repo = ada.create_repo(fresh("ada")).repo_id
    link = _offer(url, "ada", repo, content)["actions"]["upload"]["href"]
    signer = Signer(folder / "root")
    query = httpx.URL(link).params
    upload = Upload(int(query["repo"]), "ada", _object(content)["oid"], len(content))
    expired = f"{link.partition('?')[0]}?{signer.query(upload, lifetime_s=-1)}"
    gone = f"{link.partition('?')[0]}?{signer.query(upload._replace(account='gone'))}"
    forged = [link.replace(f"{name}={query[name]}", f"{name}={value}") for name, value in _FORGED.items()]
    for refused in (expired, gone, *forged):
        assert refused != link
        assert httpx.put(refused, content=content).status_code == 403
    ada.delete_repo(repo)
    assert httpx.put(link, content=content).status_code == 403
    for purpose, owner, status in (("xet", "ada", 404), ("xet", "gone", 401), ("session", "ada", 401)):
        token, _ = signer.token(purpose, owner, 60)
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.post(f"{url}/xet/0/v1/shards", content=b"", headers=headers).status_code == status


def test_little_is_taken_from_a_stranger(ada: HfApi, url: str) -> None:
    repo = ada.create_repo(fresh("ada")).repo_id
    card = {"content": "x" * (2 << 20), "repoType": "model"}
    assert httpx.post(f"{url}/api/validate-yaml", json=card).status_code == 413
    assert httpx.post(f"{url}/api/validate-yaml", json=card, headers=_headers("ada")).status_code == 200
    address = httpx.URL(url)
    for user, status in ((None, b"401"), ("eve", b"403")):
        token = f"Authorization: Bearer {TOKENS[user]}\r\n" if user else ""
        with socket.create_connection((address.host, address.port), timeout=30) as connection:
            start = f"POST /api/models/{repo}/commit/main HTTP/1.1\r\nHost: {address.host}\r\n{token}"
            connection.sendall(f"{start}Content-Length: 1000000\r\n\r\n".encode())
            assert connection.recv(100).split()[1] == status, "before the body"


_FORGED = {"repo": "1", "account": "eve", "size": "1", "expires": "9999999999", "signature": "00"}


def _refusal(tmp_path: Path, *arguments: str) -> str:
    process = start(tmp_path / "root", tmp_path / "ready.json", *arguments)
    assert process.wait(timeout=30) == 2
    return process.stderr.read().decode()


def test_an_open_server_beyond_loopback_is_refused(tmp_path: Path) -> None:
    assert "give --accounts FILE" in _refusal(tmp_path, "--host", "0.0.0.0")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("users: {}", "users: expected at least one user"),
        ("user: {a: {token: hf_s3cret}}", "user: expected one of users, orgs"),
        ("users: {a: {token: hf_s3cret, name: x}}", "users.a: name: expected one of token"),
        ("users: {a: {}}", "users.a.token: expected text"),
        ("users: {a: {token: 12345678}}", "put it in quotes"),
        ("users: {a: {token: 's3cret with blanks'}}", "users.a.token: expected text"),
        ("users: {a: {token: hf_s3cret}, b: {token: hf_s3cret}}", "users.b.token: a has the same"),
        ("users: {a: {token: hf_s3cret, orgs: [x]}}\norgs: {y: {}}", "got x; add it below orgs"),
        ("users: {a: {token: hf_s3cret, orgs: x}}", "users.a.orgs: expected a list"),
        ("users: {a: {token: hf_s3cret}}\norgs: {A: {}}", "users.a: another user or organization has this name"),
        ("users: {api: {token: hf_s3cret}}", "no reserved word, got 'api'"),
        ("users: {a/b: {token: hf_s3cret}}", "got 'a/b'"),
        ("users: {a: {token: hf_s3cret}}\norgs: {y: {default_visibility: hidden}}", "expected public or private"),
        ("users:\n  a: {token: hf_s3cret}\n  a: {token: hf_other}", "line 3: expected each name once, got a twice"),
        ("users: {a: {token: *s3cret}}", "line 1: expected YAML"),
        ("users: {a: {token: hf_s3cret", "line 1: expected YAML"),
        ("- users", "expected a mapping, got list"),
    ],
)
def test_a_wrong_file_is_refused_by_place_and_remedy(tmp_path: Path, text: str, told: str) -> None:
    path = write_accounts(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_accounts(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert told in message
    assert ";" in message
    assert "s3cret" not in message


def test_organizations_may_go_without_a_section(tmp_path: Path) -> None:
    accounts = read_accounts(write_accounts(tmp_path, "users: {a: {token: hf_s3cret, orgs: [x]}, b: {token: hf_t}}"))
    user = accounts.identify("Bearer hf_s3cret")
    assert user is not None
    assert [org.name for org in accounts.orgs_of(user)] == ["x"]
    assert (accounts.may_write(user, "X"), accounts.may_write(user, "b")) == (True, False)
    assert "s3cret" not in repr(accounts)


def test_the_command_line_takes_the_file_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = write_accounts(tmp_path, "users: {a: {}}")
    command = [sys.executable, "-m", "erpd_hub.cli", "hub", "serve", "--root", str(tmp_path / "r"), "--port", "0"]
    refused = subprocess.run([*command, "--accounts", str(path)], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "users.a.token: expected" in refused.stderr
    assert "serving" not in refused.stderr
    nowhere = subprocess.run([*command, "--root", "/proc/none"], capture_output=True, text=True, timeout=60)
    assert (nowhere.returncode, "--root /proc/none: expected a folder to write to" in nowhere.stderr) == (2, True)
    absent = subprocess.run([*command, "--accounts", str(path) + "x"], capture_output=True, text=True, timeout=60)
    assert (absent.returncode, "No such file" in absent.stderr) == (2, True)


def test_a_failure_is_logged_without_token_or_signature(tmp_path: Path) -> None:
    """The server's own failures: its tables are gone."""
    process = start(tmp_path / "root", tmp_path / "ready.json", "--accounts", str(write_accounts(tmp_path)))
    url = wait_ready(process, tmp_path / "ready.json")
    link = f"{url}/lfs-upload/{'0' * 64}?repo=1&account=ada&size=1&expires=9999999999&signature=s1gnature"
    with closing(sqlite3.connect(tmp_path / "root" / "hub.sqlite")) as db, db:
        db.execute("ALTER TABLE repos RENAME TO others")
    failed = httpx.get(f"{url}/api/models/ada/x?token={TOKENS['ada']}", headers=_headers("ada"))
    assert httpx.put(link, content=b"x").status_code == 403
    process.terminate()
    log = process.communicate(timeout=20)[1].decode()
    assert (failed.status_code, failed.json()) == (500, {"error": "Internal server error"})
    assert "no such table" in log
    assert "s3cret" not in log
    assert "s1gnature" not in log


def test_a_file_others_can_read_is_warned_about(tmp_path: Path) -> None:
    path = write_accounts(tmp_path)
    path.chmod(0o644)
    process = start(tmp_path / "root", tmp_path / "ready.json", "--accounts", str(path))
    warning, greeting = (process.stderr.readline().decode() for _ in range(2))
    process.terminate()
    process.wait(timeout=20)
    assert "chmod 600" in warning
    assert "to ada, bob, eve and the organizations engines, shut at http://127.0.0.1:" in greeting
