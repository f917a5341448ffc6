"""majority@K (cons@K): how often the answer that most of k samples give is right. Pure, but for `graded_same`, whose
grader has processes of its own.

Votes go to classes of equal answers, not to strings. The answers that were graded right are one class, whatever they
look like: they all equal the gold. Wrong ones are put together where they are the same integer or the same typesetting
(`erpd_hub.evaluation.answers`), and, where a grader is given, where it takes one for the other; both the pairs and the
time of a grader are bounded. A tie counts 1 / (classes that tie). A sample without an answer, or that was cut off, has
no vote; one whose gold failed is left out, as of AVG@K. For k below the number of samples the value is the mean over
all subsets of k, computed and not drawn.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb
from statistics import fmean
from typing import Any, NamedTuple

from erpd_hub.evaluation.answers import normalise_answer, parse_integer

Same = Callable[[Sequence[tuple[str, str]]], Sequence[bool]]
"""Whether the answers of each pair are equal; the pairs of all problems at once."""

MOST_PAIRS = 2_000
"""Comparisons that a grader is asked for, over all problems: about a minute on two cores at worst."""

_LONGEST = 2_000
_PAIRS_OF_A_PROBLEM = 45
"""All pairs of ten classes; rarer wrong answers stay apart."""


class Ballot(NamedTuple):
    """The graded samples of one problem."""

    correct: int
    """Samples whose answer is right."""
    wrong: tuple[int, ...]
    """Samples of each class of wrong answers, the largest first."""
    silent: int
    """Samples without a vote."""

    @property
    def num_samples(self) -> int:
        return self.correct + sum(self.wrong) + self.silent


def ballots(rows: Iterable[Mapping[str, Any]], *, same: Same | None = None) -> list[Ballot]:
    """Ballots of sample rows, one a problem with a graded sample.

    Args:
        same: Asked for the pairs of wrong classes that the cheap rules leave apart, at most MOST_PAIRS.
    """
    problems: dict[str, _Votes] = {}
    for row in rows:
        if row["label"] is not None:
            problems.setdefault(row["problem_id"], _Votes()).add(row)
    every = list(problems.values())
    if same is not None:
        _merge(every, same)
    return [votes.ballot() for votes in every]


def majority_at_k(found: Sequence[Ballot], sizes: Sequence[int]) -> dict[int, float]:
    """Mean over problems of the chance that a vote of k samples is right, for each k of `sizes` that all can give."""
    least = min((ballot.num_samples for ballot in found), default=0)
    possible = [k for k in sizes if k <= least]
    if not possible:
        return {}
    chances = [_chances(ballot, max(possible)) for ballot in found]
    return {k: fmean(one[k] for one in chances) for k in possible}


# ---------------------------------------------------------------------------------------------- classes


class _Votes:
    """Votes of one problem while they are put together."""

    def __init__(self) -> None:
        self.correct = self.silent = 0
        self.wrong: Counter[str] = Counter()
        self.answers: dict[str, str] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        if row["label"] == 1:
            self.correct += 1
        elif row["extracted"] is None or row["finish_reason"] == "length":
            self.silent += 1
        else:
            key = answer_class(row["extracted"])
            self.wrong[key] += 1
            self.answers.setdefault(key, row["extracted"])

    def ballot(self) -> Ballot:
        return Ballot(self.correct, tuple(sorted(self.wrong.values(), reverse=True)), self.silent)


@lru_cache(maxsize=4096)
def answer_class(answer: str) -> str:
    """What equal answers have in common, as far as cheap rules see it; what is too long for an answer is its own."""
    if len(answer) > _LONGEST:
        return answer
    return parse_integer(answer) or normalise_answer(answer)


def _merge(problems: Sequence[_Votes], same: Same) -> None:
    """Put together wrong classes that the grader takes for each other; common ones are asked about first."""
    pairs: list[tuple[_Votes, str, str]] = []
    for votes in problems:
        if votes.correct:  # otherwise the vote is wrong however the classes fall
            keys = [key for key, _ in votes.wrong.most_common()]
            near = [(one, other) for place, other in enumerate(keys) for one in keys[:place]]
            pairs += [(votes, one, other) for one, other in near[:_PAIRS_OF_A_PROBLEM] if not _plain(one, other)]
    pairs = pairs[:MOST_PAIRS]
    answers = same([(votes.answers[one], votes.answers[other]) for votes, one, other in pairs]) if pairs else ()
    into: dict[tuple[int, str], str] = {}
    for (votes, one, other), equal in zip(pairs, answers, strict=True):
        target = into.get((id(votes), one), one)
        if equal and (id(votes), other) not in into and target != other:
            into[id(votes), other] = target
            votes.wrong[target] += votes.wrong.pop(other)


def _plain(one: str, other: str) -> bool:
    """Two integers, which are different as they stand."""
    return parse_integer(one) is not None and parse_integer(other) is not None


def graded_same(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """A `Same`: whether the grader takes the second answer for right where the first one is the gold.

    Raises:
        ErpdError: it takes algebra, and math-verify is not installed.
    """
    from erpd_hub.evaluation.grading import Response, grade_many

    boxed = [Response(one, f"\\boxed{{{other}}}") for one, other in pairs]
    return [found.label == 1 for found in grade_many(boxed, extract="boxed")]


# --------------------------------------------------------------------------------------------- the vote


@lru_cache(maxsize=4096)
def _chances(ballot: Ballot, most: int) -> tuple[float, ...]:
    """Chance that the vote of k of the samples, drawn without replacement, is right; for k from 0 to `most`."""
    ways = [Fraction(0)] * (most + 1)
    for votes in range(1, min(ballot.correct, most) + 1):
        others = _others(ballot, votes, most - votes)
        for taken, way in enumerate(others):
            ways[taken + votes] += comb(ballot.correct, votes) * way
    return tuple(float(way / comb(ballot.num_samples, k)) for k, way in enumerate(ways))


def _others(ballot: Ballot, votes: int, degree: int) -> list[Fraction]:
    """Choices of 0 to `degree` samples that are not right, no class of them above `votes`: each by 1 / (1 + ties).

    A polynomial in x^(samples taken) for each number of classes that tie. Classes too small to tie are, with the silent
    samples, one factor (1 + x)^size; m others of one size are (below + C(size, votes) x^votes)^m, whose terms are the
    numbers of ties among them.
    """
    loose = ballot.silent + sum(size for size in ballot.wrong if size < votes)
    by_ties = {0: [comb(loose, taken) for taken in range(degree + 1)]}
    for size, classes in Counter(size for size in ballot.wrong if size >= votes).items():
        terms = _terms(size, classes, votes, degree)
        grown: dict[int, list[int]] = {}
        for ties, ways in by_ties.items():
            for more, term in terms.items():
                _add(grown, ties + more, _product(ways, term, degree))
        by_ties = grown
    return [
        sum((Fraction(ways[taken], 1 + ties) for ties, ways in by_ties.items()), Fraction(0))
        for taken in range(degree + 1)
    ]


def _terms(size: int, classes: int, votes: int, degree: int) -> dict[int, list[int]]:
    """(below + C(size, votes) x^votes)^classes by the number of classes that have just `votes`."""
    below, powers = [comb(size, taken) for taken in range(votes)], [[1] + [0] * degree]
    for _ in range(classes):
        powers.append(_product(powers[-1], below, degree))
    found = {}
    for ties in range(min(classes, degree // votes) + 1):
        scale, offset = comb(classes, ties) * comb(size, votes) ** ties, ties * votes
        found[ties] = [0] * offset + [scale * way for way in powers[classes - ties][: degree + 1 - offset]]
    return found


def _product(one: Sequence[int], other: Sequence[int], degree: int) -> list[int]:
    """Product of two polynomials, cut off above `degree`."""
    found = [0] * (degree + 1)
    for place, value in enumerate(other[: degree + 1]):
        if value:
            for offset in range(degree + 1 - place):
                found[place + offset] += value * one[offset]
    return found


def _add(into: dict[int, list[int]], ties: int, ways: Sequence[int]) -> None:
    present = into.setdefault(ties, [0] * len(ways))
    into[ties] = [a + b for a, b in zip(present, ways, strict=True)]
