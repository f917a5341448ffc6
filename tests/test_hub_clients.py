"""What clients do beyond commits and downloads: pull requests, collections, copies between repositories, uploads in
parts, metadata of models. Each by the unmodified client where it has a call for it."""

import json
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hub_process import running
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.lfs import _upload_multi_part
from test_hub_accounts import TOKENS, write_accounts

from erpd_hub.hub import sessions
from erpd_hub.hub.server.routes_multipart import action, part_bytes
from erpd_hub.hub.server.safetensors import MAX_COUNTED_BYTES
from erpd_hub.hub.server.signing import Signer, Upload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder, "--accounts", str(write_accounts(folder))) as url:
        yield url


@pytest.fixture(scope="module")
def ada(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["ada"])


@pytest.fixture(scope="module")
def eve(url: str) -> HfApi:
    return HfApi(url, token=TOKENS["eve"])


@pytest.fixture
def repo(ada: HfApi) -> str:
    return ada.create_repo(f"ada/m-{uuid.uuid4().hex[:8]}").repo_id


def add(api: HfApi, repo: str, files: dict[str, bytes], **options: object) -> object:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="Some change", **options)


def content(api: HfApi, repo: str, path: str, revision: str = "main", kind: str = "") -> bytes:
    headers = {"Authorization": f"Bearer {api.token}"}
    return httpx.get(
        f"{api.endpoint}/{kind}{repo}/resolve/{revision.replace('/', '%2F')}/{path}", headers=headers
    ).content


def test_a_stranger_proposes_and_the_owner_merges(ada: HfApi, eve: HfApi, repo: str) -> None:
    add(ada, repo, {name: b"1" for name in ("kept.txt", "changed.txt", "gone.txt", "gone-on-both.txt")})
    with pytest.raises(HfHubHTTPError):
        add(eve, repo, {"changed.txt": b"2"})
    made = add(eve, repo, {"changed.txt": b"2", "new.bin": b"\0new"}, create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    for name in ("gone.txt", "gone-on-both.txt"):
        eve.delete_file(name, repo, revision="refs/pr/1")
    ada.delete_file("gone-on-both.txt", repo)
    add(ada, repo, {"kept.txt": b"2"})
    assert content(ada, repo, "changed.txt") == b"1"
    assert content(ada, repo, "changed.txt", "refs/pr/1") == b"2"
    with pytest.raises(HfHubHTTPError):
        eve.merge_pull_request(repo, 1)
    assert ada.get_discussion_details(repo, 1).conflicting_files == []
    ada.merge_pull_request(repo, 1)
    merged = ada.get_discussion_details(repo, 1)
    assert (merged.status, merged.author, merged.target_branch) == ("merged", "eve", "refs/heads/main")
    assert merged.merge_commit_oid == ada.model_info(repo).sha
    assert sorted(ada.list_repo_files(repo)) == [".gitattributes", "changed.txt", "kept.txt", "new.bin"]
    assert (content(ada, repo, "kept.txt"), content(ada, repo, "changed.txt")) == (b"2", b"2")
    assert [ref.ref for ref in ada.list_repo_refs(repo, include_pull_requests=True).pull_requests] == ["refs/pr/1"]
    with pytest.raises(HfHubHTTPError, match="merged; open another"):
        add(eve, repo, {"late.txt": b"1"}, revision="refs/pr/1")


def test_a_closed_pull_request_is_not_merged(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"a": b"1"}, create_pr=True)
    ada.change_discussion_status(repo, 1, "closed")
    with pytest.raises(HfHubHTTPError, match="neither merged nor closed"):
        ada.merge_pull_request(repo, 1)
    ada.change_discussion_status(repo, 1, "open")
    ada.merge_pull_request(repo, 1)
    assert content(ada, repo, "a") == b"1"


def test_conflicting_changes_are_named_and_not_merged(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"a.txt": b"1", "b.txt": b"1"})
    add(ada, repo, {"a.txt": b"2", "b.txt": b"2"}, create_pr=True)
    add(ada, repo, {"a.txt": b"3", "b.txt": b"2"})
    assert ada.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match="conflicts"):
        ada.merge_pull_request(repo, 1)
    assert content(ada, repo, "a.txt") == b"3"
    add(ada, repo, {"x": b"1", "y/z": b"1"}, create_pr=True)
    add(ada, repo, {"x/deep/file": b"1", "y": b"1"})
    assert ada.get_discussion_details(repo, 2).conflicting_files == ["x", "y/z"]
    with pytest.raises(HfHubHTTPError, match="conflicts"):
        ada.merge_pull_request(repo, 2)


