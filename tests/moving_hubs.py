"""Two embedded Hubs that share no account; on one an artifact and all it comes from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hub_process import running
from huggingface_hub import CommitOperationAdd
from published import as_input, push

from erpd_hub.artifacts import InputRecord, digest_files
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.tokens import token_variable
from erpd_hub.lineage import Place

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


class Hubs(NamedTuple):
    folder: Path
    here: str
    there: str

    def start_over(self, monkeypatch: pytest.MonkeyPatch) -> Two:
        """With no repository of an earlier test, and the artifacts made."""
        monkeypatch.setenv(token_variable(self.here), "token-of-alice")
        monkeypatch.setenv(token_variable(self.there), "token-of-bob")
        source, target = connect(self.here), connect(self.there)
        for hub in (source, target):
            for name in ("alice", "bob", "lab"):
                for kind, repo in (one.split(":") for one in commits(hub, name)):
                    hub.api.delete_repo(repo, repo_type=kind)
        return Two(source, target, *_artifacts(source))


@contextmanager
def two_hubs(folder: Path) -> Iterator[Hubs]:
    for name in ("a", "b"):
        (folder / name).mkdir()
    with (
        running(folder / "a", "--accounts", str(accounts(folder, "alice", "token-of-alice"))) as here,
        running(folder / "b", "--accounts", str(accounts(folder, "bob", "token-of-bob"))) as there,
    ):
        yield Hubs(folder, here, there)


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
