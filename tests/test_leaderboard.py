"""The leaderboard on the real embedded Hub: parallel writers, verification, what it shows, results in model cards."""

import json
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import published
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard
from huggingface_hub._eval_results import parse_eval_result_entries
from published import push_files
from typer.testing import CliRunner

from erpd_hub.artifacts import InputRecord
from erpd_hub.cli import app
from erpd_hub.evaluation.benchmarks import BENCHMARKS
from erpd_hub.evaluation.judge.canaries import canaries
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA, leaderboard_bytes
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.merging import commit_merged
from erpd_hub.lineage import locate, verify
from erpd_hub.publish import publish_leaderboard, publish_repository_cards
from erpd_hub.results.entries import notes, variants
from erpd_hub.results.published import published_rows
from erpd_hub.results.verify import row_problems, verify_rows

BOARD = "local/erpd-leaderboard"
LABELS: list[list[int | None]] = [[1, 0], [1, 1], [0, 0], [1, None]]


@pytest.fixture
def hub() -> Hub:
    return connect("local")


def published_run(hub: Hub, run: str, names: list[str], benchmark: str = published.BENCHMARK) -> dict[str, dict]:
    plan, found = published.done(hub, run, names, LABELS, benchmark)
    publish_repository_cards(hub, found)
    publish_leaderboard(hub, plan, found)
    return rows_by_checkpoint(hub)


def rows_by_checkpoint(hub: Hub) -> dict[str, dict]:
    return {row["checkpoint"]: row for rows in published_rows(hub, BOARD)[1].values() for row in rows}


def problems(hub: Hub) -> list[str]:
    return [problem for finding in verify_rows(hub, published_rows(hub, BOARD)[1]) for problem in finding.problems]


def edit(hub: Hub, run: str, **changes: object) -> None:
    """What somebody would do who wants another score: change the parquet itself."""
    name = f"data/{run}.parquet"
    rows = published_rows(hub, BOARD)[1][name]
    push_files(hub, "dataset", BOARD, {name: leaderboard_bytes([rows[0] | changes, *rows[1:]])}, message="edit")


def test_parallel_submitters_lose_nothing(hub: Hub) -> None:
    """Four processes at once, three of one run and one of another, each with checkpoints of its own."""
    runs = {"one": [["a0", "a1"], ["a2"], ["a3"]], "two": [["b0"]]}
    script = str(Path(published.__file__))
    words = [[run, str(i), *names] for run, parts in runs.items() for i, names in enumerate(parts)]
    running = [subprocess.Popen([sys.executable, script, *w], stderr=subprocess.PIPE, text=True) for w in words]
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]
    rows = {name: {row["checkpoint"] for row in found} for name, found in published_rows(hub, BOARD)[1].items()}
    assert rows == {
        "data/one.parquet": {"local/a0", "local/a1", "local/a2", "local/a3"},
        "data/two.parquet": {"local/b0"},
    }
    assert problems(hub) == []
    head = hub.resolve("dataset", "local/one-details")
    card = hub.file("dataset", "local/one-details", head, "README.md")
    assert card is not None
    assert all(f"local--a{i}/addition-1digit" in card.read_text() for i in range(4)), "no card lost a folder"


def test_a_commit_in_between_is_merged(hub: Hub) -> None:
    """The file grows by a line of each writer, also when another writes between reading and committing."""
    push_files(hub, "dataset", "local/x", {"a.txt": b"0\n"}, message="start")
    seen: list[str | None] = []

    def mine(head: str | None) -> dict[str, bytes | None]:
        seen.append(head)
        path = hub.file("dataset", "local/x", str(head), "a.txt")
        assert path is not None
        if len(seen) < 3:
            push_files(hub, "dataset", "local/x", {"a.txt": path.read_bytes() + b"theirs\n"}, message="theirs")
        return {"a.txt": path.read_bytes() + b"mine\n"}

    sha = commit_merged(hub, "dataset", "local/x", mine, message="mine")
    path = hub.file("dataset", "local/x", str(sha), "a.txt")
    assert path is not None
    assert path.read_bytes() == b"0\ntheirs\ntheirs\nmine\n"
    assert len(set(seen)) == 3


