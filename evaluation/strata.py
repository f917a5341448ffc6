"""Comparisons pooled over benchmarks, and several tests at once. Pure, standard library only.

The paper's "Avg" is the plain mean of the benchmarks' means, whatever their sizes; so is the pooled difference here.
Benchmarks are strata: errors add up within each, and the sign-flip test flips the problems of all of them, each by the
weight that it has in the mean.
"""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import sqrt
from statistics import fmean
from typing import NamedTuple

from erpd_hub.evaluation.paired import Comparison, LabelsByProblem, compare, differences_by_problem, sign_flip


class Pooled(NamedTuple):
    """The first checkpoint against the second, over several benchmarks."""

    first: float
    """Mean of the benchmarks' AVG@K, in [0, 1]."""
    second: float
    difference: float
    stderr: float | None
    """sqrt(sum of the benchmarks' squared errors) / benchmarks."""
    within_reach: tuple[float, float]
    """From the benchmarks' `within_reach` as the next from their `interval`."""
    interval: tuple[float, float]
    """95 %: the distances of the benchmarks' own bounds from their differences, added up as errors are (MOVER)."""
    p_two_sided: float
    exact: bool
    num_benchmarks: int
    num_problems: int


def compare_on_each(
    first: Mapping[str, LabelsByProblem], second: Mapping[str, LabelsByProblem], *, draws_one: Collection[str] = ()
) -> tuple[dict[str, Comparison], Pooled]:
    """Compare two checkpoints on every benchmark and over all; both sides have the same benchmarks, at least one.

    Args:
        draws_one: Benchmarks on which the samples of a problem tell no more than one of them.

    Raises:
        ArtifactError: a problem is on one side only, or none has a graded sample on both.
    """
    each = {name: compare(first[name], second[name], draws_one=name in draws_one) for name in first}
    weighted = [
        difference / len(differences)
        for differences in (differences_by_problem(first[name], second[name]) for name in first)
        for difference in differences
    ]
    return each, _pooled(list(each.values()), weighted)


def _pooled(each: Sequence[Comparison], weighted: Sequence[Fraction]) -> Pooled:
    flipped = sign_flip(weighted)
    difference = fmean(one.difference for one in each)
    errors = [one.stderr for one in each if one.stderr is not None]
    return Pooled(
        first=fmean(one.first for one in each),
        second=fmean(one.second for one in each),
        difference=difference,
        stderr=sqrt(sum(error**2 for error in errors)) / len(each) if len(errors) == len(each) else None,
        within_reach=_added(each, [one.within_reach for one in each]),
        interval=_added(each, [one.interval for one in each]),
        p_two_sided=flipped.two_sided,
        exact=flipped.exact,
        num_benchmarks=len(each),
        num_problems=sum(one.num_problems for one in each),
    )


def _added(each: Sequence[Comparison], intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The interval of the mean of differences, from the intervals of each."""
    difference = fmean(one.difference for one in each)
    below = sqrt(sum((one.difference - low) ** 2 for one, (low, _) in zip(each, intervals, strict=True)))
    above = sqrt(sum((high - one.difference) ** 2 for one, (_, high) in zip(each, intervals, strict=True)))
    return difference - below / len(each), difference + above / len(each)


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's adjusted p: the chance of any p of a true null at most alpha is at most alpha, over all the tests."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted, largest = [0.0] * len(chances), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = largest
    return adjusted
