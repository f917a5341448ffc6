"""The embedded Hub, spoken to by the unmodified huggingface_hub client over loopback."""

import io
import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hub_process import TOKEN, content_id, running
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get

LARGE = os.urandom(3_000_000)
CARD = b"---\nlicense: mit\nlanguage: en\ntags: [erpd, 'erpd-stage:teacher']\nbase_model: local/base\n---\n# Card\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("hub")) as url:
        yield url


@pytest.fixture(scope="module")
def api(url: str) -> HfApi:
    return HfApi(url, token=TOKEN)


@pytest.fixture
def repo(api: HfApi) -> str:
    """A fresh model repository."""
    return api.create_repo(f"local/m-{uuid.uuid4().hex[:8]}").repo_id


def add(api: HfApi, repo: str, files: dict[str, bytes], **options: str) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="add", **options).oid


def test_whoami_names_the_local_user(api: HfApi) -> None:
    assert api.whoami()["name"] == "local"
    assert api.create_repo("unqualified", exist_ok=True).repo_id == "local/unqualified"


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_repositories_of_each_kind_live_apart(api: HfApi, kind: str) -> None:
    name = f"team/same-{uuid.uuid4().hex[:6]}"
    sdk = {"space_sdk": "gradio"} if kind == "space" else {}
    assert api.create_repo(name, repo_type=kind, private=True, **sdk).repo_type == kind
    info = api.repo_info(name, repo_type=kind)
    assert (info.id, info.author, info.private) == (name, "team", True)
    others = {"model", "dataset", "space"} - {kind}
    assert not any(api.repo_exists(name, repo_type=other) for other in others)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=name, repo_type=kind)
    assert api.file_exists(name, "x.txt", repo_type=kind)
    assert name in [found.id for found in getattr(api, f"list_{kind}s")(author="team")]
    api.delete_repo(name, repo_type=kind)
    assert not api.repo_exists(name, repo_type=kind)


def test_creating_twice_is_a_conflict_unless_allowed(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(repo)
    assert error.value.response.status_code == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    assert api.create_repo(repo.upper().replace("LOCAL", "local"), exist_ok=True).repo_id == repo


def test_a_commit_shows_up_everywhere(api: HfApi, repo: str, tmp_path: Path) -> None:
    files = {"README.md": CARD, "a/b/large.safetensors": LARGE, "a/small.json": b"{}", "empty.bin": b""}
    oid = add(api, repo, files)
    info = api.model_info(repo, files_metadata=True)
    assert info.sha == oid
    by_name = {sibling.rfilename: sibling for sibling in info.siblings}
    assert set(by_name) == {*files, ".gitattributes"}
    assert by_name["a/b/large.safetensors"].lfs.sha256 == content_id(LARGE, lfs=True)
    assert by_name["a/small.json"].blob_id == content_id(b"{}", lfs=False)
    assert {"license:mit", "en", "erpd", "erpd-stage:teacher", "base_model:local/base"} <= set(info.tags)
    assert info.card_data.license == "mit"
    folder = Path(api.snapshot_download(repo, cache_dir=tmp_path))
    assert folder.name == oid
    for path, content in files.items():
        assert (folder / path).read_bytes() == content


def test_object_ids_are_those_of_git(api: HfApi, repo: str, tmp_path: Path) -> None:
    files = {"a.txt": b"1", "a/b.txt": b"2", "a-b": b"3", "z/y/x": b"4"}
    files[".gitattributes"] = b"\n"
    add(api, repo, files)
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    rows = subprocess.run(["git", "ls-tree", "-rt", tree.strip()], cwd=tmp_path, capture_output=True, text=True).stdout
    expected = {line.split("\t")[1]: line.split()[2] for line in rows.splitlines()}
    listed = {
        row.path: getattr(row, "blob_id", None) or row.tree_id for row in api.list_repo_tree(repo, recursive=True)
    }
    assert listed == expected


def test_tree_listings(api: HfApi, repo: str) -> None:
    first = add(api, repo, {"d/one.txt": b"1", "d/e/two.txt": b"2"})
    second = add(api, repo, {"d/e/two.txt": b"22"})
    assert {row.path for row in api.list_repo_tree(repo, "d")} == {"d/one.txt", "d/e"}
    expanded = {row.path: row.last_commit.oid for row in api.list_repo_tree(repo, "d", recursive=True, expand=True)}
    assert expanded == {"d/one.txt": first, "d/e": second, "d/e/two.txt": second}
    infos = api.get_paths_info(repo, ["d/e", "d/one.txt", "absent", "../escape"])
    assert {info.path for info in infos} == {"d/e", "d/one.txt"}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "absent"))