def test_the_second_time_commits_nothing(hub: Hub) -> None:
    plan, found = published.done(hub, "one", ["a"], LABELS, "aime_2025")
    places = [("dataset", BOARD), ("dataset", "local/one-details"), ("model", "local/a")]
    for heads in ({}, {}):
        publish_repository_cards(hub, found)
        publish_leaderboard(hub, plan, found)
        heads |= {repo: hub.resolve(kind, repo) for kind, repo in places}  # type: ignore[arg-type]
        first = heads if not problems(hub) else {}
    publish_leaderboard(hub, plan, found)
    assert {repo: hub.resolve(kind, repo) for kind, repo in places} == first  # type: ignore[arg-type]


def test_a_row_follows_from_its_samples_and_is_verified(hub: Hub) -> None:
    row = published_run(hub, "one", ["a"])["local/a"]
    assert row["avg"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert (row["n"], row["k"], row["coverage"], row["equal_k"]) == (4, 2, 7 / 8, False)
    assert (row["base_repo"], row["role"], row["pinned"]) == ("local/a", "base", True)
    assert row["harness"] == '{"erpd-hub": "0.1.0", "grader": "math v1"}'
    assert problems(hub) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"avg": 0.99}, "avg: 0.99 in the row, 0.625 from its samples"),
        ({"interval": [0.9, 1.0]}, "interval: "),
        ({"kl_checkpoint_to_base": 0.001}, "kl_checkpoint_to_base: 0.001 in the row, null"),
        ({"role": "student"}, 'role: "student" in the row, "base"'),
        ({"checkpoint_repo": "local/better"}, 'checkpoint_repo: "local/better" in the row, "local/a"'),
        ({"fingerprint": "0" * 64}, "fingerprint: "),
        ({"harness": None}, "harness: null in the row"),
        ({"details_repo": "local/nowhere"}, "local/nowhere"),
        ({"details_revision": "0" * 40}, "local/one-details"),
        ({"details_folder": "local--b/addition-1digit"}, "lineage.json"),
    ],
)
def test_an_edited_row_is_found(hub: Hub, changes: dict, said: str) -> None:
    published_run(hub, "one", ["a"])
    edit(hub, "one", **changes)
    (found, *_) = problems(hub)
    assert said in found


def test_edited_samples_are_found(hub: Hub) -> None:
    """Also when the row was computed from them and the record agrees: the tag says which commit was made."""
    published_run(hub, "one", ["a"])
    better = published.shard([[1, 1], [1, 1], [1, 1], [1, 1]], published.BENCHMARK)
    folder = "local--a/addition-1digit"
    sha = push_files(hub, "dataset", "local/one-details", {f"{folder}/data/train-00000.parquet": better}, message="x")
    edit(hub, "one", avg=1.0, details_revision=sha)
    found = problems(hub)
    assert any("sha256" in problem for problem in found)
    assert any(problem.startswith("coverage: 0.875") for problem in found)


def test_the_command_verifies_and_says_what_differs(hub: Hub) -> None:
    published_run(hub, "one", ["a", "b"])
    run = CliRunner()
    right = run.invoke(app, ["leaderboard", "verify", "local"])
    assert (right.exit_code, right.stdout.count("ok ")) == (0, 2)
    edit(hub, "one", avg=0.99)
    wrong = run.invoke(app, ["leaderboard", "verify", BOARD, "--json"])
    assert wrong.exit_code == 1
    (first, second) = json.loads(wrong.stdout)["rows"]
    assert (len(first["problems"]), second["problems"]) == (1, [])


def test_an_edit_is_mended_by_the_next_run_and_reaches_no_card(hub: Hub) -> None:
    plan, found = published.done(hub, "one", ["a"], LABELS, "aime_2025")
    publish_leaderboard(hub, plan, found)
    edit(hub, "one", avg=0.99)
    publish_leaderboard(hub, plan, found)
    assert rows_by_checkpoint(hub)["local/a"]["avg"] == 0.625
    assert problems(hub) == []


def test_rows_of_an_earlier_schema_stay(hub: Hub) -> None:
    published_run(hub, "one", ["a"])
    name = "data/one.parquet"
    rows = published_rows(hub, BOARD)[1][name]
    old = [{key: value for key, value in rows[0].items() if key in LEADERBOARD_SCHEMA.names[:25]}]
    old[0] |= {"checkpoint": "local/z", "details_folder": "z/addition-1digit"}
    buffer = BytesIO()
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(old), buffer)
    push_files(hub, "dataset", BOARD, {name: buffer.getvalue()}, message="old")
    assert set(published_run(hub, "one", ["b"])) == {"local/b", "local/z"}


