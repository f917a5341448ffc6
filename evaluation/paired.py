"""Two checkpoints on the same problems: difference of AVG@K, its error, a sign-flip test. Pure, standard library only.

`first` and `second` map a problem's id to the labels of its samples: 1, 0 or None (ungradable: left out, and counted).
Problems are the unit: the K samples of one are a cluster, and what is compared is d_i, the problem's mean under the
first checkpoint minus that under the second. Pairing takes the problems' difficulty out of the error.
Several benchmarks are pooled in `erpd_hub.evaluation.strata`.

The interval is Gaffke's (`erpd_hub.evaluation.bounded`) for differences in [-1, 1], and assumes nothing else: it holds
also where a few problems in a hundred change entirely and none of them is in the benchmark. That has a price which no
method avoids: n problems miss a share of 3.7 / n with a chance of 2.5 %, so the interval reaches about as far to either
side (12 points at n = 30) however alike the two are on the problems seen. `within_reach` is narrower, by assuming that
no problem differs by more than the largest one seen and 1 / sqrt(K), K being 1 where samples are not independent.

The sign-flip test asks something else: whether the two could be alike on these very problems. So p can be small where
the interval holds 0; `erpd-hub compare` says where.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import lcm, sqrt
from statistics import StatisticsError, correlation, fmean, stdev
from typing import Any, NamedTuple

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.bounded import bounded_interval

LabelsByProblem = Mapping[str, Sequence[int | None]]

_DRAWS = 10_000
_SEED = 20_240_519  # any fixed number: the same labels must give the same p everywhere
_MOST_BITS = 1 << 25
"""Up to this size of the table of subset sums the sign-flip test is exact."""


class SignFlip(NamedTuple):
    """Chances, under random signs of the differences, of a sum as large as the one seen."""

    greater: float
    two_sided: float
    exact: bool
    """Over all 2^n sign patterns; else over a fixed number of random ones."""


class Comparison(NamedTuple):
    """The first checkpoint against the second."""

    first: float
    """AVG@K in [0, 1] over the problems that both have a graded sample of."""
    second: float
    difference: float
    """first - second."""
    stderr: float | None
    """sd over problems of d_i (ddof 1) / sqrt(problems); None for fewer than two problems."""
    within_reach: tuple[float, float]
    """95 %, over problems of which none differs by more than `reach`."""
    reach: float
    interval: tuple[float, float]
    """95 %, over problems, for differences in [-1, 1]."""
    p_greater: float
    """Of the null that the difference is no more than `margin`."""
    p_two_sided: float
    """Of the null that the difference is `margin`."""
    margin: float
    exact: bool
    correlation: float | None
    """Of the two means over problems; None where one of them is the same on every problem."""
    num_problems: int
    num_left_out: int
    """Problems without a graded sample on one of the sides."""
    num_ungradable: int
    """Samples left out, on both sides together."""
    equal_k: bool
    """Whether every problem has the same number of graded samples on both sides."""


def compare(
    first: LabelsByProblem, second: LabelsByProblem, *, margin: float = 0.0, draws_one: bool = False
) -> Comparison:
    """Compare two checkpoints on the same problems.

    Args:
        margin: Difference that counts as none, in [-1, 1].
        draws_one: The samples of a problem tell no more than one of them, on one of the sides (temperature 0, or a
            server that ignores seeds).

    Raises:
        ArtifactError: a problem is on one side only, or none has a graded sample on both.
    """
    graded = _graded_on_both(first, second)
    means = [(Fraction(sum(a), len(a)), Fraction(sum(b), len(b))) for a, b in graded.values()]
    differences = [a - b for a, b in means]
    flipped = sign_flip([d - Fraction(str(margin)) for d in differences])
    every = [_graded(labels) for labels in (*first.values(), *second.values())]
    k = 1 if draws_one else min(len(labels) for sides in graded.values() for labels in sides)
    reach = reach_of(differences, k)
    return Comparison(
        first=fmean(a for a, _ in means),
        second=fmean(b for _, b in means),
        difference=float(sum(differences) / len(means)),
        stderr=clustered_error(differences),
        within_reach=difference_interval(differences, reach),
        reach=reach,
        interval=difference_interval(differences, 1.0),
        p_greater=flipped.greater,
        p_two_sided=flipped.two_sided,
        margin=margin,
        exact=flipped.exact,
        correlation=_correlation(means),
        num_problems=len(means),
        num_left_out=len(first) - len(means),
        num_ungradable=sum(map(len, [*first.values(), *second.values()])) - sum(map(len, every)),
        equal_k=len(set(map(len, every))) == 1,
    )


def differences_by_problem(first: LabelsByProblem, second: LabelsByProblem) -> list[Fraction]:
    """d_i of the problems that both have a graded sample of, exact.

    Raises:
        ArtifactError: a problem is on one side only, or none has a graded sample on both.
    """
    graded = _graded_on_both(first, second)
    return [Fraction(sum(a), len(a)) - Fraction(sum(b), len(b)) for a, b in graded.values()]


def reach_of(differences: Sequence[Fraction], k: int) -> float:
    """Largest difference that one more problem may have: the largest seen, and 1 / sqrt(K) for the noise of K draws."""
    return min(1.0, float(max(map(abs, differences))) + 1 / sqrt(k))


def difference_interval(differences: Sequence[Fraction], reach: float) -> tuple[float, float]:
    """95 % interval of the mean of differences in [-reach, reach]."""
    return bounded_interval([float(d) for d in differences], low=-reach, high=reach)


def excludes_zero(interval: tuple[float, float]) -> bool:
    return interval[0] > 0 or interval[1] < 0


def clustered_error(differences: Sequence[Fraction]) -> float | None:
    """sd over problems (ddof 1) / sqrt(problems); None for fewer than two problems."""
    return stdev(map(float, differences)) / sqrt(len(differences)) if len(differences) > 1 else None


def labels_by_problem(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[int | None]]:
    """Labels of sample rows (`erpd_hub.samples.SAMPLE_SCHEMA`) by problem, in the order of the rows."""
    found: dict[str, list[int | None]] = {}
    for row in rows:
        found.setdefault(row["problem_id"], []).append(row["label"])
    return found


def sign_flip(differences: Sequence[Fraction], *, most_bits: int = _MOST_BITS) -> SignFlip:
    """Test that differences are symmetric about zero: flip the sign of each at random and compare the sums.

    Exact wherever the table of subset sums fits into `most_bits`, which it does for any equal K in use; otherwise
    10,000 random patterns with a fixed seed, the one that was seen counted among them.
    """
    unit = lcm(*(d.denominator for d in differences)) if differences else 1
    steps = [int(d * unit) for d in differences if d]
    sizes = sorted(abs(step) for step in steps)
    if sum(sizes) * (len(sizes) + 1) > most_bits:
        return _drawn(steps)
    one_sided = _share_at_least(sizes, sum(steps))
    return SignFlip(one_sided, min(1.0, 2 * _share_at_least(sizes, abs(sum(steps)))) if sum(steps) else 1.0, True)


def _share_at_least(sizes: Sequence[int], total: int) -> float:
    """Share of the 2^n sign patterns whose signed sum is at least `total`.

    A signed sum is twice the sum of the positive ones minus that of all. How many subsets have each sum is a polynomial
    in x, the product of 1 + x^size; its coefficients lie side by side in one integer, `width` bits each.
    """
    width = len(sizes) + 1
    subsets = 1
    for size in sizes:
        subsets += subsets << (size * width)
    least = (total + sum(sizes)) // 2
    # The sum of the digits of a number in base b is its remainder modulo b - 1 when it is smaller than that.
    count = (subsets >> (least * width)) % ((1 << width) - 1) if sizes else 1
    return count / (1 << len(sizes))


def _drawn(steps: Sequence[int]) -> SignFlip:
    rng = random.Random(_SEED)
    seen = sum(steps)
    greater = beyond = 1
    for _ in range(_DRAWS):
        signs = rng.getrandbits(len(steps))
        total = sum(step if signs >> place & 1 else -step for place, step in enumerate(steps))
        greater += total >= seen
        beyond += abs(total) >= abs(seen)
    return SignFlip(greater / (_DRAWS + 1), beyond / (_DRAWS + 1), False)


def _graded_on_both(first: LabelsByProblem, second: LabelsByProblem) -> dict[str, tuple[list[int], list[int]]]:
    """Graded labels of the problems that have some on both sides.

    Raises:
        ArtifactError: see `differences_by_problem`.
    """
    _refuse_other_problems(first, second)
    both = {name: (_graded(first[name]), _graded(second[name])) for name in first}
    found = {name: sides for name, sides in both.items() if all(sides)}
    if not found:
        raise ArtifactError("comparison: expected a problem with graded samples on both sides, got none")
    return found


def _refuse_other_problems(first: LabelsByProblem, second: LabelsByProblem) -> None:
    for one, other, place in ((first, second, "first"), (second, first, "second")):
        alone = [name for name in one if name not in other]
        if alone:
            shown = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
            raise ArtifactError(
                f"comparison: expected the same problems on both sides, got {len(alone)} only on the {place} "
                f"({shown}); evaluate both on the same benchmark, version and limit"
            )


def _correlation(pairs: Sequence[tuple[Fraction, Fraction]]) -> float | None:
    try:
        return correlation([float(a) for a, _ in pairs], [float(b) for _, b in pairs])
    except StatisticsError:  # fewer than two problems, or a side without variance
        return None


def _graded(labels: Sequence[int | None]) -> list[int]:
    return [label for label in labels if label is not None]