def test_long_listings_are_paged(api: HfApi, repo: str) -> None:
    add(api, repo, {f"f/{number:04}.txt": b"x" for number in range(1100)})
    assert sum(1 for _ in api.list_repo_tree(repo, recursive=True)) == 1102
    for number in range(3):
        add(api, repo, {"counter.txt": str(number).encode()})
    response = httpx.get(f"{api.endpoint}/api/models/{repo}/commits/main?limit=2")
    assert len(response.json()) == 2
    assert len(httpx.get(response.links["next"]["url"]).json()) == 2
    assert len(list(api.list_models(author="local", limit=2))) == 2


def test_branches_tags_and_encoded_revisions(api: HfApi, repo: str, tmp_path: Path) -> None:
    first = add(api, repo, {"f.txt": b"1"})
    api.create_branch(repo, branch="dev/x")
    api.create_tag(repo, tag="step-50", revision=first)
    second = add(api, repo, {"f.txt": b"2"}, revision="dev/x")
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "dev/x": second}
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("step-50", first)]
    for revision, content in {
        "main": b"1",
        "dev/x": b"2",
        "refs/heads/dev/x": b"2",
        "step-50": b"1",
        second: b"2",
    }.items():
        path = api.hf_hub_download(repo, "f.txt", revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == content
    assert [commit.commit_id for commit in api.list_repo_commits(repo, revision="dev/x")][:2] == [second, first]
    for refused in (lambda: api.create_tag(repo, tag="step-50"), lambda: api.create_branch(repo, branch="dev/x")):
        with pytest.raises(HfHubHTTPError, match="already exists"):
            refused()
    api.create_tag(repo, tag="step-50", exist_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(repo, branch="main")
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="step-50")
    assert not api.revision_exists(repo, "dev/x")
    with pytest.raises(BadRequestError):
        add(api, repo, {"f.txt": b"3"}, revision=first)


def test_absent_things_raise_the_clients_own_errors(api: HfApi, repo: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("local/absent")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("single-segment")
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("local/absent", "f", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="absent")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "absent", cache_dir=tmp_path)
    assert list(tmp_path.glob("*/.no_exist/*/absent")), "the client cached no absence: X-Repo-Commit is missing"
    with pytest.raises(EntryNotFoundError):
        api.delete_file("absent", repo)
    api.delete_repo("local/absent", missing_ok=True)


def test_unchanged_files_make_no_commit(api: HfApi, repo: str) -> None:
    files = {"r.txt": b"same", "l.safetensors": LARGE}
    assert add(api, repo, files) == add(api, repo, files)


def test_deleting_and_copying(api: HfApi, repo: str) -> None:
    add(api, repo, {"d/a.txt": b"a", "d/b.bin": LARGE, "keep.txt": b"k"})
    copies = [
        CommitOperationCopy(src_path_in_repo="d/b.bin", path_in_repo="copy.bin"),
        CommitOperationCopy(src_path_in_repo="d/a.txt", path_in_repo="copy.txt"),
        CommitOperationDelete("d/"),
    ]
    api.create_commit(repo, copies, commit_message="move")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "keep.txt", "copy.bin", "copy.txt"}
    assert httpx.get(f"{api.endpoint}/{repo}/resolve/main/copy.bin").content == LARGE