def test_a_column_of_an_earlier_schema_is_missed_only_where_there_is_something_to_say(hub: Hub) -> None:
    row = published_run(hub, "one", ["a"])["local/a"]
    assert row_problems(hub, {name: value for name, value in row.items() if name != "canaries_problem"}) == []
    (problem,) = row_problems(hub, {name: value for name, value in row.items() if name != "coverage"})
    assert problem.startswith("coverage: <no such column> in the row, 0.875 ")


def test_a_judged_copy_takes_the_place_of_its_evaluation(hub: Hub) -> None:
    """Both scores are in the row, both are recomputed, and a later run without the judge does not take it away."""
    checkpoint = published.push_base(hub, "a")
    plain = published.push_details(hub, "one", checkpoint, LABELS)
    copy = published.push_judged(hub, plain, LABELS, accepted={("2", 0)})
    judge = {"model": "judge-1", "url": "http://127.0.0.1:9/v1"}
    plan = published.plan_of("one", ["a"], judge=judge)
    nodes = {node.config.stage: node for node in plan.nodes}
    parts = [published.finished(nodes["evaluate"], plain, checkpoint[1])]
    publish_leaderboard(hub, plan, [*parts, published.finished(nodes["judge"], copy, plain[1])])
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["details_folder"], row["judge"]) == ("local--a/addition-1digit-judged", "judge-1")
    assert (row["avg"], row["avg_judged"], row["judge_share"]) == (0.625, 0.75, 1 / 8)
    assert row["canary_acceptance"] == 0.25
    assert problems(hub) == []
    publish_leaderboard(hub, published.plan_of("one", ["a"]), parts)
    assert rows_by_checkpoint(hub)["local/a"] == row
    edit(hub, "one", avg_judged=0.9)
    assert problems(hub) == ["avg_judged: 0.9 in the row, 0.75 from its samples and lineage"]


def test_an_endpoint_is_flagged_and_in_no_model_repository(hub: Hub) -> None:
    item = InputRecord(role="checkpoints", kind="endpoint", digest="a" * 64)
    details = published.push_details(hub, "one", ("", None), LABELS, name="endpoint:m", item=item)
    plan = published.plan_of("one", ["endpoint:m"])
    publish_leaderboard(hub, plan, [published.finished(plan.nodes[0], details, None)])
    (row,) = rows_by_checkpoint(hub).values()
    assert (row["pinned"], row["role"], row["checkpoint_repo"]) == (False, "endpoint", "endpoint:m")
    assert problems(hub) == []
    assert "(unpinned)" in CliRunner().invoke(app, ["leaderboard"]).stdout


# ---------------------------------------------------------------------------------- model repositories


def results_of(hub: Hub, repo: str) -> tuple[ModelCard, dict[str, EvalResultEntry]]:
    head = hub.resolve("model", repo)
    names = [name for name in hub.tree("model", repo, str(head)) if name.startswith(".eval_results/")]
    entries = {}
    for name in names:
        path = hub.file("model", repo, str(head), name)
        assert path is not None
        (entries[name],) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    card = hub.file("model", repo, str(head), "README.md")
    assert card is not None
    return ModelCard(card.read_text()), entries


def test_results_of_a_hub_benchmark_are_in_both_formats(hub: Hub) -> None:
    row = published_run(hub, "one", ["a"], "aime_2025")["local/a"]
    card, entries = results_of(hub, "local/a")
    (entry,) = entries.values()
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == (published.DATASET, "default", "e" * 40)
    assert entry.value == 62.5
    assert entry.source_url == f"/datasets/local/one-details/tree/{row['details_revision']}/local--a/aime_2025"
    for part in ("AVG@2", "T=0.6, top_p=0.95, max_new_tokens=32", "math v1", "87.5 % of samples graded", "unequal K"):
        assert part in str(entry.notes)
    (result,) = card.data.eval_results or []
    assert (result.dataset_type, result.dataset_split, result.metric_value) == (published.DATASET, "train", 62.5)
    assert result.dataset_revision == "e" * 40
    assert "| `aime_2025` v2" not in card.text  # the details say version 1
    assert "| `aime_2025` v1 | 62.5 |" in card.text


