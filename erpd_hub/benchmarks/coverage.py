"""How often the intervals hold what they are for: simulated benchmarks of known difficulty.

A trial draws n problems, whose chances to be solved have a known mean (beta distributions from nearly all-or-nothing to
all alike), K samples of each, and looks whether the interval holds the mean. Beside ours stands the percentile
bootstrap over problems, which is what most harnesses print. Pairs are two checkpoints on the same problems:

    same       no problem differs
    shift      every problem's log-odds go up by 0.7
    noise      they go up by 0.3 on average, with an sd of 1
    jump-15    15 problems in a hundred are now always solved, nothing else changes; jump-5 likewise

The size of the sign-flip test is its share of p <= 0.05 under `same`. A share of trials t has the standard error
sqrt(t (1 - t) / trials), and the lowest of many cells lies a few of those below its true value; so a cell counts as too
low where it is below 95 % by more than three.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil, exp, inf, log, pi, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.evaluation.intervals import t_quantile
from erpd_hub.evaluation.paired import sign_flip

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "erpd-hub/bench-coverage/v1"
LEVEL = 0.95
CONCENTRATIONS = (0.1, 1.0, 5.0, inf)
"""a + b of the beta distribution of difficulties: nearly all or nothing, flat, bell-shaped, all alike."""
AVERAGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
PAIRS = ("same", "shift", "noise", "jump-5", "jump-15")
PAIR_AVERAGES = (0.1, 0.5, 0.9)
_RESAMPLES = 1000


class Cell(NamedTuple):
    """One simulated setting: for each method the share of trials in which its interval held the truth."""

    n: int
    k: int
    kind: str
    """`single`, or which pair."""
    average: float
    concentration: float
    coverage: dict[str, float]
    size: float | None = None
    """Of the sign-flip test at 5 %; None where the two differ."""


def run(
    *, problems: Sequence[int], samples: Sequence[int], trials: int, seed: int = 0, progress: Callable[[str], None]
) -> dict[str, Any]:
    """The report: every cell, and a summary by n and K."""
    import numpy as np

    rng = np.random.default_rng(seed)
    cells = []
    for n in problems:
        for k in samples:
            for concentration in CONCENTRATIONS:
                cells += [single(rng, n, k, average, concentration, trials) for average in AVERAGES]
                cells += [pair(rng, n, k, average, concentration, kind, trials)
                          for average in PAIR_AVERAGES for kind in PAIRS]  # fmt: skip
            progress(f"n = {n}, K = {k}: done")
    return {
        "schema": SCHEMA,
        "trials": trials,
        "seed": seed,
        "summary": _summary(cells, trials),
        "cells": [cell._asdict() | {"concentration": str(cell.concentration)} for cell in cells],
    }


def single(rng: "np.random.Generator", n: int, k: int, average: float, concentration: float, trials: int) -> Cell:
    """Coverage of AVG@K's interval."""
    import numpy as np

    values: np.ndarray = np.asarray(rng.binomial(k, _chances(rng, (trials, n), average, concentration))) / k
    held = {
        "bootstrap": _bootstrap_holds(rng, values, average),
        "ours": _ours_holds(values, average, low=0.0, high=1.0),
    }
    return Cell(n, k, "single", average, concentration, {name: float(each.mean()) for name, each in held.items()})


def pair(
    rng: "np.random.Generator", n: int, k: int, average: float, concentration: float, kind: str, trials: int
) -> Cell:
    """Coverage of a paired difference's intervals, and the size of its test."""
    import numpy as np

    truth = _true_difference(rng, average, concentration, kind)
    before = _chances(rng, (trials, n), average, concentration)
    counts = np.asarray(rng.binomial(k, _changed(rng, before, kind))) - np.asarray(rng.binomial(k, before))
    reach = np.minimum(1.0, np.abs(counts).max(axis=1) / k + 1 / sqrt(k))  # as `reach_of` has it
    held = {
        "bootstrap": _bootstrap_holds(rng, counts / k, truth),
        "student": _student_holds(counts / k, truth),
        "ours": _ours_holds(counts / k, truth, low=-reach, high=reach),
        "widest": _ours_holds(counts / k, truth, low=-1.0, high=1.0),
    }
    size = None
    if kind == "same":
        chances = [sign_flip([Fraction(int(count), k) for count in row]).two_sided for row in counts]
        size = fmean(chance <= 1 - LEVEL for chance in chances)
    return Cell(n, k, kind, average, concentration, {name: float(each.mean()) for name, each in held.items()}, size)


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


