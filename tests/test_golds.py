"""Golds brought to one form, their variants, and the self-check of every benchmark whose rows are at hand."""

import json
import os
from pathlib import Path

import pytest
from conftest import cli
from test_benchmarks import BENCHDATA

from erpd_hub.benchmark_rows import fetch_problems
from erpd_hub.evaluation.benchmarks import BENCHMARKS, get_benchmark, load_problems
from erpd_hub.evaluation.gold_check import Confused, GoldReport, check_benchmark
from erpd_hub.evaluation.gold_variants import asks_for_degrees, responses, variants
from erpd_hub.evaluation.golds import normalise_gold
from erpd_hub.prompts import Problem

EXPECTED_BAD = {"imo_answerbench": {"imo-bench-algebra-036": "no answer"}}
"""Corrupt at the source: a row's columns are shifted."""


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (70, "70"),
        (70.0, "70"),
        (0.5, "0.5"),
        (["336"], "336"),
        (None, ""),
        (float("nan"), ""),
        (" 204 ", "204"),
        ("033", "33"),
        ("000", "0"),
        ("-07", "-7"),
        ("+5", "5"),
        ("1,406", "1406"),
        ("1{,}406", "1406"),
        (r"12\,406", "12406"),
        (r"\boxed{204}", "204"),
        (r"$\boxed{1,204}$", "1204"),
        (r"336^\circ", "336"),
        (r"$74^{\circ}$", "74"),
        ("22.5°", "22.5"),
        (r"$(0, \frac{1}{3}]$", r"(0, \frac{1}{3}]"),
        (r"\[ 2^{10} \]", "2^{10}"),
        (r"\(x\)", "x"),
        (r"\boxed{3} and \boxed{4}", r"\boxed{3} and \boxed{4}"),
        ("$a$ or $b$", "$a$ or $b$"),
        ("odd $n$\n", "odd $n$"),
        ("0,1,2", "0,1,2"),
        ("12,34", "12,34"),
        ("\u0661\u0662", "\u0661\u0662"),
        ("1" * 50, "1" * 50),
        ("He sold 48/2 = <<48/2=24>>24 clips in May.\n48+24 = 72\n#### 72", "72"),
        ("#### 1,406", "1406"),
        (r"We have $x=3$, for which $y=3$. So the answer is $\boxed{3}$.", "3"),
        ("#### 1. Reading\nThen we find\n\\[\\boxed{\\frac{1}{2}}\\]", r"\frac{1}{2}"),
        (r"Either $\boxed{3}$ or maybe $\boxed{4}$", r"Either $\boxed{3}$ or maybe $\boxed{4}$"),
        (r"\boxed{\text{Yes}}", r"\text{Yes}"),
    ],
)
def test_golds_are_brought_to_one_form(answer: object, gold: str) -> None:
    assert normalise_gold(answer) == gold
    assert normalise_gold(gold) == gold


def test_variants_are_the_same_answer_written_otherwise() -> None:
    integers = {v.answer for v in variants("1406")}
    assert integers >= {
        "1406",
        "$1406$",
        "1,406",
        "1{,}406",
        r"1\,406",
        "001406",
        r"\text{1406}",
        r"\boxed{1406}",
        "1406.",
    }
    assert not any("circ" in answer for answer in integers)
    assert {v.answer for v in variants("74", degrees=True)} >= {r"74^\circ", "74°", r"74\text{ degrees}"}
    fractions = {v.answer for v in variants(r"-\frac{1}{2}")}
    assert fractions >= {r"-\dfrac{1}{2}", r"-\tfrac{1}{2}", "-1/2", "\N{MINUS SIGN}\\frac{1}{2}"}
    assert {v.answer for v in variants(r"(0, \sqrt{2}]")} >= {r"\left(0, \sqrt{2}]", r"(0, \sqrt 2]"}
    assert {v.answer for v in variants("odd $n$")} >= {"Odd $n$", "odd $n$."}
    assert asks_for_degrees("in degrees?")
    assert not asks_for_degrees("how many")
    assert all("{5}" in text for _, text in responses("5"))


def test_a_check_finds_golds_that_are_taken_for_others() -> None:
    report = check_benchmark(
        BENCHMARKS["aime_2024"], _problems(["2", r"\frac{1}{2}", "0.5", "", r"\sqrt{4}"]), pairs=None
    )
    assert report.bad == {"3": "no answer"}
    assert not report.refused
    assert report.confused == (Confused("0", "2", "4", r"\sqrt{4}"), Confused("4", r"\sqrt{4}", "0", "2"))
    assert (report.passed, report.state, report.pairs) == (False, "other", 10), "a half is a half"


@pytest.mark.parametrize("golds", [[], ["", " "]])
def test_a_check_of_no_gold_is_not_passed(golds: list[str]) -> None:
    report = check_benchmark(BENCHMARKS["aime_2024"], _problems(golds))
    assert (report.passed, report.variants, len(report.bad)) == (False, 0, len(golds))


@pytest.mark.parametrize("name", [n for n, b in BENCHMARKS.items() if b.reference is None and b.grader == "math"])
def test_the_grader_knows_the_golds_of_generated_benchmarks(name: str) -> None:
    report = check_benchmark(BENCHMARKS[name], load_problems(BENCHMARKS[name], None), pairs=4)
    assert report.passed, (report.refused[:5], report.confused[:5])
    assert (report.state, report.bad) == ("known", {})


@pytest.mark.parametrize("name", BENCHDATA)
def test_the_grader_knows_the_golds_of_the_real_rows(name: str, record_property) -> None:
    """Every gold in every way to write it, against golds of other problems; `-rA` or the junit file has the counts."""
    report = _checked(name, pairs=16)
    counts = f"{report.variants} golds written out, {len(report.refused)} refused; {report.pairs} of other problems, "
    record_property("golds", f"{counts}{len(report.confused)} accepted")
    print(f"{name}: {counts}{len(report.confused)} accepted")
    assert not report.refused, report.refused[:10]
    assert not report.confused, report.confused[:10]
    assert report.bad == EXPECTED_BAD.get(name, {})


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [{"id": 60, "problem": "2+2?", "answer": "004"}, {"id": 61, "problem": "No answer?", "answer": ""}]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = cli("benchmarks", "check", "aime_2024", "--rows", rows, "--json", home=tmp_path / "home")
    (found,) = json.loads(done.stdout)["benchmarks"]
    assert (found["state"], found["problems"], found["bad"]) == ("other", 2, {"61": "no answer"})
    assert (found["passed"], found["refused"]) == (True, [])
    refused = cli("benchmarks", "check", "livecodebench_v6", home=tmp_path / "home", expect=2)
    assert "expected a benchmark whose answers are compared" in refused.stderr
    listed = json.loads(cli("benchmarks", "list", "--json", home=tmp_path / "home").stdout)["benchmarks"]
    assert [item["name"] for item in listed] == list(BENCHMARKS)


def _problems(golds: list[str]) -> list[Problem]:
    return [Problem(str(index), "test", f"problem {index}", gold) for index, gold in enumerate(golds)]


def _checked(name: str, *, pairs: int) -> GoldReport:
    if not (folder := os.environ.get("ERPD_BENCHDATA")):
        pytest.skip("ERPD_BENCHDATA is not set")
    benchmark = get_benchmark(name)
    problems = fetch_problems(benchmark, "local", Path(folder) / f"{BENCHDATA[name]}.jsonl")
    return check_benchmark(benchmark, problems, pairs=pairs)
