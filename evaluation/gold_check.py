"""A benchmark's self-check: the grader accepts every gold however it is written, and refuses those of other problems.

Rows without a gold, and golds that the grader does not accept as their own answer, are named with the reason: corrupt
rows of a dataset are part of the report, not of the noise.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from erpd_hub.evaluation.answers import normalise_answer, parse_integer
from erpd_hub.evaluation.benchmarks import Benchmark, State, problems_hash, state_of
from erpd_hub.evaluation.gold_variants import asks_for_degrees, responses, variants
from erpd_hub.evaluation.grading import Response, check_golds, grade_many
from erpd_hub.prompts import Problem

PAIRS = 16
"""Golds of other problems that each gold is compared with [I]; None of a check compares all."""


class Refused(NamedTuple):
    """A right answer that the grader took for wrong."""

    problem_id: str
    gold: str
    kind: str
    answer: str
    verdict: str


class Confused(NamedTuple):
    """A gold that the grader took for that of another problem. Equal numbers in two forms are none."""

    problem_id: str
    gold: str
    other_id: str
    answer: str


@dataclass(frozen=True)
class GoldReport:
    """What a check found."""

    benchmark: str
    version: int
    problems: int
    sha256: str
    state: State
    bad: dict[str, str] = field(default_factory=dict)
    """Problem ids with the reason why their gold cannot be graded against."""
    variants: int = 0
    refused: tuple[Refused, ...] = ()
    pairs: int = 0
    confused: tuple[Confused, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are golds to grade against, and the grader knows them."""
        return self.problems > len(self.bad) and not (self.refused or self.confused)


def check_benchmark(benchmark: Benchmark, problems: Sequence[Problem], *, pairs: int | None = PAIRS) -> GoldReport:
    """Check the golds of a benchmark whose answers are compared.

    Args:
        pairs: Other golds that each is compared with, drawn at random but always the same; None compares all.
    """
    extract = benchmark.format.extract
    reasons = check_golds([problem.gold for problem in problems], extract=extract)
    bad = {p.problem_id: reason for p, reason in zip(problems, reasons, strict=True) if reason is not None}
    good = [problem for problem in problems if problem.problem_id not in bad]
    written = [
        (problem, kind, text, answer)
        for problem in good
        for kind, text, answer in (_boxed(problem) if extract == "boxed" else _plain(problem))
    ]
    grades = grade_many([Response(problem.gold, text) for problem, _, text, _ in written], extract=extract)
    refused = [
        Refused(problem.problem_id, problem.gold, kind, answer, grade.verdict)
        for (problem, kind, _, answer), grade in zip(written, grades, strict=True)
        if grade.label != 1
    ]
    crossed = list(_pairs(good, pairs))
    wrap = "\\boxed{{{}}}" if extract == "boxed" else "{}"
    labels = grade_many([Response(one.gold, wrap.format(other.gold)) for one, other in crossed], extract=extract)
    confused = [
        Confused(one.problem_id, one.gold, other.problem_id, other.gold)
        for (one, other), grade in zip(crossed, labels, strict=True)
        if grade.label != 0
    ]
    return GoldReport(
        benchmark.name, benchmark.version, len(problems), problems_hash(problems), state_of(benchmark, problems),
        bad, len(written), tuple(refused), len(crossed), tuple(confused),
    )  # fmt: skip


def _boxed(problem: Problem) -> Iterator[tuple[str, str, str]]:
    """Kind, response and answer of each way to write a gold into a box, and a box into a response."""
    for kind, answer in variants(problem.gold, degrees=asks_for_degrees(problem.problem)):
        yield kind, f"The answer is \\boxed{{{answer}}}", answer
    for kind, text in responses(problem.gold):
        yield kind, text, problem.gold


def _plain(problem: Problem) -> Iterator[tuple[str, str, str]]:
    for text in (problem.gold, f" {problem.gold}", f"{problem.gold}\nmore"):
        yield "first line", text, problem.gold


def _form(gold: str) -> str | Fraction:
    """The value of a plain number, without the name that it may stand behind; else the normalised text."""
    bare = normalise_answer(re.sub(r"^\s*\$?[A-Za-z](?:\([A-Za-z]\))?\s*=", "", gold))
    number = re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", parse_integer(bare) or bare)
    return Fraction(number) if re.fullmatch(r"-?\d{1,99}(?:\.\d{1,99}|/[1-9]\d{0,99})?", number) else bare


def _pairs(problems: Sequence[Problem], each: int | None) -> Iterator[tuple[Problem, Problem]]:
    """Problems whose golds are not equal for all we know without the grader."""
    forms = {problem.problem_id: _form(problem.gold) for problem in problems}
    draw = random.Random(0)
    for problem in problems:
        others = problems if each is None else draw.sample(problems, min(each, len(problems)))
        for other in others:
            if forms[problem.problem_id] != forms[other.problem_id]:
                yield problem, other
