"""`hub push` and `hub pull`: an artifact with its lineage between two embedded Hubs that share no account."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from moving_hubs import PARTS, Two, commits
from published import as_input, push
from typer.testing import CliRunner

from erpd_hub.artifacts import OriginRecord, fingerprint_tag
from erpd_hub.cli import app
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import Place, locate, verify
from erpd_hub.moving import Move


def all_right(hub: Hub, place: Place) -> bool:
    return not [problem for finding in verify(hub, place) for problem in finding.problems]


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
    two.source.tag("model", two.teacher.repo_id, "named-since", two.teacher.revision)
    again = list(move.run(two.details))
    assert {item.how for item in again} == {"there"}
    assert [item.target for item in again] == [item.target for item in done]
    assert two.target.tags("model", "lab/t-r1-teacher")["named-since"] == done[3].target.revision
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
    assert "alice" not in card.replace("copied from alice/", "")
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
    assert all_right(two.source, below.target)
    # Named at last, it takes its place in the copy that was made without it.
    late = list(Move(connect(two.source.identity, upstream=two.target.identity), two.target, "lab").run(place))
    (moved,) = two.target.lineage("model", "lab/u-r1-teacher", late[-1].target.revision).inputs
    assert (moved.repo_id, moved.upstream) == ("lab/u-r1-base", False)


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
    assert all_right(two.target, done[-1].target)


def test_main_of_a_copy_does_not_go_back(two: Two) -> None:
    """The details are of a step that the source's teacher has left behind."""
    step = two.source.lineage("model", two.teacher.repo_id, two.teacher.revision)
    sha, _ = push(two.source, {"model.safetensors": b"last"}, inputs=step.inputs, stage="teacher",
                  kind="checkpoint", run="t", repo_type="model", repo_id=step.repo_id)  # fmt: skip
    final = Place("model", step.repo_id, sha)
    newest = list(Move(two.source, two.target, "lab").run(final))[-1].target
    done = list(Move(two.source, two.target, "lab").run(two.details))
    assert two.target.resolve("model", newest.repo_id) == newest.revision
    older = next(item.target for item in done if item.source == two.teacher)
    assert two.target.lineage("model", older.repo_id, older.revision).digest == step.digest
    assert older.revision in two.target.tags("model", older.repo_id).values()
    assert all_right(two.target, newest)
    assert all_right(two.target, done[-1].target)
    before = commits(two.target, "lab")
    for place in (two.details, final):
        assert {item.how for item in Move(two.source, two.target, "lab").run(place)} == {"there"}
    assert commits(two.target, "lab") == before
    # In the other order main goes on.
    list(Move(two.source, two.target, "bob").run(two.details))
    newer = list(Move(two.source, two.target, "bob").run(final))[-1].target
    assert two.target.resolve("model", newer.repo_id) == newer.revision


def test_what_was_deleted_there_is_copied_again_and_named_by_its_children(two: Two) -> None:
    first = list(Move(two.source, two.target, "lab").run(two.details))
    tags = two.target.tags("model", "lab/t-r1-teacher")
    two.target.api.delete_repo("lab/t-r1-base")
    time.sleep(1)  # a commit's id has whole seconds, as git's: copied again in the same one it would be the same commit
    target = connect(two.target.identity)
    steps = Move(two.source, target, "lab").run(two.details)
    assert [next(steps).how for _ in range(4)] == ["copied", "there", "there", "copied"]
    steps.close()  # between the teacher and its details, which name a commit that is still there
    done = list(Move(two.source, target, "lab").run(two.details))
    assert [item.how for item in done] == ["there"] * 4 + ["copied"]
    assert all_right(target, done[-1].target)
    moved = target.tags("model", "lab/t-r1-teacher")
    assert moved == dict.fromkeys(tags, done[3].target.revision) != tags
    assert {item.how for item in Move(two.source, target, "lab").run(two.details)} == {"there"}
    assert first[0].target != done[0].target


def test_a_copy_killed_twice_is_finished_by_the_next(two: Two, tmp_path: Path) -> None:
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
    assert all_right(two.target, place)
    # One commit an artifact; the details' repository has one for its card too.
    assert sorted(commits(two.target, "lab").values()) == [2, 2, 2, 2, 3]


def test_pull_brings_an_artifact_to_the_embedded_hub(two: Two, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "home"))

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    command = ("hub", "pull", "alice/t-r1-teacher", "--from", two.source.identity)
    planned = said(*command, "--dry-run").splitlines()
    assert [line.split()[2].split("@")[0] for line in planned] == [f"alice/{name}" for name in PARTS[:4]]
    assert "4 artifacts: 4 copied" in said(*command)
    assert "4 artifacts: 0 copied, 4 already there" in said(*command)
    assert "4 checked, 0 missing or altered" in said("lineage", "verify", "local/t-r1-teacher")
    assert "copied from alice/t-r1-teacher@" in said("lineage", "local/t-r1-teacher")
