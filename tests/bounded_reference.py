"""Whether `bounded_interval` holds a mean, without finding its ends: what tests compare its bounds with."""

from collections import Counter
from collections.abc import Sequence

from erpd_hub.evaluation.bounded import weighted_mean_cdf


def bounded_contains(
    values: Sequence[float], mean: float, *, level: float = 0.95, low: float = 0.0, high: float = 1.0
) -> bool:
    tail, counted = (1 - level) / 2, Counter(values)
    below = weighted_mean_cdf(counted + Counter([low]), mean)
    return below >= tail and weighted_mean_cdf(counted + Counter([high]), mean) <= 1 - tail
