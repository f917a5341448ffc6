"""`hub push` and `hub pull`: an artifact with its lineage between two embedded Hubs that share no account."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import cli
from huggingface_hub import CommitOperationAdd
from published import as_input, push
from test_hub_server_process import running

from erpd_hub.artifacts import InputRecord, OriginRecord, digest_files, fingerprint_tag
from erpd_hub.errors import ArtifactError, ConfigError, HubError
from erpd_hub.hub.client import Hub, connect
from erpd_hub.hub.retry import with_retries
from erpd_hub.hub.tokens import check_tokens, token_variable
from erpd_hub.lineage import Place, locate, verify
from erpd_hub.moving import Move

PARTS = ("t-r1-base", "questions", "t-r1-prompts", "t-r1-teacher", "t-details")


class Two(NamedTuple):
    """A Hub with an artifact and all it comes from, and an empty one."""

    source: Hub
    target: Hub
    details: Place
    """Of a teacher's saved step, in a folder."""
    teacher: Place


def accounts(folder: Path, user: str, token: str) -> Path:
    path = folder / f"{user}.yaml"
    path.write_text(
        f"users: {{{user}: {{token: {token}, fullname: {user.title()}, orgs: [lab]}}}}\norgs: {{lab: {{}}}}\n"
    )
    return path


@pytest.fixture
def two(tmp_path, monkeypatch) -> Iterator[Two]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        running(tmp_path / "a", "--accounts", str(accounts(tmp_path, "alice", "token-of-alice"))) as here,
        running(tmp_path / "b", "--accounts", str(accounts(tmp_path, "bob", "token-of-bob"))) as there,
    ):
        monkeypatch.setenv(token_variable(here), "token-of-alice")
        monkeypatch.setenv(token_variable(there), "token-of-bob")
        source, target = connect(here), connect(there)
        yield Two(source, target, *_artifacts(source))


def _artifacts(hub: Hub) -> tuple[Place, Place]:
    api = hub.api
    api.create_repo("alice/questions", repo_type="dataset", private=False)
    rows = CommitOperationAdd("rows.jsonl", b'{"problem": "1+1", "answer": "2"}\n')
    sha = api.create_commit("alice/questions", [rows], commit_message="rows", repo_type="dataset").oid
    listed = hub.listed_files("dataset", "alice/questions", sha)
    outside = InputRecord(role="source", kind="external", digest=digest_files(listed), repo_type="dataset",
                          repo_id="alice/questions", revision=sha)  # fmt: skip
    base_sha, base = push(hub, {"model.safetensors": b"base" * 30_000}, stage="base", kind="checkpoint", run="t",
                          repo_type="model", repo_id="alice/t-r1-base")  # fmt: skip
    prompts_sha, prompts = push(hub, {"data/train.parquet": b"rows"}, inputs=[outside], stage="prompts", kind="prompts",
                                run="t", repo_type="dataset", repo_id="alice/t-r1-prompts")  # fmt: skip
    above = [as_input("init", base_sha, base), as_input("prompts", prompts_sha, prompts)]
    weights = {"model.safetensors": b"step" * 30_000}
    step_sha, step = push(hub, weights, inputs=above, stage="teacher", kind="checkpoint", run="t",
                          repo_type="model", repo_id="alice/t-r1-teacher")  # fmt: skip
    for tag in ("step-8", "chosen"):
        hub.tag("model", step.repo_id, tag, step_sha)
    folder = "teacher/addition"
    details_sha, details = push(
        hub, {"data/train.parquet": b"samples"}, inputs=[as_input("checkpoints", step_sha, step)], stage="evaluate",
        kind="details", run="t", repo_type="dataset", repo_id="alice/t-details", folder=folder,
        metrics={"benchmark": "addition"}, config={"checkpoints": ["teacher"], "benchmarks": ["addition"]},
    )  # fmt: skip
    return Place("dataset", details.repo_id, details_sha, folder), Place("model", step.repo_id, step_sha)


def commits(hub: Hub, namespace: str) -> dict[str, int]:
    """Of every repository."""
    return {
        f"{kind}:{repo.id}": len(hub.api.list_repo_commits(repo.id, repo_type=kind))
        for kind, repos in (("model", hub.api.list_models), ("dataset", hub.api.list_datasets))
        for repo in repos(author=namespace)
    }


def test_a_copy_verifies_on_the_other_side_and_a_second_one_changes_nothing(two: Two) -> None:
    move = Move(two.source, two.target, "lab")
    done = list(move.run(two.details))
    assert [item.source.repo_id.split("/")[1] for item in done] == list(PARTS)  # parents first
    assert {item.how for item in done} == {"copied"}
    findings = list(verify(two.target, done[-1].target))
    assert len(findings) == 5
    assert not [problem for finding in findings for problem in finding.problems]
    before = commits(two.target, "lab")
    assert before["model:lab/t-r1-teacher"] == 2  # the Hub's own first one, and the artifact's
    again = list(move.run(two.details))
    assert {item.how for item in again} == {"there"}
    assert [item.target for item in again] == [item.target for item in done]
    assert commits(two.target, "lab") == before