def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"a/b": b"1", "c": b"1"})
    changes = [CommitOperationDelete("a/b"), CommitOperationAdd("a", b"2")]
    changes += [CommitOperationDelete("c"), CommitOperationAdd("c/d", b"2")]
    ada.create_commit(repo, changes, commit_message="swap", create_pr=True)
    assert ada.get_discussion_details(repo, 1).conflicting_files == []
    ada.merge_pull_request(repo, 1)
    assert sorted(ada.list_repo_files(repo)) == [".gitattributes", "a", "c/d"]


def test_a_pull_request_whose_branch_is_gone_is_read_and_closed(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"a": b"1"}, create_pr=True)
    ada.super_squash_history(repo)
    ada.create_branch(repo, branch="dev")
    add(ada, repo, {"a": b"1"}, revision="dev", create_pr=True)
    ada.delete_branch(repo, branch="dev")
    for number in (1, 2):
        assert ada.get_discussion_details(repo, number).conflicting_files is True
        ada.change_discussion_status(repo, number, "closed")


def test_pull_requests_are_against_branches(ada: HfApi, repo: str) -> None:
    ada.create_branch(repo, branch="dev")
    assert add(ada, repo, {"a": b"1"}, revision="dev", create_pr=True).pr_num == 1
    assert ada.get_discussion_details(repo, 1).target_branch == "refs/heads/dev"
    for revision in (ada.model_info(repo).sha, "absent"):
        with pytest.raises(RevisionNotFoundError):
            add(ada, repo, {"a": b"1"}, revision=revision, create_pr=True)
    with pytest.raises(RevisionNotFoundError):
        add(ada, repo, {"a": b"1"}, revision=f"refs/pr/{10**20}")


def test_only_authors_and_owners_change_a_discussion(ada: HfApi, eve: HfApi, repo: str) -> None:
    made = ada.create_discussion(repo, " A question ", description="text")
    assert (made.title, made.num, made.is_pull_request, made.events[0].content) == ("A question", 1, False, "text")
    comment = eve.comment_discussion(repo, 1, "an answer")
    eve.edit_discussion_comment(repo, 1, comment.id, "edited")
    for change in (
        lambda: ada.edit_discussion_comment(repo, 1, comment.id, "what she never said"),
        lambda: eve.change_discussion_status(repo, 1, "closed"),
        lambda: eve.rename_discussion(repo, 1, "Another"),
        lambda: eve.edit_discussion_comment(repo, 1, made.events[0].id, "mine"),
    ):
        with pytest.raises(HfHubHTTPError):
            change()
    assert ada.get_discussion_details(repo, 1).events[1].content == "edited"
    ada.hide_discussion_comment(repo, 1, comment.id)
    with pytest.raises(HfHubHTTPError, match="hidden"):
        eve.edit_discussion_comment(repo, 1, comment.id, "back")
    ada.change_discussion_status(repo, 1, "closed")
    assert not list(ada.get_repo_discussions(repo, discussion_status="open"))
    assert [row.num for row in eve.get_repo_discussions(repo, author="ada", discussion_type="discussion")] == [1]