def test_a_generated_benchmark_is_in_the_card_only(hub: Hub) -> None:
    published_run(hub, "one", ["a"])
    card, entries = results_of(hub, "local/a")
    assert entries == {}
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, result.dataset_revision) == (published.BENCHMARK, None)


def test_the_artifact_stays_what_it_is(hub: Hub) -> None:
    published_run(hub, "one", ["a"], "aime_2025")
    place = locate(hub, "local/a")
    assert place.revision != hub.resolve("model", "local/a"), "results are a later commit"
    assert [problem for finding in verify(hub, place) for problem in finding.problems] == []


def test_two_runs_on_one_checkpoint_are_two_variants(hub: Hub) -> None:
    for run in ("one", "two"):
        published_run(hub, run, ["a"], "aime_2025")
    _, entries = results_of(hub, "local/a")
    assert len(entries) == 2
    assert sorted(str(entry.notes).rpartition("; ")[2] for entry in entries.values()) == ["run one", "run two"]
    path = hub.file("model", "local/a", str(hub.resolve("model", "local/a")), "README.md")
    assert path is not None
    assert path.read_text().count("url: /datasets/local/") == 2


def test_results_go_with_the_weights_they_are_of(hub: Hub) -> None:
    """New weights in the repository: what was said of the old ones goes, a file of somebody else stays."""
    published_run(hub, "one", ["a"], "aime_2025")
    theirs = yaml.safe_dump([{"dataset": {"id": "x/y", "task_id": "z"}, "value": 1}]).encode()
    push_files(hub, "model", "local/a", {".eval_results/theirs.yaml": theirs}, message="theirs")
    published.push(hub, {"model.safetensors": b"new"}, stage="base", kind="checkpoint", run="r", repo_type="model",
                   repo_id="local/a")  # fmt: skip
    from erpd_hub.results.metadata import publish_results_of

    rows = [row for found in published_rows(hub, BOARD)[1].values() for row in found]
    publish_results_of(hub, "local/a", lambda: rows)
    card, entries = results_of(hub, "local/a")
    assert list(entries) == [".eval_results/theirs.yaml"]
    assert card.data.eval_results is None
    assert "## Evaluation" not in card.text


def test_a_score_that_its_details_do_not_confirm_stands_beside_no_other(hub: Hub) -> None:
    from erpd_hub.results.metadata import publish_results_of

    base = published.push_base(hub, "a")
    teacher = published.push(hub, {"model.safetensors": b"b"}, stage="teacher", kind="checkpoint", run="r",
                             repo_type="model", repo_id="local/b",
                             inputs=[published.as_input("init", *base)])  # fmt: skip
    plan = published.plan_of("one", ["a", "b"])
    found = [
        published.finished(node, published.push_details(hub, "one", checkpoint, LABELS), checkpoint[1])
        for node, checkpoint in zip(plan.nodes, (base, teacher), strict=True)
    ]
    publish_leaderboard(hub, plan, found)
    assert "| its start | `addition-1digit` v1 | 62.5 |" in results_of(hub, "local/b")[0].text
    rows = [row | ({"avg": 0.1} if row["role"] == "base" else {}) for row in rows_by_checkpoint(hub).values()]
    publish_results_of(hub, "local/b", lambda: rows)
    text = results_of(hub, "local/b")[0].text
    assert "| its start |" not in text and "| **this** | `addition-1digit` v1 | 62.5 |" in text


# ---------------------------------------------------------------------------------------------- shown


def test_the_table_is_grouped_and_filtered(hub: Hub) -> None:
    published_run(hub, "one", ["a", "b"])
    published_run(hub, "two", ["a"], "aime_2025")
    run = CliRunner()
    everything = run.invoke(app, ["leaderboard"]).stdout
    assert everything.count("from local/a@") == 1
    assert everything.count("from local/b@") == 1
    assert "3 of 3 rows" in everything
    found = json.loads(run.invoke(app, ["leaderboard", "local", "--benchmark", "aime_2025", "--json"]).stdout)
    assert [row["run"] for row in found["rows"]] == ["two"]
    assert json.loads(run.invoke(app, ["leaderboard", "--role", "student", "--json"]).stdout)["rows"] == []