def test_what_is_copied_keeps_identity_tags_and_first_place(two: Two) -> None:
    places = [item.target for item in Move(two.source, two.target, "lab").run(two.details)]
    teacher = next(place for place in places if place.repo_id == "lab/t-r1-teacher")
    here = two.source.lineage("model", two.teacher.repo_id, two.teacher.revision)
    there = two.target.lineage("model", teacher.repo_id, teacher.revision)
    assert (there.digest, there.fingerprint, there.files) == (here.digest, here.fingerprint, here.files)
    assert there.origin == OriginRecord(repo_id="alice/t-r1-teacher", revision=two.teacher.revision)
    for item, before in zip(there.inputs, here.inputs, strict=True):
        assert item.repo_id.startswith("lab/")
        assert two.target.resolve(item.repo_type, item.repo_id, item.revision) == item.revision
        assert item.origin == OriginRecord(repo_id=before.repo_id, revision=before.revision)
    tags = two.target.tags("model", teacher.repo_id)
    assert {name for name, sha in tags.items() if sha == teacher.revision} == {
        "step-8", "chosen", fingerprint_tag(here.fingerprint)
    }  # fmt: skip
    card = two.target.file("model", teacher.repo_id, teacher.revision, "README.md").read_text()
    assert "lab/t-r1-base" in card
    assert "alice" not in card
    assert "127.0.0.1" not in card + there.to_json()
    # A copy of the copy still names the place where it was made.
    back = list(Move(two.target, two.source, "lab").run(teacher))[-1].target
    assert two.source.lineage("model", back.repo_id, back.revision).origin == there.origin


def test_what_was_read_upstream_is_copied_only_where_that_is_named(two: Two) -> None:
    sha, base = push(two.target, {"model.safetensors": b"up"}, stage="base", kind="checkpoint", run="u",
                     repo_type="model", repo_id="bob/u-r1-base")  # fmt: skip
    item = as_input("init", sha, base).model_copy(update={"upstream": True})
    child_sha, child = push(two.source, {"model.safetensors": b"down"}, inputs=[item], stage="teacher",
                            kind="checkpoint", run="u", repo_type="model", repo_id="alice/u-r1-teacher")  # fmt: skip
    place = Place("model", child.repo_id, child_sha)
    (alone,) = Move(two.source, two.target, "lab").run(place)
    assert two.target.lineage("model", "lab/u-r1-teacher", alone.target.revision).inputs == (item,)
    with_upstream = Move(connect(two.source.identity, upstream=two.target.identity), two.source, "lab")
    above, below = with_upstream.run(place)
    (moved,) = two.source.lineage("model", "lab/u-r1-teacher", below.target.revision).inputs
    assert (moved.repo_id, moved.revision, moved.upstream) == ("lab/u-r1-base", above.target.revision, False)
    assert moved.origin == OriginRecord(repo_id="bob/u-r1-base", revision=sha)
    assert not [problem for finding in verify(two.source, below.target) for problem in finding.problems]


def test_private_repositories_stay_private(two: Two) -> None:
    two.source.api.update_repo_settings("alice/t-r1-base", private=False)
    list(Move(two.source, two.target, "bob", public=True).run(two.teacher))
    private = {name: two.target.api.repo_info(f"bob/{name}", repo_type=kind).private for kind, name in
               (("model", "t-r1-base"), ("model", "t-r1-teacher"), ("dataset", "questions"))}  # fmt: skip
    assert private == {"t-r1-base": False, "t-r1-teacher": True, "questions": False}
    list(Move(two.source, two.target, "lab").run(two.teacher))
    assert two.target.api.repo_info("lab/t-r1-base").private


def test_an_interrupted_copy_goes_on_from_there(two: Two) -> None:
    steps = Move(two.source, two.target, "lab").run(two.details)
    assert [next(steps).how for _ in range(2)] == ["copied", "copied"]
    steps.close()
    # A commit whose tags were not made yet, as a kill between the two leaves it.
    kept = [two.target.tags("model", "lab/t-r1-base"), two.target.tags("dataset", "lab/questions")]
    for repo_type, repo_id, tags in (("model", "lab/t-r1-base", kept[0]), ("dataset", "lab/questions", kept[1])):
        for tag in tags:
            two.target.api.delete_tag(repo_id, tag=tag, repo_type=repo_type)
        two.target.forget(repo_type, repo_id)
    before = commits(two.target, "lab")
    done = list(Move(two.source, two.target, "lab").run(two.details))
    assert [item.how for item in done][2:] == ["copied"] * 3
    after = commits(two.target, "lab")
    assert {name: after[name] for name in before} == before
    assert [two.target.tags("model", "lab/t-r1-base"), two.target.tags("dataset", "lab/questions")] == kept
    assert not [problem for finding in verify(two.target, done[-1].target) for problem in finding.problems]