def test_a_collection_lists_what_its_reader_may_see(ada: HfApi, eve: HfApi, repo: str) -> None:
    private = ada.create_repo(f"ada/d-{uuid.uuid4().hex[:8]}", repo_type="dataset", private=True).repo_id
    slug = ada.create_collection("Älteste Läufe!", namespace="ada", description="d").slug
    ada.add_collection_item(slug, private, "dataset")
    ada.add_collection_item(slug, repo, "model", note="first")
    items = ada.get_collection(slug).items
    assert [(item.item_id, item.item_type, item.note) for item in items] == [
        (private, "dataset", None), (repo, "model", "first")
    ]  # fmt: skip
    assert [item.item_id for item in eve.get_collection(slug).items] == [repo]
    with pytest.raises(HfHubHTTPError, match="has this item already"):
        ada.add_collection_item(slug, repo, "model")
    hidden = ada.create_collection("Hidden", namespace="ada", private=True).slug
    (*_, listed) = ada.add_collection_item(slug, hidden, "collection").items
    assert (listed.item_id, listed.item_type) == (hidden, "collection")
    assert [item.item_id for item in eve.get_collection(slug).items] == [repo]
    assert {found.slug for found in ada.list_collections(owner="ada")} == {slug, hidden}
    ada.update_collection_item(slug, items[1].item_object_id, position=0)
    ada.move_repo(repo, f"{repo}-moved")
    assert [item.item_id for item in ada.get_collection(slug).items] == [f"{repo}-moved", private, hidden]
    ada.delete_repo(f"{repo}-moved")
    assert [found.slug for found in eve.list_collections(owner="ada")] == [slug]
    changed = ada.update_collection_metadata(slug, title="Runs", private=True)
    assert changed.slug.startswith("ada/runs-") and ada.get_collection(slug).title == "Runs"
    with pytest.raises(HfHubHTTPError, match="Collection not found"):
        eve.get_collection(slug)
    ada.delete_collection(slug)
    ada.delete_collection(slug, missing_ok=True)


def test_a_collection_is_changed_by_its_owner_alone(ada: HfApi, eve: HfApi, repo: str) -> None:
    slug = ada.create_collection("Hers", namespace="ada").slug
    (item,) = ada.add_collection_item(slug, repo, "model").items
    own = eve.create_repo(f"eve/m-{uuid.uuid4().hex[:8]}").repo_id
    for change in (
        lambda: eve.create_collection("Not hers", namespace="ada"),
        lambda: eve.add_collection_item(slug, own, "model"),
        lambda: eve.update_collection_item(slug, item.item_object_id, note="changed"),
        lambda: eve.delete_collection_item(slug, item.item_object_id),
        lambda: eve.update_collection_metadata(slug, title="changed"),
        lambda: eve.delete_collection(slug),
    ):
        with pytest.raises(HfHubHTTPError, match="don't have the rights"):
            change()
    ada.delete_collection(slug)


def test_a_duplicate_has_the_history_and_stands_alone(ada: HfApi, eve: HfApi, repo: str) -> None:
    add(ada, repo, {"a.txt": b"1", "big.bin": b"\0big"})
    ada.create_tag(repo, tag="v1")
    headers = {"Authorization": f"Bearer {eve.token}"}
    body = {"repository": f"eve/{repo.split('/')[1]}"}
    assert httpx.post(f"{ada.endpoint}/api/models/{repo}/duplicate", headers=headers, json=body).status_code == 200
    assert httpx.post(f"{ada.endpoint}/api/models/{repo}/duplicate", headers=headers, json=body).status_code == 409
    copy = body["repository"]
    assert [commit.commit_id for commit in eve.list_repo_commits(copy)] == [
        commit.commit_id for commit in ada.list_repo_commits(repo)
    ]
    ada.delete_repo(repo)
    assert content(eve, copy, "big.bin", "v1") == b"\0big"
    add(eve, copy, {"again.bin": b"\0big"})


def test_large_files_are_copied_between_repositories(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"a.bin": b"\0large", "a.txt": b"small"})
    target = ada.create_repo(f"ada/d-{uuid.uuid4().hex[:8]}", repo_type="dataset").repo_id
    copies = [
        CommitOperationCopy(path, f"copied/{path}", src_repo_id=repo, src_repo_type="model")
        for path in ("a.bin", "a.txt")
    ]
    ada.create_commit(target, copies, commit_message="copy", repo_type="dataset")
    assert content(ada, target, "copied/a.bin", kind="datasets/") == b"\0large"
    assert content(ada, target, "copied/a.txt", kind="datasets/") == b"small"


def test_deleting_large_files_rewrites_history(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"dir/a.bin": b"\0one", "a.txt": b"1"})
    ada.create_tag(repo, tag="v1")
    add(ada, repo, {"b.bin": b"\0two"})
    files = {file.filename: file for file in ada.list_lfs_files(repo)}
    assert {name: file.ref for name, file in files.items()} == {
        "dir/a.bin": "refs/heads/main",
        "b.bin": "refs/heads/main",
    }
    ada.permanently_delete_lfs_files(repo, [files["dir/a.bin"]])
    assert sorted(ada.list_repo_files(repo)) == [".gitattributes", "a.txt", "b.bin"]
    assert sorted(ada.list_repo_files(repo, revision="v1")) == [".gitattributes", "a.txt"]
    assert not [entry for entry in ada.list_repo_tree(repo) if entry.path == "dir"], "nothing is left in it"
    assert [commit.title for commit in ada.list_repo_commits(repo)] == ["Some change", "Some change", "initial commit"]
    assert content(ada, repo, "b.bin") == b"\0two"


