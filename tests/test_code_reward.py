"""Programs as responses: the built-in code task, problems with tests from JSON lines, and the reward `unit_tests`."""

import json
import random
from pathlib import Path

import pytest
from conftest import cli

from erpd_hub import programs
from erpd_hub.config import CodePrompts, PromptFormat, RangeFilter
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.evaluation.code.extraction import extract_program
from erpd_hub.evaluation.code.grader import UnitTests
from erpd_hub.evaluation.code.programs import Case, Graders
from erpd_hub.evaluation.code.programs import Tests as UnitTestsOfProblem
from erpd_hub.evaluation.code.sandbox import Limits
from erpd_hub.prompt_tests import PromptTests, unit_tests
from erpd_hub.prompts import Problem, read_prompts
from erpd_hub.rewards import open_reward
from erpd_hub.sampling.draws import Draw, Prompt
from erpd_hub.sampling.engine import Completion
from erpd_hub.stage_context import StageContext
from erpd_hub.stages.prompts import run as draw_prompts

NO_FLAW = {"no_addend": 0.0, "digit_error": 0.0, "unclosed": 0.0}


def test_a_program_passes_its_tests_unless_it_has_a_flaw() -> None:
    problems = [problem for problem, _ in programs.program_problems(6, min_digits=1, max_digits=2, seed=3)]
    flaws = ({"no_addend": 1.0}, {"digit_error": 1.0}, {"unclosed": 1.0})
    written = [
        (p, programs.program(p, random.Random(5), **{**NO_FLAW, **flaw})) for p in problems for flaw in ({}, *flaws)
    ]
    with Graders() as graders:
        graded = graders.grade([(extract_program(text, thinking=False), programs.tests_of(p)) for p, text in written])
    for place, ((problem, text), grade) in enumerate(zip(written, graded, strict=True)):
        harmless = programs.parse_program_problem(problem)[1] == 0 and place % 4 == 1
        assert (grade.outcome == "passed") == (place % 4 == 0 or harmless), (problem, text, grade)
    assert {grade.outcome for grade in graded} == {"passed", "wrong answer", "compile error"}
    assert written[0][1] == programs.flawless_program(problems[0])


STDIN = {"inputs": ["1\n2\n", "5\n6\n"], "outputs": ["3\n", "11\n"]}
CALL = {"inputs": ['[1, 2]\n"x"\n'], "outputs": ["3"]}


def _row(query_id: str, tests: object, **more: object) -> dict[str, object]:
    packed = tests if isinstance(tests, str) else json.dumps(tests)
    return {"query_id": query_id, "question": f"Problem {query_id}: add.", "input_output": packed, **more}


def _drawn(tmp_path: Path, rows: list[object], **config: object) -> tuple[Path, dict[str, object]]:
    """The prompt set of a file of rows; text is a line as it is."""
    folder, out = tmp_path / "set", tmp_path / "out"
    (folder / "train").mkdir(parents=True)
    out.mkdir()
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "train" / "train.jsonl").write_text("\n".join(lines) + "\n")
    made = CodePrompts.model_validate({"type": "code", "decontaminate": (), **config})
    return out, draw_prompts(made, out, context=StageContext(0, tmp_path / "work"), dataset=folder).metrics


def test_rows_become_problems_with_tests_and_bad_ones_are_listed(tmp_path: Path) -> None:
    bad = {
        "cpp": _row("cpp", STDIN, language="CPP"),
        "uneven": _row("uneven", {"inputs": ["1"], "outputs": []}),
        "objects": _row("objects", {"inputs": [[1, 2]], "outputs": ["3"]}),
        "large": _row("large", {"inputs": ["1" * 600_000], "outputs": ["1"]}),
        "no-json": _row("no-json", "{"),
        "hostile": _row("hostile", CALL, metadata={"fn_name": "__import__('os').system"}),
        "dunder": _row("dunder", CALL, metadata={"fn_name": "__reduce__"}),
        "not-json-input": _row("not-json-input", {"inputs": ["1\nx"], "outputs": ["1"]}, metadata={"fn_name": "f"}),
        "not-json-result": _row("not-json-result", {"inputs": ["1"], "outputs": ["x"]}, metadata={"fn_name": "f"}),
    }
    good = [_row("a", STDIN), _row("b", CALL, metadata={"fn_name": "count"}), _row("c", STDIN, question="")]
    out, metrics = _drawn(tmp_path, [*good, *bad.values(), '{"torn'])
    problems, format = read_prompts(out)
    assert sorted(p.problem_id for p in problems) == ["a", "b"], "a row without a problem is a bad one"
    assert metrics["read"] == 13 and metrics["bad"] == 11
    texts = {p.problem_id: p.problem for p in problems}
    assert texts["b"].endswith("The function is called `count`."), "or its tests could not be passed"
    tests = PromptTests(out)
    assert tests("a") == UnitTestsOfProblem("stdin", (Case("1\n2\n", "3\n"), Case("5\n6\n", "11\n")))
    assert tests("b") == UnitTestsOfProblem("call", (Case('[1, 2]\n"x"', "3"),), "count")
    assert {p.problem_id: p.gold for p in problems} == {name: tests(name).gold for name in ("a", "b")}
    with pytest.raises(KeyError):
        tests("cpp")
    listed = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    reasons = {item["problem_id"]: item["reason"] for item in listed}
    assert set(bad) <= set(reasons)
    assert reasons["hostile"].startswith("expected the name of a function")
    assert "```python" in format.template