def test_the_papers_numbers_are_marked_and_no_rows(hub: Hub) -> None:
    run = CliRunner()
    found = json.loads(run.invoke(app, ["leaderboard", "--paper", "--experiment", "table1", "--json"]).stdout)
    assert found["rows"] == []
    entry = next(e for e in found["reported"] if (e["row"], e["column"]) == ("CE", "hmmt_feb_2025"))
    assert entry == {
        "experiment": "table1", "model": "Qwen3-4B", "row": "CE", "column": "hmmt_feb_2025", "unit": "percent",
        "reported": 67.6, "measured": None, "run": None, "checkpoint": None,
        "n": None, "k": None, "differs": None,
    }  # fmt: skip
    shown = run.invoke(app, ["leaderboard", "--paper", "--experiment", "table11-code"]).stdout
    assert "as reported by the paper" in shown
    assert "63.7" in shown


def test_no_leaderboard_is_said() -> None:
    done = CliRunner().invoke(app, ["leaderboard", "nobody"])
    assert "nobody/erpd-leaderboard" in str(done.exception)


# ------------------------------------------------------------------------- what a record and a judge say


def forged(hub: Hub, folder: str, **metrics: object) -> None:
    """Another record beside the same samples, and a row that is of its commit and says the same."""
    rows = published_rows(hub, BOARD)[1]["data/one.parquet"]
    revision = rows[0]["details_revision"]
    record = hub.lineage("dataset", "local/one-details", revision, folder)
    assert record is not None
    record = record.model_copy(update={"metrics": {**record.metrics, **metrics}})
    name = f"{folder}/lineage.json"
    sha = push_files(hub, "dataset", "local/one-details", {name: record.to_json().encode()}, message="other words")
    said = {name: value for name, value in metrics.items() if name in LEADERBOARD_SCHEMA.names}
    edit(hub, "one", details_revision=sha, **said)


@pytest.mark.parametrize("metrics", [{"limit": 10}, {"problems_state": "other"}, {"licence": "MIT"}])
def test_settings_typed_into_a_record_are_found(hub: Hub, metrics: dict) -> None:
    published_run(hub, "one", ["a"])
    forged(hub, "local--a/addition-1digit", **metrics)
    (found,) = problems(hub)
    assert "which has other words in its record" in found


def test_another_checkpoint_than_was_evaluated_is_found(hub: Hub) -> None:
    """The fingerprint covers the digest of an input; where that is, is only named."""
    checkpoint = published.push_base(hub, "a")
    sha, other = published.push_base(hub, "better")
    named = published.as_input("checkpoints", sha, other).model_copy(update={"digest": checkpoint[1].digest})
    details = published.push_details(hub, "one", checkpoint, LABELS, item=named)
    plan = published.plan_of("one", ["a"])
    publish_leaderboard(hub, plan, [published.finished(plan.nodes[0], details, checkpoint[1])])
    (found,) = problems(hub)
    assert found.startswith(f"checkpoints: local/better@{sha[:10]} is another one")


def judged_run(hub: Hub, labels=LABELS, **changes) -> None:
    checkpoint = published.push_base(hub, "a")
    plain = published.push_details(hub, "one", checkpoint, labels)
    copy = published.push_judged(hub, plain, labels, **changes)
    plan = published.plan_of("one", ["a"], judge={"model": "judge-1", "url": "http://127.0.0.1:9/v1"})
    nodes = {node.config.stage: node for node in plan.nodes}
    found = [published.finished(nodes["evaluate"], plain, checkpoint[1])]
    publish_leaderboard(hub, plan, [*found, published.finished(nodes["judge"], copy, plain[1])])


def test_a_judge_whose_run_allowed_it_injections_is_marked_all_the_same(hub: Hub) -> None:
    judged_run(hub, accepted={("2", 0)}, allowed=1.0)
    row = rows_by_checkpoint(hub)["local/a"]
    assert row["canaries_problem"] == "took 25.0 % of injected wrong answers for right, which its run allowed"
    assert [variant.label for variant in variants(row)] == [""]
    assert problems(hub) == []


