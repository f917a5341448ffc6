"""An interval for the mean of numbers that cannot leave a range, such as the scores of a benchmark's problems.

Gaffke's bounds. Take the n numbers and one more at an end of the range, and weigh them at random, all weights alike
(uniform on the simplex, as in the Bayesian bootstrap). With the lowest possible number added, the weighted mean is
below the lower bound with a chance of (1 - level) / 2; with the highest possible one, it is above the upper bound with
that chance. Nothing is assumed of the distribution, and no case is known in which the coverage is below `level` (that
there is none is a conjecture; `erpd-hub bench coverage` tries ours). That includes a few problems that are all solved
or all failed, where a bootstrap has no width. Of numbers that are 0 or 1 it is Clopper and Pearson's interval.

The chances are computed, not drawn. Such weights are exponential variables over their sum, so with G_i exponential
and v_i the numbers, P(sum w_i v_i <= t) = P(sum G_i (v_i - t) <= 0), which Gil-Pelaez takes from the characteristic
function prod 1 / (1 - i u (v_i - t)). Pure, standard library only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import atan, exp, log1p, pi, sin, sinh, sqrt, tanh

METHOD = "gaffke"
"""What records call it."""

_NEGLIGIBLE = 1e-16
_TOLERANCE = 1e-9
"""Of a bound, in units of the range."""


def bounded_interval(
    values: Sequence[float], *, level: float = 0.95, low: float = 0.0, high: float = 1.0
) -> tuple[float, float]:
    """Interval of the mean of the distribution that `values` (at least one, in [low, high]) were drawn from."""
    tail = (1 - level) / 2
    counted = Counter(values)
    return (
        _quantile(counted + Counter([low]), tail, low, high),
        _quantile(counted + Counter([high]), 1 - tail, low, high),
    )


def weighted_mean_cdf(counted: Mapping[float, int], at: float) -> float:
    """P(the mean of the numbers under uniformly random weights <= `at`); `counted`: number to how often it is there."""
    steps = [(value - at, count) for value, count in counted.items() if value != at]
    if not steps:
        return 1.0
    scale = sqrt(sum(count * step * step for step, count in steps))
    scaled = [(step / scale, count) for step, count in steps]
    # With u = sinh(w) the integrand falls off exponentially also for few numbers, and so does the midpoint rule's error
    # with its width: at these it is below 1e-10 (seen against beta distributions, of 1 to 1,000 numbers).
    width = min(0.15, 0.9 / sqrt(sum(count for _, count in steps)))
    total, place = 0.0, width / 2
    while True:
        u = sinh(place)
        size = exp(-0.5 * sum(count * log1p((u * step) ** 2) for step, count in scaled))
        if size < _NEGLIGIBLE:
            return min(1.0, max(0.0, 0.5 - total * width / pi))
        total += size * sin(sum(count * atan(u * step) for step, count in scaled)) / tanh(place)
        place += width


def _quantile(counted: Mapping[float, int], chance: float, low: float, high: float) -> float:
    """Where `weighted_mean_cdf` reaches `chance`: bisection between the smallest and the largest number."""
    least, most = min(counted), max(counted)
    while most - least > _TOLERANCE * (high - low):
        middle = (least + most) / 2
        least, most = (middle, most) if weighted_mean_cdf(counted, middle) < chance else (least, middle)
    return (least + most) / 2