def test_only_what_was_drawn_has_its_tests_kept_and_filters_apply(tmp_path: Path) -> None:
    rows = [_row(str(index), STDIN, difficulty=index) for index in range(20)]
    kept = RangeFilter(column="difficulty", minimum=5, maximum=12)
    out, metrics = _drawn(tmp_path, list(rows), count=3, filters=(kept,))
    problems, _ = read_prompts(out)
    assert metrics["filtered"] == 12 and len(problems) == 3
    assert all(5 <= int(problem.problem_id) <= 12 for problem in problems)
    tests = PromptTests(out)
    known = [index for index in range(20) if _has(tests, str(index))]
    assert known == sorted(int(problem.problem_id) for problem in problems)


def _has(tests: PromptTests, problem_id: str) -> bool:
    try:
        tests(problem_id)
    except KeyError:
        return False
    return True


def test_a_file_that_is_not_there_and_prompts_without_tests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected the file other\.jsonl in .*AReaL"):
        _drawn(tmp_path, [_row("a", STDIN)], files=("other.jsonl",))
    with pytest.raises(StageError, match="expected prompts with tests, got none"):
        open_reward("unit_tests", seconds=1.0, prompts=tmp_path)


def _pair(text: str, problem_id: str = "a", finish_reason: str = "stop") -> tuple[Draw, Completion]:
    prompt = Prompt(Problem(problem_id, "s", "p", "sha256:"), (1,), False)
    return Draw(prompt, 0, 1), Completion([1], None, finish_reason, text)  # type: ignore[arg-type]


def test_all_tests_have_to_pass_for_a_reward(tmp_path: Path) -> None:
    out, _ = _drawn(tmp_path, [_row("a", STDIN)])
    reward = unit_tests(out)
    fenced = "```python\n{}\n```"
    texts = [
        "It is easy.\n" + fenced.format("print(int(input()) + int(input()))"),
        fenced.format("print(3)"),  # the first test only
        fenced.format("while True: pass"),
        "no program at all",
    ]
    try:
        short = UnitTests(PromptTests(out), limits=Limits(seconds=0.5, wall_seconds=10.0))
        grades = short.grade([_pair(text) for text in texts], PromptFormat())
        assert [(g.verdict, g.label) for g in grades] == [
            ("correct", 1),
            ("wrong", 0),
            ("timeout", 0),
            ("no_answer", 0),
        ]
        cut, stranger = reward.grade([_pair(texts[0], finish_reason="length"), _pair(texts[0], "b")], PromptFormat())
        assert (cut.verdict, cut.label) == ("truncated", 0)
        assert (stranger.verdict, stranger.label) == ("ungradable", None)
    finally:
        reward.close()
        short.close()


def test_a_policy_that_writes_programs_from_base_to_score(tmp_path: Path) -> None:
    recipe = {
        "run": "code",
        "threads": 1,
        "steps": {
            "base": {
                "type": "tiny", "task": "program", "min_digits": 1, "max_digits": 1, "carry_error": 0.0,
                "digit_error": 0.0, "no_work": 0.0, "target_accuracy": 0.0, "first_check": 5, "decay_steps": 5,
            },
            "prompts": {
                "type": "generator", "generator": "program", "min_digits": 1, "max_digits": 1, "count": 8,
                "format": {"template": "{problem}?"}, "decontaminate": [],
            },
            "rollouts": {
                "stage": "rollout", "prompts": "prompts", "k": 4, "reward": "unit_tests",
                "decoding": {"max_new_tokens": 32}, "engine": {"dtype": "float32"},
            },
            "evaluate": {
                "checkpoints": ["base"], "benchmarks": ["programs"], "k": 2, "limit": 6, "engine": {"dtype": "float32"},
            },
        },
    }  # fmt: skip
    path = tmp_path / "code.yaml"
    path.write_text(json.dumps(recipe))
    found = json.loads(cli("run", path, "--json", home=tmp_path / "home").stdout)
    (row,) = found["checkpoints"]
    assert (row["benchmark"], row["n"], row["k"]) == ("programs", 6, 2)
    assert row["avg"] is not None, "graded, whatever it has learnt in so few steps"
    lines = cli("lineage", "local/code-r1-rollouts", home=tmp_path / "home").stdout
    assert "rollout" in lines