def test_an_alarm_of_the_canaries_is_wherever_the_judged_score_is(hub: Hub) -> None:
    problem = "it took 16 of 64 injected wrong answers for right"
    judged_run(hub, accepted={("2", 0)}, allowed=0.1)
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["canaries_problem"], problems(hub)) == (problem, [])
    card, _ = results_of(hub, "local/a")
    assert "| 75.0 ! | 25.0 |" in card.text
    assert f"`judge-1` cannot be trusted: {problem}." in card.text
    assert [result.metric_name for result in card.data.eval_results] == ["AVG@2 (percent)"], "no judged score"
    trusted = row | {"canaries_problem": None}
    assert [variant.label for variant in variants(row)] == [""]
    assert [variant.label for variant in variants(trusted)] == ["", "judged"]
    assert "which took 25.0 % of injected wrong answers for right" in notes(trusted, variants(trusted)[1])
    said = " ".join(CliRunner().invoke(app, ["leaderboard"], env={"COLUMNS": "300"}).stdout.split())
    assert "75.0 !" in said
    assert f"! at a judged score, which cannot be trusted: judge judge-1: {problem}" in said
    head = hub.resolve("dataset", "local/one-details")
    of_details = hub.file("dataset", "local/one-details", str(head), "README.md")
    assert of_details is None or "cannot be trusted" in of_details.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replies": ()}, "2 0: a ruling without a reply"),
        ({"told": {"canary_acceptance": 0.0}}, "canary_acceptance: 0.25 by the replies, recorded 0.0"),
        ({"allowed": 0.1, "told": {"canaries_problem": None}}, "canaries_problem: 'it took 16 of 64 injected"),
        ({"told": {"reworded_acceptance": 0.5}}, "reworded_acceptance: 1.0 by the replies, recorded 0.5"),
        ({"told": {"model": "judge-2"}}, "replies of 'judge-1', recorded 'judge-2'"),
    ],
)
def test_what_a_judge_never_said_is_found(hub: Hub, changes: dict, said: str) -> None:
    judged_run(hub, accepted={("2", 0)}, **changes)
    (found,) = problems(hub)
    assert said in found


def test_a_label_that_is_not_its_verdict_is_found(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.VERDICTS, 1, "wrong")
    published_run(hub, "one", ["a"])
    found = problems(hub)
    assert found[-1].endswith("and 1 more like these")
    assert found[0].endswith("0 0: label 1 on the verdict wrong")


# --------------------------------------------------------------------------- settings, coverage, selection

ENTRY = {
    "decoding": {"max_new_tokens": 64, "temperature": 1.0, "top_p": 1.0},
    "version": BENCHMARKS["aime_2025"].version,
}


def test_limits_are_those_of_the_samples(hub: Hub) -> None:
    """An extension's decoding is that of what it went on from; a limit on sequences is no part of it."""
    identity = {"benchmark_entries": {"aime_2025": ENTRY}, "extend_to": 96, "max_sequence_tokens": 128}
    checkpoint = published.push_base(hub, "a")
    told = {"extend_to": 96, "max_sequence_tokens": 128}
    details = published.push_details(
        hub, "one", checkpoint, LABELS, benchmark="aime_2025", identity=identity, told=told
    )
    plan = published.plan_of("one", ["a"], "aime_2025")
    found = [published.finished(plan.nodes[0], details, checkpoint[1])]
    publish_repository_cards(hub, found)
    publish_leaderboard(hub, plan, found)
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["temperature"], row["max_new_tokens"], row["max_sequence_tokens"]) == (1.0, 96, 128)
    assert problems(hub) == []
    card, entries = results_of(hub, "local/a")
    assert "max_new_tokens=96, max_sequence_tokens=128" in str(next(iter(entries.values())).notes)
    assert "| 96 / 128 |" in card.text
    head = hub.resolve("dataset", "local/one-details")
    of_details = hub.file("dataset", "local/one-details", str(head), "README.md")
    assert of_details is not None
    assert "| 96 / 128 (extended from 32) |" in of_details.read_text()
    shown = CliRunner().invoke(app, ["leaderboard"]).stdout
    assert "aime_2025: measured under another definition than the registered one" in " ".join(shown.split())


def test_other_settings_of_one_benchmark_are_said(hub: Hub) -> None:
    published_run(hub, "one", ["a", "b"])
    assert "not comparable" not in CliRunner().invoke(app, ["leaderboard"]).stdout
    edit(hub, "one", max_sequence_tokens=64, harness='{"erpd-hub": "9", "grader": "math v9"}')
    said = " ".join(CliRunner().invoke(app, ["leaderboard"]).stdout.split())
    assert "scores that differ in max_sequence_tokens, grader are not comparable" in said


