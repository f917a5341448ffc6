"""`erpd-hub compare`: what is computed, what is refused, what is noted, and its references, on a finished run."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import cli

from erpd_hub.artifacts import read_lineage
from erpd_hub.comparing.compare_tables import markdown, print_report
from erpd_hub.comparing.sides import read_sides
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.backends.imports import import_details
from erpd_hub.evaluation.comparability import Evaluation, Side
from erpd_hub.evaluation.compare import report
from erpd_hub.evaluation.paired import compare
from erpd_hub.hub.connecting import connect

METRICS = {
    "benchmark": "sums", "benchmark_version": 1, "problems_sha256": "a" * 64, "decoding": {"temperature": 0.6},
    "limit": None, "k": 4, "engine": {"type": "vllm"},
}  # fmt: skip


def _rows(labels, length=10):
    return tuple(
        {"problem_id": problem, "k": k, "label": label, "judge": None, "verdict": "correct" if label else "wrong",
         "extracted": "7" if label else "8", "finish_reason": "stop", "length": length}
        for problem, row in labels.items() for k, label in enumerate(row)
    )  # fmt: skip


def _evaluation(labels, checkpoint="x", selected=None, rows=None, **metrics):
    rows = _rows(labels) if rows is None else rows
    return Evaluation("a/b@c", METRICS | metrics, checkpoint, rows, selected)


def _side(name, labels, **more):
    found = _evaluation(labels, checkpoint=name, **more)
    return Side(name, {found.benchmark: found})


A = {"1": [1, 1, 0, 0], "2": [0, 0, 0, 0], "3": [1, 1, 1, 1]}
B = {"1": [1, 1, 1, 1], "2": [0, 1, 0, 0], "3": [1, 1, 1, 1]}


def test_the_difference_is_the_later_one_minus_the_first():
    found = report([_side("base", A), _side("student", B)])
    (pair,) = found["pairs"]
    (row,) = pair["benchmarks"]
    expected = compare(B, A)
    assert (pair["checkpoint"], pair["against"], pair["pooled"]) == ("student", "base", None)
    assert row["difference"] == pytest.approx(0.25)
    assert row["p_two_sided"] == expected.p_two_sided == row["p_holm"]
    assert row["interval"] == list(expected.interval)
    assert row["interval"][0] <= row["within_reach"][0] <= row["difference"] <= row["within_reach"][1]
    assert row["within_reach"][1] <= row["interval"][1]
    assert [item["problem_id"] for item in row["problems"]] == ["1", "2"]
    assert row["coverage"] == 1
    assert found["notes"] == []
    assert json.loads(json.dumps(found)) == found


def test_scores_stand_beside_the_differences():
    (item,) = report([_side("base", A), _side("student", B)])["sides"][0]["evaluations"]
    assert (item["n"], item["k"], item["avg"]) == (3, 4, 0.5)
    assert item["pass_at_k"] == pytest.approx(2 / 3)
    assert item["majority_at_k"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert item["mean_length"] == 10


def test_several_are_compared_with_the_first_or_with_each_other():
    sides = [_side("a", A), _side("b", B), _side("c", {**B, "2": [1, 1, 1, 1]})]
    against_first = report(sides)
    assert [(p["checkpoint"], p["against"]) for p in against_first["pairs"]] == [("b", "a"), ("c", "a")]
    assert [row["num_tests"] for p in against_first["pairs"] for row in p["benchmarks"]] == [2, 2]
    assert any("Holm" in note for note in against_first["notes"])
    every = report(sides, all_pairs=True)
    assert [(p["checkpoint"], p["against"]) for p in every["pairs"]] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert all(row["p_holm"] >= row["p_two_sided"] for p in every["pairs"] for row in p["benchmarks"])


def test_benchmarks_are_pooled_and_those_of_one_side_left_out():
    def side(name, labels, *more):
        return Side(name, {b: _evaluation(labels, checkpoint=name, benchmark=b) for b in ("sums", "sets", *more)})

    found = report([side("a", A), side("b", B, "extra")])
    assert found["benchmarks"] == ["sums", "sets"]
    pooled = found["pairs"][0]["pooled"]
    assert (pooled["num_benchmarks"], pooled["difference"]) == (2, pytest.approx(0.25))
    assert found["notes"][0] == "b: extra left out, which not all sides were evaluated on"
    with pytest.raises(
        ArtifactError, match="a benchmark that all sides were evaluated on, got a: sums, sets; b: other"
    ):
        report([side("a", A), Side("b", {"other": _evaluation(B, benchmark="other")})])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"benchmark_version": 2}, "expected one benchmark_version on all sides, got 1 .base. and 2 .student."),
        ({"problems_sha256": "b" * 64}, "expected one problems_sha256 on all sides, got aaaaaaaaaaaa .base. and bbbb"),
    ],
)
def test_another_benchmark_is_refused_always(other, message):
    for force in (False, True):
        with pytest.raises(ArtifactError, match=message):
            report([_side("base", A), _side("student", B, **other)], force=force)


def test_other_decoding_and_limits_are_refused_or_flagged():
    limited = {"limit": 2, "problems_sha256": "b" * 64}
    sides = [_side("base", A), _side("student", {p: B[p] for p in "12"}, decoding={"temperature": 1.0}, **limited)]
    with pytest.raises(
        ArtifactError, match=r"decoding is temperature 0.6 .base. and temperature 1.0 .student.; .*--force"
    ):
        report(sides)
    found = report(sides, force=True)
    assert len(found["forced"]) == 2
    assert found["sides"][0]["evaluations"][0]["n"] == 2, "only the problems that both have"
    assert found["pairs"][0]["benchmarks"][0]["difference"] == pytest.approx((0.5 + 0.25) / 2)
    assert "FORCED: sums: decoding is" in markdown(found)


@pytest.mark.parametrize("column", ["gold", "problem_sha256"])
def test_other_problems_under_the_same_ids_are_refused_under_another_limit_too(column):
    def side(name, labels, golds, **metrics):
        rows = tuple({**row, column: golds[row["problem_id"]]} for row in _rows(labels))
        return _side(name, labels, rows=rows, **metrics)

    golds = {"1": "7", "2": "8", "3": "9"}
    limited = {"limit": 2, "problems_sha256": "b" * 64}
    few = {problem: B[problem] for problem in "12"}
    assert report([side("base", A, golds), side("student", few, golds, **limited)], force=True)["forced"]
    for metrics in (limited, {"problems_sha256": None}):
        sides = [side("base", A, golds), side("student", few, golds | {"2": "80"}, **metrics)]
        for force in (False, True):
            with pytest.raises(ArtifactError, match="got another problem or gold under the id '2'"):
                report(sides, force=force)


def test_a_record_that_does_not_say_its_problems_is_compared_by_its_rows():
    one, two = _side("base", A), _side("student", B)
    del two.evaluations["sums"].metrics["problems_sha256"]
    assert report([one, two])["pairs"][0]["benchmarks"][0]["difference"] == pytest.approx((0.5 + 0.25) / 3)


def test_without_a_common_problem_there_is_nothing_to_compare():
    sides = [_side("base", {"1": A["1"]}, limit=1), _side("student", {"2": A["2"]}, limit=2)]
    with pytest.raises(ArtifactError, match="expected common problems"):
        report(sides, force=True)


JUDGE = {"model": "m", "prompt_version": "1", "canary_acceptance": 0.5, "canaries_alarm": True}


def _judged(name, labels, asked=None, **report_):
    rows = tuple({**row, "judge": json.dumps({"status": "accepted"})} for row in _rows(labels))
    found = _evaluation(labels, checkpoint=name, rows=rows, judge=JUDGE | report_, judge_share=0.5)
    return Side(name, {"sums": replace(found, asked=asked or {})})


def test_the_rule_is_compared_unless_the_judge_is_asked_for(capsys):
    wrong = {"1": [0, 0], "2": [0, 0]}
    sides = [_side("base", wrong), _judged("student", wrong)]
    found = report(sides)
    (item,) = found["sides"][1]["evaluations"]
    assert (found["labels"], item["avg"], item["avg_rule"], item["avg_judged"]) == ("rule", 0, 0, 1)
    assert item["judge"] == "m, prompt 1"
    assert found["pairs"][0]["benchmarks"][0]["difference"] == 0
    (note,) = found["notes"]
    assert "student has a judge (m, prompt 1), who alone calls 50.0 % of the samples right" in note
    assert "50.0 % of injected wrong answers: ALARM" in note
    text = markdown(found)
    assert "**scores by the rule alone**" in text
    assert "| AVG@K % | with judge % |" in text
    assert "| 100.0 ! |" in text
    with pytest.raises(ArtifactError, match="a judge on all sides, got none for base on sums"):
        report(sides, judged=True, force=True)


def test_with_judged_every_figure_of_a_row_is_the_judges():
    wrong = {"1": [0, 0], "2": [0, 0]}
    found = report([_judged("base", wrong), _judged("student", wrong)], judged=True)
    (item,) = found["sides"][1]["evaluations"]
    assert (found["labels"], item["avg"], item["avg_rule"], item["pass_at_k"]) == ("judge", 1, 0, 1)
    assert item["majority_at_k"] == 1, "of the labels that count, not of the rule's"
    text = markdown(found)
    assert "**scores with the judge**" in text
    assert "**paired differences with the judge**" in text
    assert "| 100.0 ! | 0.0 |" in text
    assert "(m, prompt 1)" in text


def test_another_judge_or_one_asked_otherwise_is_not_the_same():
    for other in (_judged("student", B, model="n"), _judged("student", B, asked={"temperature": 1.0})):
        sides = [_judged("base", A, asked={"temperature": 0.0}), other]
        with pytest.raises(ArtifactError, match=r"judge is m, prompt 1, temperature 0.0 .base. and .*--force"):
            report(sides, judged=True)
        assert report(sides, judged=True, force=True)["forced"]
        assert report(sides)["forced"] == [], "the rule's labels do not depend on it"


PROGRAMS = {"grader": "unit_tests", "sandbox": 1, "protection": "full", "numpy": "2.1"}


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({}, {"max_sequence_tokens": 1000}, "max_sequence_tokens is None .base. and 1000 .student."),
        (
            {"harness": {"grader": "math v1", "math-verify": "0.8.0"}},
            {"harness": {"grader": "math v2", "math-verify": "0.9.0"}},
            "grader is math v1 .base. and math v2 .student.; sums: math-verify is 0.8.0 .base. and 0.9.0 .student.",
        ),
        (
            {"harness": PROGRAMS},
            {"harness": PROGRAMS | {"sandbox": 2, "protection": "partial", "numpy": "none"}},
            "sandbox is 1 .base. and 2 .student.; sums: protection is full .base. and partial .student.; "
            "sums: numpy is 2.1 .base. and none .student.",
        ),
    ],
)
def test_other_limits_and_graders_are_refused_or_flagged(one, other, message):
    sides = [_side("base", A, **one), _side("student", B, **other)]
    with pytest.raises(ArtifactError, match=message):
        report(sides)
    assert report(sides, force=True)["forced"]


def test_a_grader_that_is_not_recorded_is_noted():
    found = report([_side("base", A), _side("student", B, harness={"erpd-hub": "1", "grader": "math v1"})])
    assert found["notes"] == ["sums: which version of the grader base was graded by is not recorded"]
    older = _side("base", A, harness={"grader": "unit_tests"})
    assert report([older, _side("student", B, harness=PROGRAMS)])["notes"] == found["notes"]


@pytest.mark.parametrize("metrics", [{"sandbox": "namespaces"}, {"harness": {"grader": "unit_tests"}}])
def test_programs_have_no_majority(metrics):
    found = report([_side("base", A, **metrics), _side("student", B, **metrics)])
    assert found["sides"][0]["evaluations"][0]["majority_at_k"] is None
    assert found["sides"][0]["evaluations"][0]["pass_at_k"] == pytest.approx(2 / 3)


def test_where_interval_and_p_disagree_the_reason_is_given():
    """Thirty problems, all a little better: alike they are not, but a tenth of all problems may be missing here."""
    low, high = ({str(i): [int(j < right) for j in range(32)] for i in range(30)} for right in (16, 18))
    found = report([_side("base", low), _side("student", high)])
    (row,) = found["pairs"][0]["benchmarks"]
    assert row["p_two_sided"] < 0.001
    assert row["within_reach"][0] > -0.1
    assert row["interval"][0] < 0 < row["interval"][1]
    (note,) = found["notes"]
    assert note.startswith("student against base on sums: p < 0.05 although the interval holds 0: not alike on these")
    clear = report([_side("base", {p: [0] * 4 for p in low}), _side("student", {p: [1] * 4 for p in low})])
    assert clear["notes"] == []
    assert clear["pairs"][0]["benchmarks"][0]["interval"][0] > 0


def test_samples_taken_over_that_were_made_otherwise_are_noted_and_other_graders_of_them_refused():
    before = {"type": "transformers", "dtype": "float32", "versions": {"torch": "2.0"}}
    earlier = {"dtype": "bfloat16", "taken_over_otherwise": before}
    mixed = _side("student", B, taken_over=6, taken_over_otherwise=earlier)
    (note,) = report([_side("base", A), mixed])["notes"]
    assert (
        note
        == "sums: of student, 6 samples were made before with dtype bfloat16, float32, torch 2.0, type transformers"
    )
    graded = _side("student", B, taken_over=6, taken_over_otherwise={"graded_by": "0.0.1"})
    with pytest.raises(
        ArtifactError, match=r"what graded samples taken over is None .base. and 0.0.1 .student.; .*--for"
    ):
        report([_side("base", A), graded])
    assert report([_side("base", A), graded], force=True)["forced"]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"seeds_ignored": True, "duplicates": 9},
            "student has 9 samples that repeat another of their problem: whatever",
        ),
        ({"decoding": {"temperature": 0}}, "student was sampled at temperature 0, so K = 1 says the same"),
    ],
)
def test_equal_samples_are_one(metrics, said):
    """K times the same sample narrows nothing: `within reach` is as for K = 1, and a note says why."""
    first = {str(i): [i % 2, 0, 1, 1] for i in range(30)}
    second = first | {"1": [1] * 4}
    told = report([_side("base", first), _side("student", second, **metrics)], force=True)
    (row,), (plain,) = (
        found["pairs"][0]["benchmarks"] for found in (told, report([_side("base", first), _side("student", second)]))
    )
    assert (row["reach"], plain["reach"]) == (pytest.approx(1.0), pytest.approx(0.75))
    assert row["within_reach"] == row["interval"] != plain["within_reach"]
    assert any(note.startswith(f"sums: {said}") for note in told["notes"])


def test_samples_cut_by_a_server_are_noted():
    (note,) = report([_side("base", A), _side("student", B, cut_short=2)])["notes"]
    assert note == "sums: of student, 2 samples were ended by a limit of the server's own"


def test_what_has_to_be_known_is_noted():
    first = _side("base", {**A, "1": [1, None]}, k=4)
    second = Side("same", {"sums": _evaluation(A, checkpoint="base", selected="was selected on this benchmark", k=8)})
    second.evaluations["sums"].metrics["engine"] = {"type": "transformers"}
    notes = "\n".join(report([first, second])["notes"])
    for part in (
        "K is 4 (base), 8 (same): AVG@K means the same",
        "sampled by different engines: type vllm (base); type transformers (same)",
        "same was selected on this benchmark: neither its score there nor the difference is unbiased",
        "same checkpoint, byte for byte",
        "base has 2 to 4 samples a problem: it is not complete",
        "base has 1 of 10 samples that could not be graded",
    ):
        assert part in notes


def test_markdown_and_the_terminal_show_names_as_text(capsys):
    labels = {"[bold]|x\x1b[2J": [1, 1, 1, 1], "2": [0, 0, 0, 0]}
    found = report([_side("a|b", {p: [0, 0, 0, 0] for p in labels}), _side("c", labels)])
    text = markdown(found)
    assert "a\\|b" in text
    assert "\x1b" not in text
    print_report(found)
    shown = capsys.readouterr().out
    assert "[bold]|x?[2J" in shown
    assert "\x1b[2J" not in shown


# ------------------------------------------------------------------------------------ on a finished run


def test_references_name_the_same_evaluations(micro):
    hub = connect("local")
    details = {row["ref"]: row["details"] for row in micro.summary["checkpoints"]}
    repo = details["base"].partition("/base/")[0]
    ways = [
        ["micro:base", "micro:teacher@step-3"],
        [f"{repo}/base", f"{repo}/teacher@step-3"],
        [f"{repo}/base/addition-1digit", f"{repo}/teacher@step-3/addition-1digit"],
        [details["base"], details["teacher@step-3"]],
    ]
    first, *others = [report(read_sides(hub, texts)) for texts in ways]
    for found in others:
        assert found["pairs"][0]["benchmarks"] == first["pairs"][0]["benchmarks"]
    bare = report(read_sides(hub, ["base", "teacher@step-3"], run="micro"))
    assert bare["pairs"][0]["benchmarks"] == first["pairs"][0]["benchmarks"]
    scores = {row["ref"]: row["avg"] for row in micro.summary["checkpoints"]}
    assert first["sides"][0]["evaluations"][0]["avg"] == pytest.approx(scores["base"])
    assert first["sides"][1]["evaluations"][0]["avg"] == pytest.approx(scores["teacher@step-3"])


def test_a_local_folder_is_read_and_checked(micro, tmp_path):
    import shutil

    hub = connect("local")
    details = next(row["details"] for row in micro.summary["checkpoints"] if row["ref"] == "student")
    (side,) = read_sides(hub, [details, "micro:base"])[:1]
    repo, _, revision = details.rpartition("@")
    parts = repo.split("/")
    folder = hub.pull(
        "dataset", "/".join(parts[:2]), hub.resolve("dataset", "/".join(parts[:2]), revision), "/".join(parts[2:])
    )
    shutil.copytree(folder, tmp_path / "mine" / "student")
    found = report(read_sides(hub, ["micro:base", str(tmp_path / "mine")]))
    assert found["sides"][1]["evaluations"][0]["avg"] == pytest.approx(
        report([side, side._replace(name="again")])["sides"][0]["evaluations"][0]["avg"]
    )
    shard = next((tmp_path / "mine").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="altered"):
        read_sides(hub, ["micro:base", str(tmp_path / "mine")])


def test_a_selection_that_the_recipe_declares_is_noted(micro, monkeypatch, tmp_path):
    path = tmp_path / "runs" / "micro" / "summary.json"
    path.parent.mkdir(parents=True)
    rows = [{**row, "selection": True} for row in micro.summary["checkpoints"]]
    path.write_text(json.dumps({"checkpoints": rows}))
    monkeypatch.setattr("erpd_hub.run_files.run_folder", lambda run: tmp_path / "runs" / run)
    base, control = read_sides(connect("local"), ["micro:base", "micro:control"])
    assert base.evaluations["addition-1digit"].selected is None, "nobody chose it"
    assert "decided on this benchmark" in (control.evaluations["addition-1digit"].selected or "")


def test_samples_that_were_only_imported_are_refused_in_words(micro, tmp_path):
    source = tmp_path / "details_x.parquet"
    row = {
        "doc": {"choices": ["204"], "gold_index": 0, "id": "7"},
        "metric": {"avg@n:n=1": 0.0},
        "model_response": {"text": ["\\boxed{204}"], "output_tokens": []},
    }
    pq.write_table(pa.Table.from_pylist([row]), source)
    out = tmp_path / "mine"
    import_details("lighteval", source, out, benchmark="addition-1digit", tool_version="0.13.0")
    assert read_lineage(out / "lineage.json").metrics["benchmark"] == "addition-1digit"
    with pytest.raises(ArtifactError, match="mine: expected an evaluation, got imported samples without verdicts"):
        read_sides(connect("local"), ["micro:base", str(out)])


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["micro:base"], ConfigError, "at least two checkpoints, got 1"),
        (["micro:base", "micro:base"], ConfigError, "got one twice"),
        (["base", "student"], ConfigError, "give --run RUN"),
        (["micro:base", "micro:studnet"], ArtifactError, "expected one of base, .*did you mean 'student'"),
        (["micro:base", "mcro:base"], ArtifactError, "expected a finished run of this machine"),
        (["micro:base", "local/micro-details/nobody"], ArtifactError, "no evaluation there; .* holds base"),
        (["micro:base", "local/nothing-details/base"], ArtifactError, "no such dataset repository"),
        (["micro:base", "./not-there"], ArtifactError, "expected a folder with lineage.json"),
    ],
)  # fmt: skip
def test_references_that_name_nothing_say_what_there_is(micro, texts, error, message):
    with pytest.raises(error, match=message):
        read_sides(connect("local"), texts)


def test_the_command_prints_tables_json_and_markdown(micro):
    home = micro.home
    found = json.loads(cli("compare", "micro:base", "micro:student", "--json", home=home).stdout)
    assert found["schema"] == "erpd-hub/compare/v1"
    table = cli("compare", "--run", "micro", "base", "student", "control", home=home).stdout
    assert "paired differences" in table
    assert "p (Holm)" in table
    text = cli("compare", "--run", "micro", "base", "student", "--markdown", "--merge-answers", home=home).stdout
    assert text.startswith("**scores**\n\n| checkpoint | benchmark |")
    failed = cli("compare", "micro:base", "micro:base", home=home, expect=2)
    assert failed.stderr.strip() == "erpd-hub: compare: expected different checkpoints, got one twice"
