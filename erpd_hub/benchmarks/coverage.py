"""How often the intervals hold what they are for, and how wide they are: simulated benchmarks of known difficulty.

A trial draws n problems (`erpd_hub.benchmarks.simulated`), K samples of each, and looks whether the interval holds the
mean over all problems. Beside ours stands the percentile bootstrap over problems, which is what most harnesses print.
`pooled` is the mean of three benchmarks of n problems, each with another pair. The size of the sign-flip test is its
share of p <= 0.05 under `same`.

A share of trials t has the standard error sqrt(t (1 - t) / trials), and the lowest of many cells lies a few of those
below its true value; so a cell counts as too low where it is below 95 % by more than three.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.benchmarks.coverage_methods import LEVEL, Bounds, added, bootstrap, gaffke, gaffke_holds, student
from erpd_hub.benchmarks.simulated import (
    AVERAGES,
    CONCENTRATIONS,
    PAIR_AVERAGES,
    PAIRS,
    differences,
    scores,
    true_difference,
)
from erpd_hub.evaluation.paired import sign_flip

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "erpd-hub/bench-coverage/v1"
POOLED = ("shift", "noise", "jump-5")
"""Pairs of the benchmarks whose mean is taken."""
_MEASURED = 20
"""Trials whose intervals' ends are found, which takes ten times as long as whether they hold the truth."""


class Cell(NamedTuple):
    """One simulated setting: for each method the share of trials in which its interval held the truth."""

    n: int
    k: int
    kind: str
    """`single`, which pair, or `pooled`."""
    average: float
    concentration: float
    coverage: dict[str, float]
    half_width: dict[str, float]
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
                cells += [pooled(rng, n, k, average, concentration, trials) for average in PAIR_AVERAGES]
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
    values = scores(rng, (trials, n), k, average, concentration)
    others = {"bootstrap": bootstrap(rng, values)}
    held = gaffke_holds(values, average, 0.0, 1.0)
    return _cell(n, k, "single", average, concentration, others, {"ours": gaffke(values[:_MEASURED], 0.0, 1.0)},
                 {"ours": held}, truth=average)  # fmt: skip


def pair(
    rng: "np.random.Generator", n: int, k: int, average: float, concentration: float, kind: str, trials: int
) -> Cell:
    """Coverage of a paired difference's intervals, and the size of its test."""
    truth = true_difference(rng, average, concentration, kind)
    values = differences(rng, (trials, n), k, average, concentration, kind)
    reach = _reach(values, k)
    others = {"bootstrap": bootstrap(rng, values), "student": student(values)}
    first, some = values[:_MEASURED], reach[:_MEASURED]
    ends = {"within reach": gaffke(first, -some, some), "ours": gaffke(first, -1.0, 1.0)}
    held = {"within reach": gaffke_holds(values, truth, -reach, reach), "ours": gaffke_holds(values, truth, -1.0, 1.0)}
    size = _size(values, k) if kind == "same" else None
    return _cell(n, k, kind, average, concentration, others, ends, held, truth=truth)._replace(size=size)


def pooled(rng: "np.random.Generator", n: int, k: int, average: float, concentration: float, trials: int) -> Cell:
    """Coverage of the intervals of the mean of several benchmarks' differences."""
    truth = fmean(true_difference(rng, average, concentration, kind) for kind in POOLED)
    values = [differences(rng, (trials, n), k, average, concentration, kind) for kind in POOLED]
    reaches = [_reach(each, k) for each in values]
    narrow = [gaffke(each, -reach, reach, halvings=14) for each, reach in zip(values, reaches, strict=True)]
    others = {
        "student": added(values, [student(each) for each in values]),
        "within reach": added(values, narrow),
        "ours": added(values, [gaffke(each, -1.0, 1.0, halvings=14) for each in values]),
    }
    return _cell(n, k, "pooled", average, concentration, others, {}, {}, truth=truth)


def _cell(
    n: int,
    k: int,
    kind: str,
    average: float,
    concentration: float,
    bounds: dict[str, Bounds],
    ends: dict[str, Bounds],
    held: dict[str, "np.ndarray"],
    *,
    truth: float,
) -> Cell:
    """A cell of methods with all their `bounds`, and of those with the `ends` of some trials and what `held`."""
    coverage = {name: float(each.hold(truth).mean()) for name, each in bounds.items()}
    coverage |= {name: float(each.mean()) for name, each in held.items()}
    widths = {name: each.half_width for name, each in (bounds | ends).items()}
    return Cell(n, k, kind, average, concentration, coverage, widths)


def _reach(values: "np.ndarray", k: int) -> "np.ndarray":
    """`evaluation.paired.reach_of` of each trial."""
    import numpy as np

    return np.minimum(1.0, np.abs(values).max(axis=1) + 1 / sqrt(k))


def _size(values: "np.ndarray", k: int) -> float:
    """Share of trials that the sign-flip test rejects at 5 %."""
    chances = [sign_flip([Fraction(round(value * k), k) for value in row]).two_sided for row in values.tolist()]
    return fmean(chance <= 1 - LEVEL for chance in chances)


# --------------------------------------------------------------------------------------------- summary


def _summary(cells: Sequence[Cell], trials: int) -> list[dict[str, Any]]:
    """By kind, n and K, of each method: mean and lowest coverage over the cells, cells too low, mean half-width."""
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
                    "half_width": fmean(cell.half_width[name] for cell in group),
                }
                for name in group[0].coverage
            },
            "largest_size": max((cell.size for cell in group if cell.size is not None), default=None),
        }
        for (kind, n, k), group in groups.items()
    ]


def render(report: dict[str, Any]) -> str:
    """The summary as markdown: coverage in percent, mean (lowest cell; cells too low), and half-width in points."""
    kinds = list(dict.fromkeys(row["kind"] for row in report["summary"]))
    return "\n".join(_table(kind, [row for row in report["summary"] if row["kind"] == kind]) for kind in kinds)


def _table(kind: str, rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0]["methods"])
    size = rows[0]["largest_size"] is not None
    head = ["n", "K", *names, *(["size of the test"] if size else [])]
    lines = [f"**{kind}** ({rows[0]['cells']} cells each)", "", _line(head), "|" + "--:|" * len(head)]
    for row in rows:
        cells = [
            f"{100 * one['mean']:.1f} ({100 * one['lowest']:.1f}; {one['too_low']}) ± {100 * one['half_width']:.1f}"
            for one in row["methods"].values()
        ]
        lines.append(
            _line([str(row["n"]), str(row["k"]), *cells, *([f"{100 * row['largest_size']:.1f}"] if size else [])])
        )
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