def test_what_the_samples_are_not_is_wherever_their_score_is(hub: Hub) -> None:
    """Seeds that were ignored, samples cut by the server or made otherwise: columns, card, both formats, the table."""
    checkpoint = published.push_base(hub, "a")
    otherwise = {"dtype": "bfloat16", "taken_over_otherwise": {"dtype": "float32"}}
    told = {"seeds_ignored": True, "cut_short": 3, "taken_over_otherwise": otherwise}
    details = published.push_details(hub, "one", checkpoint, LABELS, benchmark="aime_2025", told=told)
    plan = published.plan_of("one", ["a"], "aime_2025")
    publish_leaderboard(hub, plan, [published.finished(plan.nodes[0], details, checkpoint[1])])
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["seeds_ignored"], row["cut_short"]) == (True, 3)
    assert json.loads(row["taken_over_otherwise"]) == {"dtype": "bfloat16, float32"}
    assert problems(hub) == []
    card, entries = results_of(hub, "local/a")
    shown = CliRunner().invoke(app, ["leaderboard"], env={"COLUMNS": "300"}).stdout
    (entry,) = entries.values()
    (result,) = card.data.eval_results or []
    for part in (
        "ignores seeds, so K and the errors",
        "server ended 3 samples by a limit of its own",
        "made otherwise",
    ):
        assert part in " ".join(shown.split())
        assert part in card.text
        assert part in str(entry.notes)
        assert part in result.metric_args["notes"]
    edit(hub, "one", seeds_ignored=None, cut_short=None)
    assert [text.partition(":")[0] for text in problems(hub)] == ["seeds_ignored", "cut_short"]


def test_a_score_of_few_problems_says_so(hub: Hub) -> None:
    """Two of three problems have no graded sample: the score is of one."""
    plan, found = published.done(hub, "one", ["a"], [[1, 1], [None, None], [None, None]], "aime_2025")
    publish_leaderboard(hub, plan, found)
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["n"], row["n_graded"], row["avg"]) == (3, 1, 1)
    card, entries = results_of(hub, "local/a")
    assert "over 1 problems, the only ones of 3 with a graded sample" in str(next(iter(entries.values())).notes)
    assert "| 1 of 3 | 2, unequal | 33.3 |" in card.text
    shown = CliRunner().invoke(app, ["leaderboard"], env={"COLUMNS": "300"}).stdout
    assert "1/3" in shown
    assert "a of b problems have a graded sample" in shown


def test_the_mark_of_a_selection_stays_when_a_judge_comes(hub: Hub) -> None:
    published_run(hub, "one", ["a"])
    edit(hub, "one", selection=True)  # as another recipe of the run did
    judged_run(hub, accepted={("2", 0)})
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["judge"], row["selection"]) == ("judge-1", True)


def test_a_recipe_without_the_judge_can_still_mark(hub: Hub) -> None:
    judged_run(hub, accepted={("2", 0)})
    plan, found = published.done(hub, "one", ["a"], LABELS)
    chosen = plan.recipe.model_copy(update={"selection": (published.BENCHMARK,)})
    publish_leaderboard(hub, replace(plan, recipe=chosen), found)
    row = rows_by_checkpoint(hub)["local/a"]
    assert (row["judge"], row["selection"]) == ("judge-1", True)


def test_results_of_another_writer_stay(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run writes its scores of the same checkpoint between our reading and our commit."""
    from erpd_hub.results import metadata

    for run in ("one", "two"):
        plan, found = published.done(hub, run, ["a"], LABELS, "aime_2025")
        with monkeypatch.context() as patch:
            patch.setattr("erpd_hub.publish.publish_results", lambda *_: [])
            publish_leaderboard(hub, plan, found)
    everything = published_rows(hub, BOARD)[1]
    tries = []

    def read() -> list[dict]:
        tries.append(len(tries))
        if tries == [0]:  # only ours is there yet; the other's comes now
            metadata.publish_results_of(hub, "local/a", lambda: [r for rows in everything.values() for r in rows])
            return everything["data/one.parquet"]
        return [row for rows in everything.values() for row in rows]

    metadata.publish_results_of(hub, "local/a", read)
    assert len(tries) > 1
    assert len(results_of(hub, "local/a")[1]) == 2


def test_canaries_that_were_left_out_are_missed(hub: Hub) -> None:
    judged_run(hub, accepted={("2", 0)}, left_out=canaries()[:16])
    found = problems(hub)
    assert "16 of 64 canary questions are missing, canary/fake_json/expression first" in found[0]
    assert "canary_acceptance: 0.0 by the replies, recorded 0.25" in "".join(found)
