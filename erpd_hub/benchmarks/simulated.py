"""Simulated benchmarks of known difficulty, for `erpd_hub.benchmarks.coverage`.

Problems' chances to be solved are beta distributed around a known mean, from nearly all-or-nothing to all alike. A pair
is two checkpoints on the same problems:

    same       no problem differs
    shift      every problem's log-odds go up by 0.7
    noise      they go up by 0.3 on average, with an sd of 1
    jump-15    15 problems in a hundred are now always solved, nothing else changes; jump-5 likewise
"""

from math import exp, inf, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONCENTRATIONS = (0.1, 1.0, 5.0, inf)
"""a + b of the beta distribution of difficulties: nearly all or nothing, flat, bell-shaped, all alike."""
AVERAGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
PAIRS = ("same", "shift", "noise", "jump-5", "jump-15")
PAIR_AVERAGES = (0.1, 0.5, 0.9)


def scores(
    rng: "np.random.Generator", shape: tuple[int, ...], k: int, average: float, concentration: float
) -> "np.ndarray":
    """Share of right samples of each problem, in [0, 1]."""
    import numpy as np

    return np.asarray(rng.binomial(k, _chances(rng, shape, average, concentration))) / k


def differences(
    rng: "np.random.Generator", shape: tuple[int, ...], k: int, average: float, concentration: float, kind: str
) -> "np.ndarray":
    """Later checkpoint's share minus the earlier one's, of each problem; in [-1, 1], multiples of 1 / k."""
    import numpy as np

    before = _chances(rng, shape, average, concentration)
    return (np.asarray(rng.binomial(k, _changed(rng, before, kind))) - np.asarray(rng.binomial(k, before))) / k


def true_difference(rng: "np.random.Generator", average: float, concentration: float, kind: str) -> float:
    """Of the two chances, over all problems: exact where it is known, else the mean of many problems."""
    if kind == "same":
        return 0.0
    if kind.startswith("jump-"):
        return int(kind.removeprefix("jump-")) / 100 * (1 - average)
    if concentration == inf and kind == "shift":
        return 1 / (1 + exp(-(log(average / (1 - average)) + 0.7))) - average
    before = _chances(rng, (400_000,), average, concentration)
    return float((_changed(rng, before, kind) - before).mean())


def _chances(rng: "np.random.Generator", shape: tuple[int, ...], average: float, concentration: float) -> "np.ndarray":
    import numpy as np

    if concentration == inf:
        return np.full(shape, average)
    return rng.beta(average * concentration, (1 - average) * concentration, shape)


def _changed(rng: "np.random.Generator", before: "np.ndarray", kind: str) -> "np.ndarray":
    import numpy as np

    if kind == "same":
        return before
    if kind.startswith("jump-"):
        return np.where(rng.random(before.shape) < int(kind.removeprefix("jump-")) / 100, 1.0, before)
    inside = np.clip(before, 1e-12, 1 - 1e-12)
    step = 0.7 if kind == "shift" else 0.3 + rng.standard_normal(before.shape)
    return 1 / (1 + np.exp(-(np.log(inside / (1 - inside)) + step)))
