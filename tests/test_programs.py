"""Grading programs by tests, and unit tests as what judges samples."""

import pytest

from erpd_hub.config import PromptFormat
from erpd_hub.evaluation.code.extraction import extract_program
from erpd_hub.evaluation.code.grader import UnitTests
from erpd_hub.evaluation.code.matching import same_output, same_value
from erpd_hub.evaluation.code.programs import Case, Graders, ProgramGrade, Tests, grade_program
from erpd_hub.evaluation.code.sandbox import Limits, Sandbox
from erpd_hub.prompts import Problem
from erpd_hub.sampling.draws import Draw, Prompt
from erpd_hub.sampling.engine import Completion

Tests.__test__ = False  # nothing for pytest to collect
DOUBLE = Tests("stdin", (Case("1\n", "2\n"), Case("21", "42"), Case("0.5", "1")))
PAIRS = Tests("call", (Case("[1, 2]\n3", "[[1, 3], [2, 3]]"), Case("[]\n0", "[]")), "pairs")
RIGHT = "print(2 * float(input()))"
LIMITS = Limits(seconds=1.0, wall_seconds=4.0)


@pytest.fixture(scope="module")
def warm():
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("1\n2\n", " 1 \n2", True),
        ("1 2", "1  2", True),  # numbers, once the texts differ
        ("a b", "a  b", False),
        ("1.0 2", "1 2.00", True),
        ("yes 1.0", "yes 1", False),  # not all of the line are numbers
        ("1", "1\n", True),
        ("1\n\n2", "1\n2", False),
        ("50000000000000000", "50000000000000001", False),
        ("0.1", "0.10000000000000001", False),
        ("1e3", "1000", True),
        ("nan", "NaN", False),
        ("1", "sNaN", False),
        ("1 2", "1 2 " + "3 " * 100_000, False),
        ("", "\n\n", True),
        ("1", "1e999999999999999999999", False),
        ("YES", "yes", False),
    ],
)
def test_outputs_as_livecodebench_compares_them(expected: str, got: str, same: bool) -> None:
    assert same_output(expected, got) is same


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("[1, 2]", "[1,2]", True),
        ("1", "1.0", True),
        ("true", "1", True),  # as in Python
        ('"1"', "1", False),
        ("0.3", "0.30000000000000004", False),
        ("1", "NaN", False),
        ("1", "1]", False),
        ("1", "[" * 50_000, False),
        ("1", "1" * 5_000, False),
        ("1", "[" + "1," * 100_000 + "1]", False),
    ],
)
def test_values_as_livecodebench_compares_them(expected: str, got: str, same: bool) -> None:
    assert same_value(expected, got) is same


@pytest.mark.parametrize(
    ("program", "outcome", "failed"),
    [
        (RIGHT, "passed", None),
        ("print(2 * int(input()))", "runtime error", 2),
        ("n = float(input())\nprint(2 if n == 1 else 43)", "wrong answer", 1),
        ("n = float(input())\nwhile n > 1: pass\nprint(2 * n)", "timeout", 1),
        ("print(2 * float(input())\n", "compile error", 0),
        ("x = bytearray(1 << 40)", "memory", 0),
        ("while True: print('x' * 65536)", "output limit", 0),
        ("", "no program", 0),
        (None, "no program", 0),
        ("import os\nos._exit(0)", "wrong answer", 0),
    ],
)
def test_outcomes(warm: Sandbox, program: str | None, outcome: str, failed: int | None) -> None:
    grade = grade_program(program, DOUBLE, LIMITS, sandbox=warm)
    assert (grade.outcome, grade.failed) == (outcome, failed), grade
    assert (grade.passed, grade.total) == (3 if failed is None else failed, 3)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("return [(a, y) for a in x]", "passed"),
        ("print('[]'); return [[a, y] for a in x]", "passed"),
        ("print([[1, 3], [2, 3]])", "wrong answer"),
        ("raise KeyError(1)", "runtime error"),
        ("import os; os._exit(0)", "runtime error"),
        ("return {x[0]}", "runtime error"),
        ("return [[1, 3], [2, 3]]", "wrong answer"),  # right once
    ],
)
def test_calls(warm: Sandbox, body: str, outcome: str) -> None:
    for program in (f"class Solution:\n    def pairs(self, x, y):\n        {body}", f"def pairs(x, y):\n    {body}"):
        assert grade_program(program, PAIRS, LIMITS, sandbox=warm).outcome == outcome


