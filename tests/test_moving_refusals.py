"""What a copy from one Hub to another refuses before the first byte, and what it says."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from conftest import cli
from moving_hubs import Hubs, Two, commits
from published import as_input, push

from erpd_hub.artifacts import LINEAGE, OriginRecord
from erpd_hub.errors import ArtifactError, ConfigError, HubError
from erpd_hub.home import cache_folder
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.local import EmbeddedHub
from erpd_hub.hub.retry import with_retries
from erpd_hub.hub.rights import check_may_write
from erpd_hub.hub.tokens import check_tokens, token_variable
from erpd_hub.lineage import Place
from erpd_hub.moving import Move


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
    assert commits(two.target, "lab") == before


def test_an_artifact_of_the_other_sides_own_keeps_its_main(two: Two) -> None:
    """Also one that was copied from somewhere else: runs of the same name make repositories of the same names."""
    own = {"stage": "teacher", "kind": "checkpoint", "run": "t", "repo_type": "model", "repo_id": "lab/t-r1-teacher"}
    sha, record = push(two.target, {"model.safetensors": b"theirs"}, config={"own": 1}, **own)
    for origin in (None, OriginRecord(repo_id="carol/t-r1-teacher", revision="a" * 40)):
        if origin is not None:
            text = record.model_copy(update={"origin": origin}).to_json()
            made = two.target.api.upload_file(
                path_or_fileobj=text.encode(), path_in_repo=LINEAGE, repo_id=record.repo_id
            )
            sha = made.oid
        before = commits(two.target, "lab")
        with pytest.raises(ArtifactError, match="lab/t-r1-teacher: its main is an artifact that did not"):
            list(Move(two.source, two.target, "lab").run(two.teacher))
        assert (commits(two.target, "lab"), two.target.resolve("model", record.repo_id)) == (before, sha)


def test_what_is_private_is_not_copied_into_a_public_repository_unless_that_is_said(two: Two) -> None:
    two.target.api.create_repo("lab/t-r1-teacher", private=False)
    with pytest.raises(
        ConfigError, match="lab/t-r1-teacher: public there, and alice/t-r1-teacher is not; with --public"
    ):
        list(Move(two.source, two.target, "lab").run(two.teacher))
    assert list(commits(two.target, "lab")) == ["model:lab/t-r1-teacher"]
    assert list(Move(two.source, two.target, "lab", public=True).run(two.teacher))[-1].how == "copied"


def test_a_lineage_that_leads_back_to_itself_is_refused(two: Two) -> None:
    """No honest Hub holds one: what another would send is laid into the cache of commits."""
    record = two.source.lineage("model", two.teacher.repo_id, two.teacher.revision)
    loop = replace(two.teacher, repo_id="alice/loop", revision="a" * 40)
    item = as_input("init", loop.revision, record.model_copy(update={"repo_id": loop.repo_id}))
    folder = cache_folder(two.source.identity) / "models--alice--loop" / "snapshots" / loop.revision
    folder.mkdir(parents=True)
    (folder / LINEAGE).write_text(record.model_copy(update={"inputs": (item,)}).to_json())
    with pytest.raises(ArtifactError, match=r"alice/loop@aaaaaaaaaa: its lineage leads back to it; nothing was copied"):
        Move(two.source, two.target, "lab").plan(loop)


def test_a_token_without_the_right_is_named_before_the_first_byte(two: Two, monkeypatch, tmp_path) -> None:
    there, variable = two.target.identity, token_variable(two.target.identity)
    command = ("hub", "push", "alice/t-r1-teacher", "--endpoint", two.source.identity, "--to", there)
    foreign = cli(*command, "--namespace", "alice", "--dry-run", home=tmp_path / "home", expect=2).stderr
    assert f"--namespace: expected bob or an organisation of theirs (lab) on {there}, got 'alice'" in foreign
    monkeypatch.setenv(variable, "token-of-nobody")
    with pytest.raises(HubError, match=f"HTTP 401: .*; check the token in {variable}$"):
        Move(two.source, connect(there), "lab").plan(two.teacher)
    monkeypatch.delenv(variable)
    with pytest.raises(HubError, match=f"HTTP 401: .*; set {variable} to a token of it$"):
        Move(two.source, connect(there), "lab").plan(two.teacher)
    assert commits(two.target, "lab") == {}


class Asked(BaseHTTPRequestHandler):
    """Who is asking, as huggingface.co says it: the embedded Hub has no token that only reads."""

    said: Mapping[str, object]

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.said).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_token_that_only_reads_is_refused() -> None:
    with HTTPServer(("127.0.0.1", 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub = connect(f"http://127.0.0.1:{server.server_port}")
        for namespace, role, in_lab, refused in (
            ("bob", "write", "read", False), ("lab", "write", "read", True), ("lab", "write", "write", False),
            ("bob", "read", "admin", True), ("bob", "fineGrained", "admin", False),
        ):  # fmt: skip
            auth = {"type": "access_token", "accessToken": {"role": role}}
            Asked.said = {"name": "bob", "orgs": [{"name": "lab", "roleInOrg": in_lab}], "auth": auth}
            with pytest.raises(ConfigError, match="got one that only reads") if refused else nullcontext():
                check_may_write(hub, namespace)
        server.shutdown()


def test_a_refusal_is_said_in_the_endpoints_words(two: Two) -> None:
    with pytest.raises(
        HubError, match=r"HTTP 403: You don't have the rights .* alice; the token has no right to do this"
    ):
        two.target.ask(lambda: two.target.api.create_repo("alice/x"))


def test_a_root_that_is_served_with_accounts_is_not_joined(hubs: Hubs) -> None:
    (hubs.folder / "a" / "root" / "server.json").write_text(json.dumps({"url": hubs.here}))
    with EmbeddedHub(hubs.folder / "a" / "root") as hub, pytest.raises(ConfigError, match="served with accounts; name"):
        hub.ensure()


def test_a_missing_parent_is_said_before_anything_is_copied(two: Two) -> None:
    two.source.api.delete_repo("alice/questions", repo_type="dataset")
    with pytest.raises(ArtifactError, match=r"alice/questions@.*nothing was copied"):
        list(Move(two.source, two.target, "lab").run(two.teacher))
    assert commits(two.target, "lab") == {}


def test_what_is_not_what_was_read_is_not_copied(two: Two) -> None:
    (read,) = two.source.lineage("dataset", "alice/t-r1-prompts", "main").inputs
    other = read.model_copy(update={"digest": "0" * 64})
    sha, record = push(two.source, {"data/train.parquet": b"rows"}, inputs=[other], stage="prompts", kind="prompts",
                       run="f", repo_type="dataset", repo_id="alice/f-r1-prompts")  # fmt: skip
    with pytest.raises(ArtifactError, match=r"alice/questions@\w+: altered: its files are not those"):
        list(Move(two.source, two.target, "lab").run(Place("dataset", record.repo_id, sha)))
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
