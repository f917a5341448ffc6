"""The runner's corners: licences, work directories, an upstream, an artifact that was tampered with."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import cli
from published import push_files

from erpd_hub import config as c
from erpd_hub.artifacts import InputRecord
from erpd_hub.errors import HubError
from erpd_hub.hub import retry
from erpd_hub.hub.connecting import connect
from erpd_hub.inputs import ResolvedInput
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.recording import inherited_license


def _prompts(run, **top):
    step = {"type": "generator", "generator": "addition", "count": 8, "decontaminate": []}
    return make_plan(build_recipe({"run": run, "steps": {"prompts": step}, **top}, "test"))


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["mit", "mit"], "mit"),
        (["apache-2.0", "mit AND apache-2.0"], "apache-2.0 AND mit"),
        (["apache-2.0", None], None),
    ],
)
def test_licences_are_inherited_and_unknown_as_soon_as_one_is(licenses, expected):
    config = c.ScoreConfig(rollouts="rollouts", checkpoint="base")
    inputs = [ResolvedInput(InputRecord(role="r", kind="external", digest=""), name, Path) for name in licenses]
    assert inherited_license(config, inputs) == expected


def test_a_failed_push_of_one_run_is_not_pushed_by_another(monkeypatch):
    def refuse(*_, **__):
        raise HubError("no")

    with monkeypatch.context() as patched:
        patched.setattr("erpd_hub.hub.client.Hub.push", refuse)
        with pytest.raises(HubError, match="the finished artifact is kept"):
            run_plan(_prompts("one"))
    assert [item.record.repo_id for item in run_plan(_prompts("two")).finished] == ["local/two-r1-prompts"]
    assert connect("local").resolve("dataset", "local/one-r1-prompts") is None
    assert not run_plan(_prompts("one")).finished[0].reused


def test_an_endpoint_that_is_not_there_is_an_error_and_not_an_empty_hub(monkeypatch):
    monkeypatch.setattr(retry, "BACK_OFF", (0.01,))
    hub = connect("http://127.0.0.1:9")
    for ask in (lambda: hub.lineage("model", "a/b", "0" * 40), lambda: hub.resolve("model", "a/b")):
        with pytest.raises(HubError, match="not reachable after 2 tries"):
            ask()


def test_what_the_endpoint_lacks_is_read_upstream(tmp_path, monkeypatch):
    above = tmp_path / "above"
    monkeypatch.setenv("ERPD_HOME", str(above))
    run_plan(_prompts("up"))
    held = connect("local")  # its server leaves with its last client
    url = held.api.endpoint
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "below"))
    steps = {"more": {"stage": "prompts", "type": "generator", "generator": "addition", "count": 8,
                      "decontaminate": [], "disjoint_from": ["local/up-r1-prompts"]}}  # fmt: skip
    plan = make_plan(build_recipe({"run": "t", "hub": {"upstream": url}, "steps": steps}, "test"))
    (item,) = run_plan(plan).finished[0].record.inputs
    assert (item.repo_id, item.upstream) == ("local/up-r1-prompts", True)


def test_an_altered_input_is_refused(micro):
    hub = connect("local")
    rollouts = "local/micro-r1-rollouts"
    head = hub.resolve("dataset", rollouts)
    files = {"data/train-00000.parquet": b"garbage"}
    sha = push_files(hub, "dataset", rollouts, files, message="tampered")
    assert sha != head
    done = cli(
        "score", f"rollouts={rollouts}@{sha}", "checkpoint=local/micro-r1-base", home=micro.home, expect=2
    )  # fmt: skip
    assert "altered: data/train-00000.parquet" in done.stderr
    report = cli("lineage", "verify", rollouts, home=micro.home, expect=1).stdout
    assert "changed by a later commit of main" in report
    push_files(hub, "dataset", rollouts, {"data/train-00000.parquet": _original(hub, rollouts, head)}, message="back")
    assert "0 missing" in cli("lineage", "verify", rollouts, home=micro.home).stdout


def _original(hub, repo_id, sha):
    return hub.file("dataset", repo_id, sha, "data/train-00000.parquet").read_bytes()


def test_evaluating_somebody_elses_student_says_that_it_is_a_student(micro):
    words = ["checkpoints=local/micro-r1-control", "benchmarks=addition-1digit", "k=1", "limit=2"]
    done = cli("evaluate", *words, "--name", "elsewhere", "--json", home=micro.home)
    (row,) = json.loads(done.stdout)["checkpoints"]
    assert (row["role"], row["step"]) == ("control", 2)


def test_an_unfinished_artifact_is_no_input(micro):
    hub = connect("local")
    repo = "local/micro-r1-mse"
    tags = hub.tags("model", repo)
    finished = next(tag for tag in tags if tag.startswith("fp-") and "-step-" not in tag)
    hub.api.delete_tag(repo, tag=finished)
    hub.forget("model", repo)
    try:
        done = cli("unlearned", f"teacher={repo}", "--name", "x", home=micro.home, expect=2)
        assert "unfinished" in done.stderr
    finally:
        hub.api.create_tag(repo, tag=finished, revision=tags[finished])


def test_a_copied_home_has_a_hub_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "one"))
    first = connect("local")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "two"))
    assert connect("local").api.endpoint != first.api.endpoint
