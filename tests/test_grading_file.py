"""`erpd-hub grade`: rows in, graded rows out, whatever the rows hold and whenever it is stopped."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from erpd_hub.cli import app
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation import answer_rows
from erpd_hub.evaluation.grade_file import grade_file


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


MIXED = [
    {"output": "so \\boxed{5}", "gold": 5, "id": "a"},
    {"output": "so \\boxed{x = 6}", "gold": "5", "label": 0},
    {"output": "<think>\\boxed{5}", "gold": "5"},
    {"output": None, "gold": "5"},
    {"output": "\\boxed{5}", "gold": "5", "finish_reason": "length"},
    {"output": "\\boxed{18}", "gold": "9 + 9\n#### 18", "label": 0},
    {"output": "\\boxed{\ud800}", "gold": "\\frac12"},
    {"output": "5", "gold": "5"},
]
VERDICTS = ["correct", "wrong", "no_answer", "no_answer", "truncated", "correct", "wrong", "no_answer"]
BROKEN = [
    "no json",
    "[1]",
    "",
    '{"gold": "5"}',
    '{"output": ["5"], "gold": "5"}',
    '{"output": "5", "gold": {}}',
    "[" * 9999,
]


def test_rows_keep_their_keys_and_get_grades(tmp_path: Path) -> None:
    report = grade_file(written(tmp_path / "in.jsonl", MIXED), tmp_path / "out" / "out.jsonl")
    found = rows_of(tmp_path / "out" / "out.jsonl")
    assert [row["verdict"] for row in found] == VERDICTS
    assert found[0] | {"ms": 0} == MIXED[0] | {
        "verdict": "correct", "label": 1, "extracted": "5", "grader": "integer", "ms": 0, "reason": None,
    }  # fmt: skip
    assert (found[1]["given_label"], found[1]["label"], found[1]["grader"]) == (0, 0, "reader")
    assert report.as_dict()["given_labels"] == {"agree": 1, "false_positive": 1}
    assert list(tmp_path.glob("out/*.partial")) == []


def test_a_graded_file_keeps_the_labels_that_were_given_first(tmp_path: Path) -> None:
    first, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    grade_file(written(tmp_path / "in.jsonl", MIXED), first)
    report = grade_file(first, again)
    assert [row.get("given_label") for row in rows_of(again)][1] == 0
    assert rows_of(again)[5] == rows_of(first)[5] | {
        "ms": rows_of(again)[5]["ms"],
        **{f"given_{key}": rows_of(first)[5][key] for key in ("verdict", "extracted", "grader", "ms", "reason")},
    }
    assert report.as_dict()["given_labels"]["false_positive"] == 1


def test_lines_that_are_no_rows_are_named_and_kept(tmp_path: Path) -> None:
    report = grade_file(written(tmp_path / "in.jsonl", [MIXED[0], *BROKEN, MIXED[0]]), tmp_path / "out.jsonl")
    found = rows_of(tmp_path / "out.jsonl")
    assert [row["verdict"] for row in found] == ["correct", *["ungradable"] * len(BROKEN), "correct"]
    assert report.num_malformed == len(BROKEN)
    assert [line.partition(":")[0] for line in report.malformed] == [f"line {n}" for n in range(2, 2 + len(BROKEN))]
    assert found[4]["gold"] == "5"


def test_a_line_too_long_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_rows, "_MAX_LINE", 200)
    rows = [MIXED[0], {"output": "x" * 1000 + "\\boxed{5}", "gold": "5"}, MIXED[0]]
    grade_file(written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert [row["verdict"] for row in rows_of(tmp_path / "out.jsonl")] == ["correct", "ungradable", "correct"]


def test_bare_answers(tmp_path: Path) -> None:
    rows = [{"output": text, "gold": "5"} for text in ("5", " 5.\n", "x = 5", "\\boxed{5}", "6", "", "{5")]
    grade_file(written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", extract="whole")
    found = [row["verdict"] for row in rows_of(tmp_path / "out.jsonl")]
    assert found == ["correct"] * 4 + ["wrong", "no_answer", "wrong"]


@pytest.mark.parametrize("cut", [0, 1, 40, 150, 700])
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, cut: int) -> None:
    source, output = written(tmp_path / "in.jsonl", [*MIXED, *BROKEN]), tmp_path / "out.jsonl"
    grade_file(source, output)
    whole = output.read_bytes()
    partial = _partial_name(source, output)
    partial.write_bytes(whole[:cut])
    output.unlink()
    report = grade_file(source, output)
    assert report.resumed == whole[:cut].count(b"\n")
    assert [row | {"ms": 0} for row in rows_of(output)] == [
        row | {"ms": 0} for row in map(json.loads, whole.splitlines())
    ]
    assert sum(report.verdicts.values()) == report.rows == len(MIXED) + len(BROKEN)


def _partial_name(source: Path, output: Path) -> Path:
    """Where an interrupted run keeps its rows: seen from one that is refused."""
    written(source.with_name("other.jsonl"), [{"output": "1", "gold": "1"}])
    names: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: names.append(self))
        grade_file(source.with_name("other.jsonl"), output.with_name("out.jsonl"))
    return names[0]


def test_rows_of_another_input_are_refused(tmp_path: Path) -> None:
    source, output = written(tmp_path / "in.jsonl", MIXED), tmp_path / "out.jsonl"
    partial = _partial_name(source, output)
    with pytest.raises(ArtifactError, match="expected rows of this input"):
        grade_file(source, output)
    partial.unlink()
    assert grade_file(source, output).rows == len(MIXED)


def test_prompts_that_opened_a_think_block(tmp_path: Path) -> None:
    rows = [
        {"output": "so \\boxed{5}, but", "gold": "5"},
        {"output": "hm</think>\\boxed{5}", "gold": "5"},
        {"output": "\\boxed{5}", "gold": "5", "thinking": False},
        {"output": "\\boxed{5}", "gold": "5", "thinking": "thoughts of another harness"},
    ]
    source, output = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    report = grade_file(source, output, thinking=True)
    assert [row["verdict"] for row in rows_of(output)] == ["no_answer", "correct", "correct", "no_answer"]
    assert (report.closed, report.unclosed) == (1, 1)
    plain = CliRunner().invoke(app, ["grade", str(source), "-o", str(output)])
    assert "3 graded outputs have no </think>" in plain.stderr
    assert rows_of(output)[0]["verdict"] == "correct"
    told = CliRunner().invoke(app, ["grade", str(source), "-o", str(output), "--thinking"])
    assert told.exit_code == 0
    assert rows_of(output)[0]["verdict"] == "no_answer"


def test_refusals(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", MIXED)
    with pytest.raises(ConfigError, match="the same"):
        grade_file(source, source)
    with pytest.raises(ConfigError, match="there is none"):
        grade_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl")


def test_command(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [{"text": "\\boxed{5}", "answer": "5"}, "no json"])
    words = ["grade", str(source), "-o", str(tmp_path / "out.jsonl"), "--text-key", "text", "--gold-key", "answer"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0
    assert "line 2: expected a JSON object" in result.stderr
    assert CliRunner().invoke(app, words).stdout.startswith("2 rows in ")
    assert rows_of(tmp_path / "out.jsonl")[0]["verdict"] == "correct"