def test_deleting_large_files_leaves_commits_that_nothing_refers_to(ada: HfApi, repo: str) -> None:
    """Lineage names commits by their id, whatever became of the branch."""
    ada.create_branch(repo, branch="side")
    left = ada.create_commit(repo, [CommitOperationAdd("left.txt", b"1")], commit_message="left", revision="side").oid
    ada.delete_branch(repo, branch="side")
    add(ada, repo, {"a.bin": b"\0one"})
    (file,) = ada.list_lfs_files(repo)
    ada.permanently_delete_lfs_files(repo, [file])
    assert "left.txt" in ada.list_repo_files(repo, revision=left)


def test_a_very_large_file_arrives_in_parts(ada: HfApi, url: str, folder: Path, repo: str) -> None:
    size = 2 << 30
    oid = "e" * 64
    batch = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [{"oid": oid, "size": size}]}
    headers = {"Authorization": f"Bearer {ada.token}"}
    answer = httpx.post(f"{url}/{repo}.git/info/lfs/objects/batch", json=batch, headers=headers).json()
    upload = answer["objects"][0]["actions"]["upload"]
    assert answer["transfer"] == "multipart"
    assert len(upload["header"]) - 1 == -(-size // part_bytes(size))

    data = bytes(range(256)) * 1000
    add_it = CommitOperationAdd("parts.bin", data)
    oid = add_it.upload_info.sha256.hex()
    query = Signer(folder / "root").query(Upload(1, "ada", oid, len(data)))
    offer = action(url, oid, len(data), query)
    with pytest.raises(HfHubHTTPError):  # completing comes last
        _upload_multi_part(add_it, {"chunk_size": str(len(data)), "1": f"{url}/lfs-upload/{oid}/4?{query}"},
                           len(data), offer["href"])  # fmt: skip
    assert httpx.post(offer["href"], json={}).status_code == 400
    _upload_multi_part(add_it, offer["header"], int(offer["header"]["chunk_size"]), offer["href"])
    line = {"key": "lfsFile", "value": {"path": "parts.bin", "algo": "sha256", "oid": oid, "size": len(data)}}
    body = "\n".join(map(json.dumps, [{"key": "header", "value": {"summary": "s"}}, line]))
    assert httpx.post(f"{url}/api/models/{repo}/commit/main", content=body, headers=headers).status_code == 200
    assert content(ada, repo, "parts.bin") == data
    assert not list((folder / "root" / "parts").iterdir())
    altered = offer["href"].replace(f"size={len(data)}", f"size={len(data) + 1}")
    assert httpx.post(altered, json={}).status_code == 403


def safetensors(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    header = json.dumps({n: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for n, (d, s) in tensors.items()}).encode()
    return struct.pack("<Q", len(header)) + header


def test_headers_of_a_sharded_model_come_in_one_answer(ada: HfApi, url: str, repo: str) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    shards = {"1.safetensors": safetensors({"a": ("F32", [2, 3])}), "2.safetensors": safetensors({"b": ("BF16", [4])})}
    add(ada, repo, {"model.safetensors.index.json": json.dumps(index).encode(), **shards})
    answer = httpx.get(f"{url}/api/models/{repo}/safetensors-metadata/model.safetensors.index.json").json()
    assert answer["index"] == {"metadata": {"total_size": 1}}
    assert answer["headers"]["1.safetensors"]["a"]["shape"] == [2, 3]
    info = ada.model_info(repo, expand=["safetensors"]).safetensors
    assert (info.parameters, info.total) == ({"F32": 6, "BF16": 4}, 10)
    add(ada, repo, {"1.safetensors": struct.pack("<Q", 1 << 60)})
    assert httpx.get(f"{url}/api/models/{repo}/safetensors-metadata/model.safetensors.index.json").status_code == 400
    assert ada.model_info(repo).safetensors is None
    long = json.dumps({"__metadata__": {"x": "x" * MAX_COUNTED_BYTES[0]}, "a": {"dtype": "F32", "shape": [1]}}).encode()
    for length, total in ((len(long), None), (0, 6)):
        one = struct.pack("<Q", length) + long if length else safetensors({"a": ("F32", [2, 3])})
        add(ada, repo, {"model.safetensors": one})
        found = ada.model_info(repo).safetensors
        assert (found and found.total) == total


def test_evaluation_results_and_their_leaderboard(ada: HfApi, repo: str) -> None:
    benchmark = ada.create_repo(f"ada/bench-{uuid.uuid4().hex[:8]}", repo_type="dataset").repo_id
    result = f"- dataset: {{id: {benchmark}, task_id: default}}\n  value: 0.5\n  notes: pass@1\n"
    odd = ("true", "text", "!!bool foo", "!!int ''", '!!float ""', "!!timestamp foo", '!!float "' + "1:" * 999 + '1"')
    files = {f"{number}.yaml": result.replace("0.5", value) for number, value in enumerate(odd)}
    files |= {"a.yaml": result, "b.yaml": "- {value: 1}"}
    add(ada, repo, {f".eval_results/{name}": text.encode() for name, text in files.items()})
    *_, entry = ada.model_info(repo, expand=["evalResults"]).eval_results
    assert (entry.dataset_id, entry.task_id, entry.value, entry.notes) == (benchmark, "default", 0.5, "pass@1")
    (row,) = ada.get_dataset_leaderboard(benchmark)
    assert (row.rank, row.model_id, row.value, row.notes) == (1, repo, 0.5, "pass@1")
    with pytest.raises(HfHubHTTPError, match="expand"):
        ada.model_info(repo, expand=["nonsense"])


def test_ignored_files_stay_behind(ada: HfApi, repo: str, tmp_path: Path) -> None:
    for name in ("keep.txt", "skip.log", "out/deep/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("# comment\n*.log\nout/\n")
    ada.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert sorted(ada.list_repo_files(repo)) == [".gitattributes", ".gitignore", "keep.txt"]


def test_the_pipelines_requests_have_an_end() -> None:
    """It builds on `default_client_factory`, which huggingface_hub does not publish."""
    sessions.bound_silence()
    asked = httpx.Request("GET", "http://x", extensions={"timeout": {"read": None}})
    for hook in get_session().event_hooks["request"]:
        hook(asked)
    assert asked.extensions["timeout"]["read"] == sessions.longest_silence()


def test_a_new_space_says_how_it_runs(ada: HfApi) -> None:
    space = ada.create_repo(f"ada/s-{uuid.uuid4().hex[:8]}", repo_type="space", space_sdk="gradio").repo_id
    assert ada.space_info(space).card_data.sdk == "gradio"
    assert [found.id for found in ada.list_spaces(author="ada", filter="none")] == []


def test_errors_carry_the_clients_request_id(ada: HfApi) -> None:
    answer = httpx.get(f"{ada.endpoint}/api/models/ada/absent", headers={"X-Request-Id": "one-2"})
    assert (answer.headers["x-request-id"], answer.headers["x-error-code"]) == ("one-2", "RepoNotFound")
    assert len(httpx.get(f"{ada.endpoint}/api/models", headers={"X-Request-Id": "a b"}).headers["x-request-id"]) == 32


def test_a_long_readme_has_the_tags_of_its_header(ada: HfApi, repo: str) -> None:
    add(ada, repo, {"README.md": b"---\nlicense: mit\n---\n" + b"word " * 300_000})
    assert "license:mit" in ada.model_info(repo).tags
    assert [found.id for found in ada.list_models(author="ada", filter="license:mit")] == [repo]


def test_a_card_of_wrong_types_is_refused(ada: HfApi, repo: str) -> None:
    for header in ("model-index: foo", "tags: {a: 1}", "license: 3", "license: asdf"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            add(ada, repo, {"README.md": f"\n---\n{header}\n---\n".encode()})
    assert "README.md" not in ada.list_repo_files(repo)
    body = {"repoType": "model", "content": "---\nlicense: asdf\n---\n"}
    answer = httpx.post(f"{ada.endpoint}/api/validate-yaml", json=body, headers={"Accept": "text/plain"})
    assert answer.text.startswith('- Error: "license" must be one of [afl-3.0, agpl-3.0,')
