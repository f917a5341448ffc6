"""Overlap of problems with benchmarks: what is found however it is written, and what is only boilerplate."""

import json
import os
import re
from pathlib import Path

import pytest
from test_benchmarks import BENCHDATA

from erpd_hub.evaluation.benchmarks import BENCHMARKS, load_problems
from erpd_hub.evaluation.contamination import RULE, OverlapIndex
from erpd_hub.plan import make_plan
from erpd_hub.prompts import Problem
from erpd_hub.recipe import build_recipe

ENDING = r" can be expressed as $\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
TORUS = r"A torus of radius $3$ rests on a ball of radius $11{,}000$, touching it. The difference of two radii" + ENDING
DICE = r"Dice are thrown until $\triangle ABC$ is hit three times in a row. The expected number of throws" + ENDING
SHORT = Problem("short", "bench", "What is 2+2?", "4")


def problem(text: str, name: str = "x", source: str = "pool") -> Problem:
    return Problem(name, source, text, "1")


def known(*texts: str) -> OverlapIndex:
    return OverlapIndex([*(problem(text, str(index), "bench") for index, text in enumerate(texts)), SHORT])


def found(index: OverlapIndex, text: str) -> str | None:
    hit = index.find(problem(text))
    return hit and hit.benchmark_problem_id


@pytest.mark.parametrize(
    "text",
    [
        TORUS,
        TORUS.upper().replace(r"\FRAC", r"\frac"),
        TORUS.replace("$", " ").replace(r"\frac", r"\dfrac").replace("11{,}000", "11,000"),
        re.sub(r"\$(.*?)\$", r"\\( \1 \\)", TORUS),
        f"Read this with care and think step by step. {TORUS} Give one number.",
        f"{DICE.split('.')[0]}.\n{TORUS}\nWhat do you think?",
        TORUS.replace("$m$", "$p$").replace("{m}", "{p}").replace("m+n", "p+n"),
        TORUS.replace("rests on", "lies upon"),
    ],
)
def test_a_benchmark_problem_is_found_however_it_is_written(text: str) -> None:
    assert found(known(TORUS, DICE), text) == "0"


def test_renamed_points_do_not_hide_a_problem() -> None:
    geometry = r"Rhombus $ABCD$ has $\angle BAD < 90^\circ$ and a point $P$ on its incircle at distance $9$ from $DA$."
    renamed = (
        r"Rhombus $W X Y Z$ has $\angle ZWX<90^{\circ}$ and a point $Q$ on its incircle at distance $9$ from $Z W$"
    )
    assert found(known(geometry), renamed) == "0"


def test_what_two_problems_share_is_boilerplate() -> None:
    pool = "Six cards are drawn from a deck of twelve. The probability that no two are of one suit" + ENDING
    assert found(known(TORUS, DICE), pool) is None


def test_a_problem_of_two_benchmarks_is_found() -> None:
    again = TORUS.replace("$", "").replace("torus", "ring")
    index = OverlapIndex([problem(TORUS, "0", "one"), problem(TORUS, "1", "two"), problem(again, "2", "three")])
    assert index.find(problem(TORUS.replace("touching", "meeting"))).benchmark == "one"


def test_short_texts_overlap_only_when_equal() -> None:
    index = known(TORUS)
    assert found(index, "what is 2 + 2 ?") == "short"
    assert found(index, "What is 2+2+2?") is None
    assert index.find(problem("what is 2 + 2 ?"))[3:] == ("what is 2+2?", None)


def test_a_hit_says_how_much_and_what() -> None:
    hit = known(TORUS).find(problem(TORUS.replace("touching it", "fixed there")))
    assert 0.5 < hit.share < 1
    assert hit.matched.startswith("the difference of two radii")


def test_the_rule_is_part_of_what_a_dataset_gives_and_of_no_generated_set() -> None:
    steps = {"type": "hub", "dataset": "some/pool", "count": 10, "decontaminate": ["addition"]}
    made = {"type": "generator", "generator": "addition", "count": 10, "decontaminate": ["addition"]}

    def identity(prompts: dict) -> dict:
        data = {"run": "x", "steps": {"prompts": prompts}}
        return make_plan(build_recipe(data, "test")).node("r1/prompts").identity

    assert identity(steps)["decontamination"] == RULE
    assert "decontamination" not in identity({**steps, "decontaminate": []}) | identity(made)


@pytest.fixture(scope="module")
def rows() -> Path:
    if not (folder := os.environ.get("ERPD_BENCHDATA")):
        pytest.skip("ERPD_BENCHDATA is not set")
    return Path(folder)


@pytest.fixture(scope="module")
def benchmarks(rows: Path) -> list[Problem]:
    files = {name: rows / f"{BENCHDATA[name]}.jsonl" for name in BENCHDATA if BENCHMARKS[name].grader == "math"}
    return [problem for name, path in files.items() for problem in load_problems(BENCHMARKS[name], path)]


def test_real_benchmark_problems_are_found_in_real_pools(rows: Path, benchmarks: list[Problem]) -> None:
    index = OverlapIndex(benchmarks)
    for edited in (lambda text: text, lambda text: f"Solve this. {text} Explain.".replace("$", " $ ")):
        assert all(found(index, edited(benchmark.problem)) for benchmark in benchmarks)
    pools = {"agentica-org__DeepScaleR-Preview-Dataset__sample": "problem", "roll_math_deepmath_deal__sample": "prompt"}
    hits = {
        name: [index.find(problem(json.loads(line)[column])) for line in (rows / f"{name}.jsonl").open()]
        for name, column in pools.items()
    }
    # IMO-AnswerBench took 17 problems of the AIME over with other letters.
    assert [[hit.benchmark for hit in found if hit] for found in hits.values()] == [["imo_answerbench"] * 17, []]
