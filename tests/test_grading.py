"""Grading: extraction, the rules, algebra in a child process, and answers that attack the grader."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from erpd_hub.errors import ErpdError
from erpd_hub.evaluation import grading_pool
from erpd_hub.evaluation.answers import extract_answer, is_prose, last_boxed, normalise_answer, parse_integer
from erpd_hub.evaluation.grading import MAX_ANSWER_CHARACTERS, Response, check_gold, check_golds, grade, grade_many


def labels(pairs: list[tuple[str, str]]) -> list[int | None]:
    """Labels of (gold, content of the box) pairs."""
    return [g.label for g in grade_many([Response(gold, f"So \\boxed{{{a}}}.") for gold, a in pairs], extract="boxed")]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} done", r"\frac{1}{2}"),
        (r"\boxed{x = \boxed{3}}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{5} and \boxed{6", "5"),
        (r"\boxed {7} }", "7"),
        (r"a } \boxed{4} {", "4"),
        (r"\boxed{a\\}", "a\\\\"),
        ("no box", None),
        (r"\boxed{1", None),
    ],
)
def test_last_balanced_box(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


def test_only_what_follows_thinking_counts() -> None:
    text = r"<think>\boxed{1}</think> \boxed{2}</think> \boxed{3}"
    assert extract_answer(text, extract="boxed", thinking=False) == "3"
    assert extract_answer(r"\boxed{1}</think> none", extract="boxed", thinking=True) is None
    assert extract_answer(r"thinking \boxed{1}", extract="boxed", thinking=True) is None
    assert extract_answer(r"thinking \boxed{1}", extract="boxed", thinking=False) == "1"
    assert extract_answer(r"\boxed{ }", extract="boxed", thinking=False) is None


def test_first_line() -> None:
    assert extract_answer(" 83\n12 + 4 = 16", extract="first-line", thinking=False) == "83"
    assert extract_answer("\n83", extract="first-line", thinking=False) is None


@pytest.mark.parametrize(
    ("text", "integer"),
    [
        ("1406", "1406"), ("1,406", "1406"), ("1{,}406", "1406"), (r"1\,406\,000", "1406000"), ("+7", "7"),
        ("-0", "0"), ("007", "7"), ("\N{MINUS SIGN}3", "-3"), (r"$\text{5}$.", "5"), (r"\(12\)", "12"),
        (r"\boxed{204}", "204"),
        ("9" * 5000, "9" * 5000), ("1,40", None), ("1.0", None), ("1 406", None), ("٣", None), ("", None), ("x", None),
    ],
)  # fmt: skip
def test_integers(text: str, integer: str | None) -> None:
    assert parse_integer(text) == integer


def test_typesetting_does_not_matter_and_spacing_of_digits_does() -> None:
    assert normalise_answer(r"$\dfrac{1}{2}$") == normalise_answer(r"\frac{1}{2}.")
    assert normalise_answer(r"\left( 1, 2 \right)") == normalise_answer("(1,2)")
    assert normalise_answer(r"74^{\circ}") == normalise_answer(r"74^\circ")
    assert normalise_answer("Odd $n$") == normalise_answer(r"odd \(n\)")
    assert normalise_answer("X") != normalise_answer("x")
    assert normalise_answer("1 2") != normalise_answer("12")


def test_prose() -> None:
    assert all(map(is_prose, ["odd $n$", r"\text{Yes}", "m is prime or 1", "No"]))
    assert not any(map(is_prose, [r"\sqrt{2}", "2AB", "xyz", r"\frac{\pi}{2}", "12", "n=2"]))


@pytest.fixture
def without_math_verify(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grading_pool.importlib.util, "find_spec", lambda name: None)
    grading_pool.shared_pool.cache_clear()
    yield
    grading_pool.shared_pool.cache_clear()


@pytest.mark.usefixtures("without_math_verify")
def test_what_the_rules_decide_needs_no_algebra() -> None:
    pairs = [
        ("1406", "1406", 1), ("1406", "1,406", 1), ("10000", "9999", 0), ("83", "40+43", 0), ("83", "8 3", 0),
        (r"\frac12", r"$\dfrac12$", 1), ("odd $n$", "Odd $n$", 1), ("odd $n$", "even $n$", 0),
    ]  # fmt: skip
    assert labels([(gold, answer) for gold, answer, _ in pairs]) == [label for *_, label in pairs]
    lines = [Response("83", " 83\n1 + 1 = 2"), Response("83", "eighty"), Response("83", "83.5")]
    assert [g.label for g in grade_many(lines, extract="first-line")] == [1, 0, 0]


def test_verdicts_and_their_order() -> None:
    def one(text: str, finish: str = "stop", *, gold: str = "5", thinking: bool = False) -> tuple:
        g = grade(gold, text, finish_reason=finish, extract="boxed", thinking=thinking)  # type: ignore[arg-type]
        return g.verdict, g.label, g.extracted, g.grader

    assert one(r"\boxed{5}") == ("correct", 1, "5", "integer")
    assert one(r"\boxed{6}") == ("wrong", 0, "6", "integer")
    assert one(r"\boxed{5}", "length") == ("truncated", 0, "5", "none")
    assert one("5", "length") == ("truncated", 0, None, "none")
    assert one("5") == ("no_answer", 0, None, "none")
    assert one(r"\boxed{5}", thinking=True) == ("no_answer", 0, None, "none")
    assert one(r"\boxed{5}", "error") == ("ungradable", None, "5", "none")
    assert one(r"\boxed{5}", "length", gold=" ") == ("ungradable", None, "5", "none")
    verdict, label, extracted, _ = one("\\boxed{" + "9" * 100_000 + "}")
    assert (verdict, label, len(extracted)) == ("wrong", 0, MAX_ANSWER_CHARACTERS)


def test_algebra() -> None:
    pairs = [
        (r"\frac{1}{2}", "0.5", 1), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}", 1), ("x^2+1", "1+x^2", 1),
        (r"\{1,2\}", r"\{2,1\}", 1), (r"74^\circ", "74", 1), ("12", "x=12", 1), ("12", "12.0", 1),
        (r"\frac{1}{3}", "0.333333", 1), (r"\frac{1}{3}", "0.33", 0), (r"\infty", r"+\infty", 1),
        ("3^{2025}", r"3\cdot 3^{2024}", 1), ("3^{2025}", "3^{2026}", 0), ("[0,1)", "[0,1]", 0), ("12", "1 2", 0),
        (r"50(1 - \frac{1}{2^{101} - 1})", r"50-\frac{50}{2^{101}-1}", 1), (r"50(1 - \frac{1}{2^{101} - 1})", "50", 0),
        ("10000", "9999.9999999", 0), ("1", "0.99999999999999999999", 0), ("7", r"\clubsuit", 0),
    ]  # fmt: skip
    found = labels([(gold, answer) for gold, answer, _ in pairs])
    wrong = [pair for pair, label in zip(pairs, found, strict=True) if label != pair[2]]
    assert wrong == []


def test_a_bad_gold_is_nobodys_fault() -> None:
    (result,) = grade_many([Response(r"\underbrace{\underbrace{2}_{n}}_{m}1", r"\boxed{21}")], extract="boxed")
    assert (result.verdict, result.label) == ("ungradable", None)


def test_hostile_answers_cost_their_time_and_nothing_else(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    hostile = [
        r"\sum_{k=1}^{2} 9^{9^{9^{9}}}", r"\int_0^1 9^{9^{9^{9}}} dx",
        "(" * 900 + ")" * 900, "{" * 900 + "1" + "}" * 900, "__import__('os')",
        f"__import__('os').system('touch {touched}')", f"\\text{{open('{touched}','w')}}", "x" * 100_000,
    ]  # fmt: skip
    started = time.monotonic()
    responses = [Response(r"\frac12", f"\\boxed{{{answer}}}") for answer in hostile]
    results = grade_many([*responses, Response(r"\frac12", r"\boxed{0.5}")], extract="boxed", seconds=1.5)
    assert time.monotonic() - started < 25
    assert [result.label for result in results] == [0] * len(hostile) + [1]
    assert results[0].verdict == results[1].verdict == "timeout"
    assert not touched.exists()


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 20_000, "\\boxed{" * 20_000 + "1" + "}" * 20_000, "}" * 10**6, "$" * 10**6, "\\" * 10**6]
)
def test_extraction_is_linear(text: str) -> None:
    started = time.monotonic()
    extract_answer(text, extract="boxed", thinking=False)
    normalise_answer(text[:MAX_ANSWER_CHARACTERS])
    parse_integer(text[:MAX_ANSWER_CHARACTERS])
    assert time.monotonic() - started < 2


def test_a_worked_solution_is_no_gold() -> None:
    solution = "Natalia sold 24 clips in May.\nAltogether she sold 72."
    assert check_golds([solution, "odd $n$"], extract="boxed") == ["a worked solution, not an answer", None]
    found = grade(solution, r"\boxed{72}", finish_reason="stop", extract="boxed", thinking=False)
    assert (found.verdict, found.label) == ("ungradable", None)
    assert found.reason == "the gold is a worked solution, not an answer"


@pytest.mark.usefixtures("without_math_verify")
def test_missing_math_verify_is_said() -> None:
    with pytest.raises(ErpdError, match=r"pip install 'erpd-hub\[eval\]'"):
        labels([("x", "y")])


def test_golds() -> None:
    assert check_golds(["12", r"\frac{1}{2}", "odd $n$", "(1,2)"], extract="boxed") == [None] * 4
    assert check_gold(" ", extract="boxed") == "no answer"
    assert "extracted whole" in check_gold("} 3 {", extract="boxed")
    assert "bad_gold" in check_gold(r"\underbrace{\underbrace{2}_{n}}_{m}1", extract="boxed")
    assert check_gold("83", extract="first-line") is None
    assert "extracted whole" in check_gold("83\n84", extract="first-line")


def test_importing_the_harness_is_light() -> None:
    code = (
        "import sys, erpd_hub.evaluation as e; print([m for m in ('torch','math_verify','sympy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
