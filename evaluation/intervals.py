"""Intervals over repetitions such as seeds: the mean of a few numbers and Student's t. Pure, standard library only."""

from collections.abc import Sequence
from functools import lru_cache
from math import atan, cos, pi, sin, sqrt
from statistics import fmean, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean with what it stands on."""

    mean: float
    stderr: float | None
    """sd (ddof 1) / sqrt(n); None for a single value."""
    low: float | None
    high: float | None


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean and its interval, mean -+ t sd / sqrt(n); of a single value no error is known.

    Raises:
        StatisticsError: no values.
    """
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None, None)
    stderr = stdev(values) / sqrt(len(values))
    half = t_quantile((1 + level) / 2, len(values) - 1) * stderr
    return Interval(mean, stderr, mean - half, mean + half)


@lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's distribution, for a probability in [0.5, 1)."""
    low, high = 0.0, 1.0
    while student_t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, degrees) < probability else (low, middle)
    return high


def student_t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for a whole number of degrees of freedom: a finite sum over powers of cos(atan(t / sqrt(degrees)))."""
    angle = atan(t / sqrt(degrees))
    power = cos(angle) ** 2
    term = total = 1.0 if degrees % 2 == 0 else cos(angle)
    for index in range(degrees % 2 + 2, degrees, 2):  # cos^2, cos^4, ... with the quotients of double factorials
        term *= power * (index - 1) / index
        total += term
    if degrees % 2 == 0:
        return 0.5 + 0.5 * sin(angle) * total
    return 0.5 + (angle + (sin(angle) * total if degrees > 1 else 0.0)) / pi
