"""`evaluate`: a K that is raised later, kills, and samples that fail: nothing is drawn twice, nothing averaged away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from completions_server import CompletionsServer, serving
from conftest import cli
from evaluations import PROBLEMS, asked, at, by_sample, evaluate
from hub_process import until
from starlette.responses import Response
from tiny import save_policy

from erpd_hub import lineage
from erpd_hub.errors import StageError
from erpd_hub.evaluation import grading
from erpd_hub.evaluation.harness import drawn_otherwise
from erpd_hub.model_cards import render
from erpd_hub.pipeline import open_hub
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.relatives import whose_server
from erpd_hub.samples import sample_seed
from erpd_hub.sampling import engines, rows
from erpd_hub.sampling.journal import Journal
from erpd_hub.score_table import score_notes

# ---------------------------------------------------------------------------------------------- K


def test_a_raised_k_draws_only_what_is_missing_and_a_lower_one_nothing():
    home = Path(os.environ["ERPD_HOME"])
    with serving(CompletionsServer(owner="someone")) as (server,):
        _, few, first = evaluate("endpoint:m", 2, engine=at(server))
        assert sum(asked(server).values()) == 2 * PROBLEMS
        shutil.rmtree(home / "work")
        shutil.rmtree(home / "cache")  # what is there is on the Hub
        row, many, record = evaluate("endpoint:m", 5, engine=at(server))
        assert sum(asked(server).values()) == 5 * PROBLEMS and set(asked(server).values()) == {1}
        assert evaluate("endpoint:m", 5, engine=at(server))[0]["reused"]
        _, fewer, lower = evaluate("endpoint:m", 1, engine=at(server))
        _, most, last = evaluate("endpoint:m", 6, engine=at(server))
        assert sum(asked(server).values()) == 6 * PROBLEMS
    (item,) = [item for item in record.inputs if item.role == "taken_over"]
    assert (item.digest, item.folder) == (first.digest, first.folder)
    assert [r.metrics.get("taken_over") for r in (first, record, lower, last)] == [None, 6, 3, 15]
    found, whole = by_sample(many), by_sample(most)
    assert all(found[key] == old for key, old in by_sample(few).items())
    assert all(whole[key] == found[key] for key in found)
    assert by_sample(fewer).items() <= found.items()
    assert (row["k"], row["n"], row["coverage"], row["equal_k"]) == (5, PROBLEMS, 1.0, True)
    assert {r["seed"] for r in many} == {
        sample_seed(0, "addition-1digit", problem, k) for problem in {r["problem_id"] for r in many} for k in range(5)
    }
    plan = make_plan(build_recipe({"run": "e", "steps": {"evaluate": {
        "checkpoints": "endpoint:m", "benchmarks": "addition-1digit", "engine": at(server)}}}, "test"))  # fmt: skip
    hub = open_hub(plan)
    place = lineage.locate(hub, f"{last.repo_id}/{last.folder}")
    findings = list(lineage.verify(hub, place))
    assert not any(finding.problems for finding in findings)
    assert any("nothing pins what answered" in finding.note for finding in findings)
    assert "taken_over" in [role for role, _ in lineage.ancestry(hub, place).inputs]


def test_samples_are_only_taken_over_where_nothing_else_is_different():
    with serving(CompletionsServer(owner="someone")) as (server,):
        evaluate("endpoint:m", 2, engine=at(server))
        evaluate("endpoint:m", 3, engine=at(server), decoding={"temperature": 0.6, "max_new_tokens": 32})
        assert sum(asked(server).values()) == 5 * PROBLEMS
        evaluate("endpoint:m", 3, engine=at(server), seed=1)
        assert sum(asked(server).values()) == 8 * PROBLEMS


def test_with_an_exact_engine_the_raised_evaluation_has_the_samples_of_one_from_scratch(tmp_path):
    policy = save_policy(tmp_path / "policy")
    keys = {"engine": {"dtype": "float32", "batch_tokens": 200}, "decoding": {"max_new_tokens": 12}}
    evaluate(policy, 2, **keys)
    _, raised, record = evaluate(policy, 4, **keys)
    _, direct, other = evaluate(policy, 4, name="direct", **keys)
    assert by_sample(raised).keys() == by_sample(direct).keys()
    assert all(by_sample(raised)[key]["response_ids"] == row["response_ids"] for key, row in by_sample(direct).items())
    assert record.metrics["taken_over"] == 2 * PROBLEMS and "taken_over" not in other.metrics
    assert record.fingerprint != other.fingerprint


def test_what_is_taken_over_is_compared_with_the_golds_afresh(monkeypatch, tmp_path):
    """One grader for all of an artifact: the earlier one had an older, and its label was another."""
    grade = grading.grade_many

    def older(responses, **keys):
        return [replace(found, verdict="ungradable", label=None) for found in grade(responses, **keys)]

    with serving(CompletionsServer(owner="someone")) as (server,):
        for name, engine in (("server", at(server)), ("local", {"dtype": "float32"})):
            checkpoint = "endpoint:m" if name == "server" else save_policy(tmp_path / "policy")
            keys = {"name": name, "engine": engine, "decoding": {"max_new_tokens": 32}}
            with monkeypatch.context() as patch:
                patch.setattr(rows, "grade_many", older)
                _, before, _ = evaluate(checkpoint, 1, **keys)
            assert {row["label"] for row in before} == {None}
            _, after, record = evaluate(checkpoint, 2, **keys)
            assert record.metrics["taken_over"] == PROBLEMS
            assert None not in {row["label"] for row in after}
            assert "taken_over_otherwise" not in record.metrics


def test_samples_of_another_dtype_are_named(monkeypatch, tmp_path, caplog):
    policy = save_policy(tmp_path / "policy")
    keys = {"engine": {"dtype": "auto"}, "decoding": {"max_new_tokens": 6}}
    for k, dtype in ((1, "bfloat16"), (2, "float32"), (3, "float32")):
        monkeypatch.setattr(engines, "fast_dtype", lambda asked, dtype=dtype: dtype)
        row, _, record = evaluate(policy, k, **keys)
    assert record.metrics["taken_over_otherwise"] == {"taken_over_otherwise": {"dtype": "bfloat16"}}
    assert "samples are taken over that were made otherwise" in caplog.text
    assert "6 samples are from earlier and were made otherwise" in "\n".join(score_notes([row]))
    card = render(record.model_dump(mode="json", by_alias=True))
    assert "6 samples are from an earlier evaluation" in card and "made otherwise" in card and "bfloat16" in card


def test_samples_of_another_version_of_the_engine_are_named(finished_record, tmp_path):
    told = {"metrics": {"engine": {"type": "vllm"}}, "environment": {"vllm": "0.31", "torch": "2"}}
    record = finished_record(tmp_path, {}).model_copy(update=told)
    now = {"vllm": "0.32", "torch": "3"}
    assert drawn_otherwise(record, {"type": "vllm"}, {"grader": "math v1"}, now) == {"versions": {"vllm": "0.31"}}
    assert drawn_otherwise(record, {"type": "vllm"}, {"grader": "math v1"}, {"vllm": "0.31"}) == {}


def test_programs_that_another_sandbox_has_judged_are_named(finished_record, tmp_path):
    here = {"grader": "unit_tests", "sandbox": 1, "protection": "full", "numpy": "2.1"}
    without = here | {"protection": "partial", "numpy": "none"}
    for told, expected in (
        (here, {}),
        (without, {"graded_by": "sandbox 1, protection partial, numpy none"}),
        (
            {"grader": "unit_tests"},
            {"graded_by": "sandbox not recorded, protection not recorded, numpy not recorded"},
        ),
    ):
        record = finished_record(tmp_path, {}).model_copy(update={"metrics": {"harness": told}})
        assert drawn_otherwise(record, {}, here, {}) == expected


def test_what_an_endpoint_of_that_name_said_before_is_named(caplog):
    with serving(CompletionsServer(owner="someone")) as (server,):
        evaluate("endpoint:m", 1, engine=at(server))
        assert "were drawn before" not in caplog.text
        for k in (1, 2):
            caplog.clear()
            evaluate("endpoint:m", k, engine=at(server))
            assert "samples of endpoint:m were drawn before and are used again" in caplog.text
        row, *_ = evaluate("endpoint:m", 2, engine=at(server))
        assert "3 samples are from earlier, when another model may have had that name" in "\n".join(score_notes([row]))


def test_extensions_are_taken_over_too(tmp_path):
    policy = save_policy(tmp_path / "policy")
    keys = {"engine": {"dtype": "float32"}, "decoding": {"max_new_tokens": 6}, "extend_to": 20}
    _, few, first = evaluate(policy, 1, **keys)
    _, many, second = evaluate(policy, 3, **keys)
    assert first.folder == second.folder == "import-policy/addition-1digit-to-20"
    assert second.metrics["taken_over"] == PROBLEMS
    assert by_sample(few).items() <= by_sample(many).items()


# ------------------------------------------------------------------------------------ faults


def failing(seeds, status=500):
    return lambda server, body: Response(status_code=status) if body.get("seed") in seeds else None


def test_failures_stop_the_stage_or_are_recorded_and_tried_again(caplog):
    server = CompletionsServer(owner="someone")
    with serving(server):
        _, rows, _ = evaluate("endpoint:m", 2, name="seeds", engine=at(server))
        bad = {row["seed"] for row in rows[:2]} | {rows[2]["seed"]}
        server.bodies.clear()
        server.answer = failing(bad)
        with pytest.raises(StageError, match="3 samples failed after all retries"):
            evaluate("endpoint:m", 2, engine=at(server))
        assert len(asked(server)) == 6
        row, rows, record = evaluate("endpoint:m", 2, engine=at(server), on_error="record")
        assert sum(asked(server).values()) == 6 + 3  # what had not failed was kept
        errors = [r for r in rows if r["finish_reason"] == "error"]
        assert {r["seed"] for r in errors} == bad and {(r["verdict"], r["label"], r["text"]) for r in errors} == {
            ("ungradable", None, "")
        }
        assert (row["errors"], row["coverage"], row["equal_k"], row["n"]) == (3, 0.5, False, PROBLEMS)
        assert "on_error" not in record.identity and record.config["on_error"] == "record"
        notes = "\n".join(score_notes([row]))
        assert "50.0% of the samples are graded, 3 failed" in notes and "unequal numbers" in notes
        assert "recorded as errors and left out of the score" in caplog.text
        server.answer = failing({rows[0]["seed"]})
        again, _, _ = evaluate("endpoint:m", 2, engine=at(server), on_error="record")
        assert (again["errors"], again["reused"]) == (1, False)
        server.answer = None
        whole, rows, record = evaluate("endpoint:m", 2, engine=at(server))
        assert (whole["errors"], whole["coverage"], record.metrics["taken_over"]) == (0, 1.0, 5)
        assert evaluate("endpoint:m", 2, engine=at(server))[0]["reused"]
    assert [asked(server)[key] for key in asked(server) if key[1] not in bad] == [1, 1, 1]


def test_nothing_is_recorded_where_everything_fails():
    with serving(CompletionsServer(owner="someone")) as (server,):
        server.answer = lambda server, body: Response(status_code=500) if body["max_tokens"] == 32 else None
        with pytest.raises(StageError, match="6 samples failed after all retries"):
            evaluate("endpoint:m", 2, engine=at(server), on_error="record")


def journaled(home):
    folders = list((home / "work").glob("*/scratch/journal"))
    return len(Journal(folders[0], replica=9)) if folders else 0


def killed(words, home, server, after=9):
    """An evaluation of 6 problems that was killed when so many samples were in its journal; which ones."""

    def wait(server, body):  # the rest is never answered
        if body["max_tokens"] == 32 and len(server.finished) > after:
            time.sleep(0.05)
            return Response(status_code=429, headers={"Retry-After": "60"})
        return None

    server.answer = wait
    command = [sys.executable, "-m", "erpd_hub.cli", *words]
    process = subprocess.Popen(command, env={**os.environ, "ERPD_HOME": str(home)}, stdout=subprocess.DEVNULL)
    while journaled(home) < after:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(server.is_left)  # what it had sent arrives, too
    server.answer = None
    done = {(body["messages"][-1]["content"], body["seed"]) for body in server.finished if body["max_tokens"] == 32}
    server.bodies.clear()
    return done


WORDS = ("evaluate", "endpoint:m", "-b", "addition-1digit", "limit=6", "engine.concurrency=2", "--json")


def test_a_killed_evaluation_goes_on_and_asks_for_nothing_twice(tmp_path):
    home = tmp_path / "home"
    with serving(CompletionsServer(owner="someone")) as (server,):
        words = [*WORDS, "-k", "4", "--url", server.url]
        done = killed(words, home, server)
        summary = json.loads(cli(*words, home=home).stdout)
    assert len(done) == 9
    assert len(asked(server)) == 24 - 9 and not done & asked(server).keys()
    (row,) = summary["checkpoints"]
    assert (row["k"], row["n"], row["coverage"], row["pinned"], row["role"]) == (4, 6, 1.0, False, "endpoint")


def test_a_killed_evaluation_lends_its_samples_to_any_other_k(tmp_path):
    home = tmp_path / "home"
    with serving(CompletionsServer(owner="someone")) as (server,):
        words = [*WORDS, "--url", server.url]
        done = killed([*words, "-k", "4"], home, server)
        cli(*words, "-k", "1", home=home)
        first = set(asked(server))
        assert not done & first and list((home / "work").glob("*/scratch"))
        (row,) = json.loads(cli(*words, "-k", "6", home=home).stdout)["checkpoints"]
        assert len(asked(server)) == 36 - 9 and set(asked(server).values()) == {1}
        assert not done & asked(server).keys()
    assert (row["k"], row["n"], row["coverage"]) == (6, 6, 1.0)
    assert not list((home / "work").glob("*/scratch")), "what a larger K has is not kept twice"


def test_what_is_unfinished_of_an_endpoint_is_of_its_url():
    """Another model may be behind another one; the weights that a server has of a checkpoint are known."""

    def node(checkpoint, *urls):
        step = {"checkpoints": checkpoint, "benchmarks": "addition-1digit", "engine": {"type": "server", "urls": urls}}
        (found,) = make_plan(build_recipe({"run": "e", "steps": {"evaluate": step}}, "test")).nodes
        return found

    one, two = "http://node1/v1", "http://node2/v1"
    assert whose_server(node("endpoint:m", one, two)) == whose_server(node("endpoint:m", two, one))
    assert whose_server(node("endpoint:m", one)) != whose_server(node("endpoint:m", two))
    assert node("endpoint:m", one).identity == node("endpoint:m", two).identity
    assert whose_server(node("me/m", one)) == whose_server(node("me/m", two)) == ""


def test_what_an_exact_engine_has_begun_is_finished_before_a_larger_k(tmp_path):
    home, policy = tmp_path / "home", save_policy(tmp_path / "policy")
    words = ["evaluate", policy, "-b", "addition-1digit", "limit=3", "engine.dtype=float32", "engine.batch_tokens=60"]
    words += ["decoding.max_new_tokens=12", "threads=1", "--json"]
    point = "after-two-rollout-shards"
    cli(
        point, *words, "-k", "2", home=home, script=(str(Path(__file__).parent / "kill_at.py"),), expect=-signal.SIGKILL
    )
    raised = json.loads(cli(*words, "-k", "4", home=home).stdout)
    for k in ("2", "4"):
        whole = json.loads(cli(*words, "-k", k, home=tmp_path / "other").stdout)
    assert [a["digest"] for a in raised["artifacts"]] == [a["digest"] for a in whole["artifacts"]]
    assert [a["fingerprint"] for a in raised["artifacts"]] == [a["fingerprint"] for a in whole["artifacts"]]


def test_a_raised_evaluation_that_is_killed_ends_as_it_would_have(tmp_path):
    home, policy = tmp_path / "home", save_policy(tmp_path / "policy")
    words = ["evaluate", policy, "-b", "addition-1digit", "limit=3", "engine.dtype=float32", "engine.batch_tokens=60"]
    words += ["decoding.max_new_tokens=12", "threads=1", "--json"]
    cli(*words, "-k", "1", home=home)
    shutil.copytree(home, tmp_path / "other")
    kill_at = str(Path(__file__).parent / "kill_at.py")
    point = "after-two-rollout-shards"  # what is taken over, and the first batch
    cli(point, *words, "-k", "4", home=home, script=(kill_at,), expect=-signal.SIGKILL)
    done = json.loads(cli(*words, "-k", "4", home=home).stdout)
    whole = json.loads(cli(*words, "-k", "4", home=tmp_path / "other").stdout)
    assert [a["digest"] for a in done["artifacts"]] == [a["digest"] for a in whole["artifacts"]]
    assert [a["fingerprint"] for a in done["artifacts"]] == [a["fingerprint"] for a in whole["artifacts"]]
    assert done["checkpoints"][0]["coverage"] == 1.0 and done["checkpoints"][0]["k"] == 4