def test_a_copy_killed_at_any_moment_is_finished_by_the_next(two: Two, tmp_path: Path) -> None:
    to = two.target.identity
    command = [sys.executable, "-m", "erpd_hub.cli", "hub", "push", "alice/t-details/teacher/addition",
               "--endpoint", two.source.identity, "--to", to, "--namespace", "lab", "--json"]  # fmt: skip
    for wanted in (1, 3):  # repositories there when it is killed
        process = subprocess.Popen(
            command, cwd="/", env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(commits(two.target, "lab")) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd="/", env=os.environ, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert len(report["parts"]) == 5
    place = locate(two.target, "lab/t-details/teacher/addition")
    assert place.revision == report["artifact"]["revision"]
    assert not [problem for finding in verify(two.target, place) for problem in finding.problems]
    # One commit an artifact; the details' repository has one for its card too.
    assert sorted(commits(two.target, "lab").values()) == [2, 2, 2, 2, 3]


def test_pull_brings_an_artifact_to_the_embedded_hub(two: Two, tmp_path: Path) -> None:
    command = ("hub", "pull", "alice/t-r1-teacher", "--from", two.source.identity)
    planned = cli(*command, "--dry-run", home=tmp_path / "home").stdout
    assert [line.split()[2].split("@")[0] for line in planned.splitlines()] == [f"alice/{name}" for name in PARTS[:4]]
    assert "4 artifacts: 4 copied" in cli(*command, home=tmp_path / "home").stdout
    assert "4 artifacts: 0 copied, 4 already there" in cli(*command, home=tmp_path / "home").stdout
    verified = cli("lineage", "verify", "local/t-r1-teacher", home=tmp_path / "home").stdout
    assert "4 checked, 0 missing or altered" in verified
    assert "copied from alice/t-r1-teacher@" in cli("lineage", "local/t-r1-teacher", home=tmp_path / "home").stdout


def test_a_record_cannot_name_a_folder_outside_its_repository(two: Two) -> None:
    with pytest.raises(ArtifactError, match="expected a folder of the repository"):
        Move(two.source, two.target, "lab").plan(replace(two.teacher, folder="../../etc"))


def test_a_copy_to_itself_or_to_no_namespace_is_refused(two: Two) -> None:
    with pytest.raises(ConfigError, match="expected another Hub or namespace"):
        Move(two.source, two.source, "alice").plan(two.teacher)
    for namespace in ("", "a b", "..", "./x"):
        with pytest.raises(ConfigError):
            Move(two.source, two.target, namespace).plan(two.teacher)


def test_nothing_of_somebody_else_is_overwritten(two: Two) -> None:
    two.target.api.create_repo("lab/t-r1-base")
    two.target.api.upload_file(path_or_fileobj=b"notes", path_in_repo="notes.txt", repo_id="lab/t-r1-base")
    before = commits(two.target, "lab")
    with pytest.raises(ArtifactError, match="lab/t-r1-base: expected none there"):
        list(Move(two.source, two.target, "lab").run(two.teacher))
    assert before.items() <= commits(two.target, "lab").items()


def test_a_missing_parent_is_said_before_anything_is_copied(two: Two) -> None:
    two.source.api.delete_repo("alice/questions", repo_type="dataset")
    with pytest.raises(ArtifactError, match=r"alice/questions@.*nothing was copied"):
        list(Move(two.source, two.target, "lab").run(two.teacher))
    assert commits(two.target, "lab") == {}


def test_a_token_goes_to_its_own_endpoint_only(two: Two, monkeypatch) -> None:
    here, there = two.source.identity, two.target.identity
    monkeypatch.setenv("ERPD_HUB_TOKEN", "token-of-neither")
    check_tokens(here, there)
    assert (connect(here).api.token, connect(there).api.token) == ("token-of-alice", "token-of-bob")
    for url in (here, there):
        monkeypatch.delenv(token_variable(url))
    with pytest.raises(ConfigError, match="one for both; set ERPD_HUB_TOKEN_127_0_0_1_"):
        check_tokens(here, there)
    assert token_variable("https://hub.example.org:8080/x") == "ERPD_HUB_TOKEN_HUB_EXAMPLE_ORG_8080"


def test_an_endpoint_that_says_when_to_come_back_is_heard(monkeypatch) -> None:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    waited: list[float] = []
    monkeypatch.setattr("erpd_hub.hub.retry.time.sleep", waited.append)
    answers = ["30", "1200"]

    def request() -> None:
        response = httpx.Response(
            429, headers={"Retry-After": answers.pop(0)}, request=httpx.Request("POST", "http://x")
        )
        raise HfHubHTTPError("Too Many Requests", response=response)

    with pytest.raises(HubError, match="asks to wait 1200 s"):
        with_retries(request, "x", revive=lambda: None)
    assert waited == [30.0]