def test_no_test_knows_of_another(warm: Sandbox) -> None:
    counting = (
        "import os, builtins\nseen = os.path.exists('seen') or hasattr(builtins, 'seen')\n"
        "open('seen', 'w').close()\nbuiltins.seen = True\nprint('again' if seen else 'first')"
    )
    tests = Tests("stdin", (Case("1", "first"), Case("2", "first")))
    assert grade_program(counting, tests, sandbox=warm).outcome == "passed"


def grades(programs: list[tuple[str | None, Tests]], workers: int) -> list[ProgramGrade]:
    with Graders(workers) as graders:
        return graders.grade(programs, Limits(seconds=0.2))


def test_a_grade_does_not_depend_on_the_workers() -> None:
    wrong, slow = "print(3)", "while True: pass"
    programs = [(text, tests) for text in (RIGHT, wrong, slow, "(", None) for tests in (DOUBLE, PAIRS)]
    alone = grades(programs, workers=1)
    together = grades(programs, workers=4)
    assert [(g.outcome, g.failed, g.passed) for g in alone] == [(g.outcome, g.failed, g.passed) for g in together]
    assert [g.outcome for g in alone[::2]] == ["passed", "wrong answer", "timeout", "compile error", "no program"]
    assert grades([], workers=1) == []


def test_tests_are_checked_and_hashed() -> None:
    assert Tests.from_json(PAIRS.to_json()) == PAIRS
    assert Tests.from_json(DOUBLE.to_json()).sha256 == DOUBLE.sha256 != PAIRS.sha256
    with pytest.raises(ValueError, match="expected a function for calls alone"):
        Tests("stdin", (), "f")
    with pytest.raises(ValueError, match="expected at least one"):
        grade_program(RIGHT, Tests("stdin", ()))


@pytest.mark.parametrize(
    ("text", "thinking", "program"),
    [
        ("```python\na\n```", False, "a"),
        ("```\nfirst\n```\nand\n```py\nlast\nline\n```\nbye", False, "last\nline"),
        ("<think>```\nno\n```</think>```python\nyes\n```", False, "yes"),
        ("```\nno\n``` still thinking", True, None),
        ("thought</think>\n```\nyes\n```", True, "yes"),
        ("<think>\n```python\nno\n```\nstill thinking", False, None),
        ("no fence", False, None),
        ("```python\ncut off", False, None),
        ("```\n```", False, None),
    ],
)
def test_extraction(text: str, thinking: bool, program: str | None) -> None:
    assert extract_program(text, thinking=thinking) == program


def pair(text: str, problem_id: str = "double", finish_reason: str = "stop", thinking: bool = False):
    problem = Problem(problem_id, "bench", "Double it.", "sha256:0")
    draw = Draw(Prompt(problem, (1,), thinking), 0, 0)
    return draw, Completion([1], None, finish_reason, text)


def test_unit_tests_judge_samples() -> None:
    stored = {"double": DOUBLE}
    samples = [
        pair(f"```python\n{RIGHT}\n```"),
        pair("```python\nprint(1)\n```"),
        pair("```python\nwhile True: pass\n```"),
        pair("I cannot."),
        pair(f"```python\n{RIGHT}\n```", finish_reason="length"),
        pair("the server said no", finish_reason="error"),
        pair(f"```python\n{RIGHT}\n```", problem_id="other"),
        pair(f"```\nprint(1)\n```</think>```python\n{RIGHT}\n```", thinking=True),
    ]
    judge = UnitTests(stored.__getitem__, limits=Limits(seconds=0.2), workers=1)
    try:
        grades = judge.grade(samples, PromptFormat())
        assert judge.grade([], PromptFormat()) == []
    finally:
        judge.close()
    assert [grade.verdict for grade in grades] == [
        "correct", "wrong", "timeout", "no_answer", "truncated", "ungradable", "ungradable", "correct",
    ]  # fmt: skip
    assert [grade.label for grade in grades] == [1, 0, 0, 0, 0, None, None, 1]
    assert grades[0].extracted == RIGHT
    assert grades[1].reason == "wrong answer at test 1 of 3"
    assert "no tests" in grades[6].reason


def test_equal_programs_run_once() -> None:
    with Graders(1) as graders:
        first, second = graders.grade([(RIGHT, DOUBLE), (RIGHT, DOUBLE)])
        assert first is second


def test_the_overhead_is_measured_against_a_bare_interpreter() -> None:
    from erpd_hub.benchmarks.sandbox import SandboxBench, render, run

    report = run(SandboxBench(repeats=2, workers=1, programs=2, tests=2))
    assert report["ratio"] == pytest.approx(report["program_ms"] / report["bare_ms"])
    assert report["tests_per_second"] > 0
    assert "times that" in render(report)