def test_a_stale_parent_is_refused(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    add(api, repo, {"a": b"1"}, parent_commit=parent)
    with pytest.raises(HfHubHTTPError) as error:
        add(api, repo, {"a": b"2"}, parent_commit=parent)
    assert error.value.response.status_code == 412


def test_eight_writers_lose_nothing(api: HfApi, repo: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(add, api, repo, {f"{writer}/{n}": b"x"}) for writer in range(8) for n in range(5)]
    oids = {job.result() for job in jobs}
    assert len(oids) == 40
    assert oids < {commit.commit_id for commit in api.list_repo_commits(repo)}
    assert len(api.list_repo_files(repo)) == 41


def test_ranges_and_the_resumed_download(api: HfApi, repo: str) -> None:
    size = len(LARGE)
    add(api, repo, {"l.bin": LARGE})
    url = f"{api.endpoint}/{repo}/resolve/main/l.bin"
    tail = httpx.get(url, headers={"Range": f"bytes={size - 10}-"})
    assert (tail.status_code, tail.content) == (206, LARGE[-10:])
    assert tail.headers["content-range"] == f"bytes {size - 10}-{size - 1}/{size}"
    assert httpx.get(url, headers={"Range": "bytes=-7"}).content == LARGE[-7:]
    assert httpx.get(url, headers={"Range": "bytes=5-9"}).content == LARGE[5:10]
    assert httpx.get(url, headers={"Range": "bytes=9-5"}).status_code == 200
    tag = tail.headers["etag"]
    for known, status in ((tag, 304), (f'"x", W/{tag}', 304), ('"x"', 200)):
        answer = httpx.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, len(answer.content)) == (status, size if status == 200 else 0)
    beyond = httpx.get(url, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    partial = io.BytesIO()
    partial.write(LARGE[:1_000_000])
    http_get(url, partial, resume_size=1_000_000, expected_size=size, tqdm_class=None)
    assert partial.getvalue() == LARGE


def test_a_moved_repository_redirects(api: HfApi, repo: str, tmp_path: Path) -> None:
    add(api, repo, {"f.txt": b"f"})
    api.move_repo(repo, f"{repo}-new")
    assert api.model_info(repo).id == f"{repo}-new"
    assert Path(api.hf_hub_download(repo, "f.txt", cache_dir=tmp_path)).read_bytes() == b"f"
    add(api, repo, {"g.txt": b"g"})
    assert api.file_exists(f"{repo}-new", "g.txt")
    spelt = f"{repo[:-1]}%{ord(repo[-1]):02x}"
    for path in (f"/api/models/{spelt}", f"/{spelt}/resolve/main/f.txt", f"/{spelt}/tree/main"):
        assert httpx.get(api.endpoint + path, follow_redirects=True).status_code == 200
    target = {"target": {"type": "model", "name": repo}, "files": []}
    source = api.create_repo(f"{repo}-source").repo_id
    copied = httpx.post(f"{api.endpoint}/api/models/{source}/lfs-files/duplicate", json=target)
    assert (copied.status_code, copied.json()) == (200, {"failed": []})
    slug = api.create_collection("c", namespace="local").slug
    assert [item.item_id for item in api.add_collection_item(slug, repo, "model").items] == [f"{repo}-new"]
    api.create_repo(repo)
    assert api.model_info(repo).id == repo


def test_settings_squash_and_access(api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True, gated="manual")
    info = api.model_info(repo)
    assert (info.private, info.gated) == (True, "manual")
    api.auth_check(repo)
    add(api, repo, {"f": b"1"})
    api.super_squash_history(repo)
    assert len(api.list_repo_commits(repo)) == 1
    assert api.file_exists(repo, "f")


def test_listings_filter_search_and_sort(api: HfApi) -> None:
    word = uuid.uuid4().hex[:8]
    for number in range(3):
        api.create_repo(f"local/{word}-{number}")
    api.upload_file(path_or_fileobj=io.BytesIO(CARD), path_in_repo="README.md", repo_id=f"local/{word}-0")
    found = list(api.list_models(search=word, sort="last_modified"))
    assert [model.id for model in found] == [f"local/{word}-{number}" for number in (0, 2, 1)]
    assert [model.id for model in api.list_models(search=word, filter=["license:mit", "en"])] == [f"local/{word}-0"]
    full = next(iter(api.list_models(search=word, full=True, cardData=True)))
    assert full.card_data.license == "mit"
    assert {sibling.rfilename for sibling in full.siblings} == {"README.md", ".gitattributes"}
    assert api.model_info(f"local/{word}-0", expand=["sha", "private"]).sha == full.sha


def test_a_broken_card_is_refused_with_its_reason(api: HfApi, repo: str) -> None:
    for header in (b"license: [", b"a: &a [1]\nb: *a", b"- no\n- mapping"):
        with pytest.raises(ValueError, match="metadata"):
            add(api, repo, {"README.md": b"---\n" + header + b"\n---\n"})
    add(api, repo, {"README.md": ModelCard("---\nlicense: mit\nn: .nan\nd: 2026-01-01\n---\n").content.encode()})
    assert api.model_info(repo).card_data.license == "mit"


def test_the_file_system_interface(api: HfApi, repo: str) -> None:
    files = HfFileSystem(endpoint=api.endpoint, token=TOKEN)
    with files.open(f"{repo}/notes/hello.txt", "w") as file:
        file.write("hello")
    assert files.ls(f"{repo}/notes", detail=False) == [f"{repo}/notes/hello.txt"]
    assert files.read_text(f"{repo}/notes/hello.txt") == "hello"


def test_safetensors_metadata_is_read_by_ranges(api: HfApi, repo: str) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    add(api, repo, {"model.safetensors": len(header).to_bytes(8, "little") + header + bytes(8)})
    assert api.get_safetensors_metadata(repo).parameter_count == {"F32": 2}
