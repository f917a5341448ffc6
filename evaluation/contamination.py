"""Overlap of problems with benchmarks: a shared run of 13 words, or equality for texts shorter than that. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from erpd_hub.prompts import Problem, normalise_problem

NGRAM_WORDS = 13


class Hit(NamedTuple):
    """A problem that overlaps a benchmark; the first match only."""

    problem_id: str
    benchmark: str
    benchmark_problem_id: str
    matched: str
    """The shared words, or the whole normalised text."""


class OverlapIndex:
    """The n-grams and whole texts of benchmark problems; the first problem that has one owns it."""

    def __init__(self, known: Iterable[Problem]) -> None:
        self._owners: dict[str, Problem] = {}
        for problem in known:
            for key in _keys(problem.problem):
                self._owners.setdefault(key, problem)

    def find(self, problem: Problem) -> Hit | None:
        for key in _keys(problem.problem):
            if owner := self._owners.get(key):
                return Hit(problem.problem_id, owner.source, owner.problem_id, key)
        return None


def _keys(text: str) -> Iterator[str]:
    """What two texts must share to overlap: the normalised text, and each run of 13 words."""
    normalised = normalise_problem(text)
    yield normalised
    words = re.findall(r"\w+", normalised)
    for start in range(len(words) - NGRAM_WORDS + 1):
        yield " ".join(words[start : start + NGRAM_WORDS])
