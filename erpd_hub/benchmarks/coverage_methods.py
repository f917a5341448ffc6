"""Intervals of the mean of many trials at once, for `erpd_hub.benchmarks.coverage`: (trials, n) values to bounds."""

from collections.abc import Sequence
from math import ceil, pi, sqrt
from typing import TYPE_CHECKING, NamedTuple

from erpd_hub.evaluation.intervals import t_quantile

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
_RESAMPLES = 1000
_ROUNDING = 1e-12


class Bounds(NamedTuple):
    """Ends of intervals, (trials,) each."""

    low: "np.ndarray"
    high: "np.ndarray"

    def hold(self, truth: float) -> "np.ndarray":
        return (self.low - _ROUNDING <= truth) & (truth <= self.high + _ROUNDING)

    @property
    def half_width(self) -> float:
        """Mean over the trials."""
        return float((self.high - self.low).mean()) / 2


def bootstrap(rng: "np.random.Generator", values: "np.ndarray") -> Bounds:
    """Percentiles of the mean of problems drawn again; a draw is a multinomial over the distinct values."""
    import numpy as np

    found = []
    for row in values:
        distinct, times = np.unique(row, return_counts=True)
        means = rng.multinomial(len(row), times / len(row), size=_RESAMPLES) @ distinct / len(row)
        found.append(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Bounds(*np.array(found).T)


def student(values: "np.ndarray") -> Bounds:
    n = values.shape[1]
    half = t_quantile((1 + LEVEL) / 2, n - 1) * values.std(axis=1, ddof=1) / sqrt(n)
    return Bounds(values.mean(axis=1) - half, values.mean(axis=1) + half)


def gaffke(
    values: "np.ndarray", low: "np.ndarray | float", high: "np.ndarray | float", *, halvings: int = 20
) -> Bounds:
    """`evaluation.bounded.bounded_interval` for numbers in [low, high], to (high - low) / 2^halvings."""
    import numpy as np

    found = []
    for end, chance in ((low, (1 - LEVEL) / 2), (high, (1 + LEVEL) / 2)):
        least, most = (np.broadcast_to(np.asarray(bound, float), len(values)) for bound in (low, high))
        for _ in range(halvings):
            middle = (least + most) / 2
            below = weighted_mean_cdfs(values, end, middle) < chance
            least, most = np.where(below, middle, least), np.where(below, most, middle)
        found.append((least + most) / 2)
    return Bounds(*found)


def gaffke_holds(
    values: "np.ndarray", truth: float, low: "np.ndarray | float", high: "np.ndarray | float"
) -> "np.ndarray":
    """Whether `gaffke` holds the truth, without finding its ends."""
    below, above = (weighted_mean_cdfs(values, end, truth) for end in (low, high))
    tail = (1 - LEVEL) / 2
    return (below >= tail) & (above <= 1 - tail) & (truth >= low) & (truth <= high)


def added(values: Sequence["np.ndarray"], bounds: Sequence[Bounds]) -> Bounds:
    """Intervals of the mean of several benchmarks, as `evaluation.strata` has them.

    Args:
        values, bounds: Of each benchmark.
    """
    import numpy as np

    means = [each.mean(axis=1) for each in values]
    middle, count = np.mean(means, axis=0), len(values)
    below = np.sqrt(sum((mean - found.low) ** 2 for mean, found in zip(means, bounds, strict=True))) / count
    above = np.sqrt(sum((found.high - mean) ** 2 for mean, found in zip(means, bounds, strict=True))) / count
    return Bounds(middle - below, middle + above)


def weighted_mean_cdfs(values: "np.ndarray", end: "np.ndarray | float", at: "np.ndarray | float") -> "np.ndarray":
    """`evaluation.bounded.weighted_mean_cdf` of each row of `values` (trials, n), its `end` and its `at`: (trials,)."""
    import numpy as np

    distinct, place = np.unique(values, return_inverse=True)
    place = place.reshape(values.shape)
    times = np.stack([(place == number).sum(axis=1) for number in range(len(distinct))])
    place_of = np.broadcast_to(at, len(values))[:, None]
    steps = [(value - place_of, count[:, None]) for value, count in zip(distinct, times, strict=True)]
    steps.append((np.broadcast_to(end, len(values))[:, None] - place_of, np.ones((len(values), 1))))
    scale = np.sqrt(sum(count * step**2 for step, count in steps))
    scale[scale == 0] = 1.0
    width = min(0.15, 0.9 / sqrt(values.shape[1] + 1))
    nodes = width * (np.arange(ceil(20 / width)) + 0.5)
    nodes = nodes[nodes < 4 + 40 / values.shape[1]]  # where the integrand is below 1e-16
    u = np.sinh(nodes) / scale
    size, angle = np.zeros_like(u), np.zeros_like(u)
    for step, count in steps:
        size += count * np.log1p((u * step) ** 2)
        angle += count * np.arctan(u * step)
    total = (np.exp(-size / 2) * np.sin(angle) / np.tanh(nodes)).sum(axis=1)
    return np.clip(0.5 - total * width / pi, 0.0, 1.0)