def _true_difference(rng: "np.random.Generator", average: float, concentration: float, kind: str) -> float:
    """Exact where it is known, else the mean of many problems."""
    if kind == "same":
        return 0.0
    if kind.startswith("jump-"):
        return int(kind.removeprefix("jump-")) / 100 * (1 - average)
    if concentration == inf and kind == "shift":
        return 1 / (1 + exp(-(log(average / (1 - average)) + 0.7))) - average
    before = _chances(rng, (400_000,), average, concentration)
    return float((_changed(rng, before, kind) - before).mean())


# ------------------------------------------------------------------- which trials' intervals hold the truth


def _bootstrap_holds(rng: "np.random.Generator", values: "np.ndarray", truth: float) -> "np.ndarray":
    """Of the percentile interval of problems drawn again; a draw is a multinomial over the distinct values."""
    import numpy as np

    held = []
    for row in values:
        distinct, times = np.unique(row, return_counts=True)
        means = rng.multinomial(len(row), times / len(row), size=_RESAMPLES) @ distinct / len(row)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        held.append(low - 1e-12 <= truth <= high + 1e-12)
    return np.array(held)


def _student_holds(values: "np.ndarray", truth: float) -> "np.ndarray":
    n = values.shape[1]
    half = t_quantile((1 + LEVEL) / 2, n - 1) * values.std(axis=1, ddof=1) / sqrt(n)
    return abs(values.mean(axis=1) - truth) <= half + 1e-12


def _ours_holds(
    values: "np.ndarray", truth: float, *, low: "np.ndarray | float", high: "np.ndarray | float"
) -> "np.ndarray":
    """`bounded_contains` of many trials at once; ends beyond which the truth lies hold it not."""
    below, above = (weighted_mean_cdfs(values, end, truth) for end in (low, high))
    tail = (1 - LEVEL) / 2
    return (below >= tail) & (above <= 1 - tail) & (truth >= low) & (truth <= high)


def weighted_mean_cdfs(values: "np.ndarray", end: "np.ndarray | float", at: float) -> "np.ndarray":
    """`evaluation.bounded.weighted_mean_cdf` of each row of `values` (trials, n) and its `end`: (trials,)."""
    import numpy as np

    distinct, place = np.unique(values, return_inverse=True)
    place = place.reshape(values.shape)
    times = np.stack([(place == number).sum(axis=1) for number in range(len(distinct))])
    steps = [(value - at, count[:, None]) for value, count in zip(distinct, times, strict=True)]
    steps.append((np.broadcast_to(end, len(values))[:, None] - at, np.ones((len(values), 1))))
    scale = np.sqrt(sum(count * step**2 for step, count in steps))
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


# --------------------------------------------------------------------------------------------- summary


def _summary(cells: Sequence[Cell], trials: int) -> list[dict[str, Any]]:
    """By kind, n and K: mean and lowest coverage of each method over the cells, and how many cells are too low."""
    too_low = LEVEL - 3 * sqrt(LEVEL * (1 - LEVEL) / trials)
    groups: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind, cell.n, cell.k), []).append(cell)
    return [
        {
            "kind": kind,
            "n": n,
            "k": k,
            "cells": len(group),
            "methods": {
                name: {
                    "mean": fmean(cell.coverage[name] for cell in group),
                    "lowest": min(cell.coverage[name] for cell in group),
                    "too_low": sum(cell.coverage[name] < too_low for cell in group),
                }
                for name in group[0].coverage
            },
            "largest_size": max((cell.size for cell in group if cell.size is not None), default=None),
        }
        for (kind, n, k), group in groups.items()
    ]


def render(report: dict[str, Any]) -> str:
    """The summary as markdown: coverage in percent, mean (lowest cell; cells too low)."""
    kinds = list(dict.fromkeys(row["kind"] for row in report["summary"]))
    return "\n".join(_table(kind, [row for row in report["summary"] if row["kind"] == kind]) for kind in kinds)


def _table(kind: str, rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0]["methods"])
    size = rows[0]["largest_size"] is not None
    head = ["n", "K", *names, *(["size of the test"] if size else [])]
    lines = [f"**{kind}** ({rows[0]['cells']} cells each)", "", _line(head), "|" + "--:|" * len(head)]
    for row in rows:
        cells = [
            f"{100 * one['mean']:.1f} ({100 * one['lowest']:.1f}; {one['too_low']})" for one in row["methods"].values()
        ]
        lines.append(
            _line([str(row["n"]), str(row["k"]), *cells, *([f"{100 * row['largest_size']:.1f}"] if size else [])])
        )
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
