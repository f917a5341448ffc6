"""Two checkpoints on the same problems, as `erpd-hub compare` has it: difference of AVG@K, its interval and its chance.

d_i is a problem's mean under one checkpoint minus that under the other. The interval is Gaffke's for differences in
[-1, 1]: the numbers and one more at an end of the range, weighed at random with all weights alike. p asks whether the
two could be alike on these very problems: the share of sign patterns of the d_i with a sum as large as the one seen.

A Space has its own files alone, so `holm`, `sign_flip` and `bounded_interval` are those of the package's `evaluation`
(`strata`, `paired` and `bounded`, which say why they are right) once more, without what a page does not ask for.
`tests/test_space.py` holds the results equal.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import atan, exp, lcm, log1p, pi, sin, sinh, sqrt, tanh
from statistics import stdev

DRAWS = 10_000
SEED = 20_240_519
MOST_BITS = 1 << 25
"""Up to this size of the table of subset sums the test is exact; beyond, over DRAWS patterns of this seed."""
MOST_DRAWN = 2_000
"""Problems with a difference that patterns are drawn for; of more there is no p here, since a page has to answer."""
_NEGLIGIBLE, _TOLERANCE = 1e-16, 1e-9


@dataclass(frozen=True)
class Pair:
    """One checkpoint against another on the problems that both were graded on; figures in [-1, 1]."""

    problems: int
    difference: float
    stderr: float | None
    interval: tuple[float, float]
    p: float | None
    better: int
    worse: int


def paired(first: Mapping[str, Fraction], other: Mapping[str, Fraction]) -> Pair | None:
    """`other` minus `first`, mean by mean of the common problems; None without one."""
    differences = [other[problem] - first[problem] for problem in first if problem in other]
    count = len(differences)
    if not count:
        return None
    floats = [float(each) for each in differences]
    return Pair(
        problems=count,
        difference=float(sum(differences) / count),
        stderr=stdev(floats) / sqrt(count) if count > 1 else None,
        interval=bounded_interval(floats),
        p=sign_flip(differences),
        better=sum(each > 0 for each in differences),
        worse=sum(each < 0 for each in differences),
    )


def holm(chances: Sequence[float]) -> list[float]:
    """Adjusted for being several: the chance of any p of a true null at most alpha is at most alpha."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted, largest = [0.0] * len(chances), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = largest
    return adjusted


def sign_flip(differences: Sequence[Fraction]) -> float | None:
    """Two-sided chance, under random signs, of a sum as large as the one seen; None for more than can be tested."""
    unit = lcm(*(each.denominator for each in differences))
    steps = [int(each * unit) for each in differences if each]
    sizes, total = sorted(map(abs, steps)), sum(steps)
    if sum(sizes) * (len(sizes) + 1) > MOST_BITS:
        return _drawn(steps, total) if len(steps) <= MOST_DRAWN else None
    return min(1.0, 2 * _share_at_least(sizes, abs(total))) if total else 1.0


def _share_at_least(sizes: Sequence[int], total: int) -> float:
    """Share of all sign patterns whose sum is at least `total`: how many subsets have each sum are the coefficients of
    the product of 1 + x^size, side by side in one integer, `width` bits each."""
    width, subsets = len(sizes) + 1, 1
    for size in sizes:
        subsets += subsets << (size * width)
    least = (total + sum(sizes)) // 2
    return ((subsets >> (least * width)) % ((1 << width) - 1)) / (1 << len(sizes))


def _drawn(steps: Sequence[int], total: int) -> float:
    rng = random.Random(SEED)
    beyond = 1
    for _ in range(DRAWS):
        signs = rng.getrandbits(len(steps))
        beyond += abs(sum(step if signs >> place & 1 else -step for place, step in enumerate(steps))) >= abs(total)
    return beyond / (DRAWS + 1)


def bounded_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of a distribution on [-1, 1] that the values were drawn from."""
    counted = Counter(values)
    return _quantile(counted + Counter([-1.0]), 0.025), _quantile(counted + Counter([1.0]), 0.975)


def _quantile(counted: Mapping[float, int], chance: float) -> float:
    least, most = min(counted), max(counted)
    while most - least > 2 * _TOLERANCE:
        middle = (least + most) / 2
        least, most = (middle, most) if _weighted_mean_cdf(counted, middle) < chance else (least, middle)
    return (least + most) / 2


def _weighted_mean_cdf(counted: Mapping[float, int], at: float) -> float:
    """P(the mean under uniformly random weights <= `at`), from its characteristic function (Gil-Pelaez)."""
    steps = [(value - at, count) for value, count in counted.items() if value != at]
    if not steps:
        return 1.0
    scale = sqrt(sum(count * step * step for step, count in steps))
    scaled = [(step / scale, count) for step, count in steps]
    width = min(0.15, 0.9 / sqrt(sum(count for _, count in steps)))
    total, place = 0.0, width / 2
    while True:
        u = sinh(place)
        size = exp(-0.5 * sum(count * log1p((u * step) ** 2) for step, count in scaled))
        if size < _NEGLIGIBLE:
            return min(1.0, max(0.0, 0.5 - total * width / pi))
        total += size * sin(sum(count * atan(u * step) for step, count in scaled)) / tanh(place)
        place += width
