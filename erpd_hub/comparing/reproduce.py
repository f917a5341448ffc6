"""Measured beside reported. Pure; no files, no Hub. What a twin says to the paper's claims is `comparing.claims`.

The tolerances are fixed here, before anything is measured. The paper gives no errors; a score of the same problems and
K has about the error of ours, so two of them differ by chance with sqrt(2) times our sampling error.
"""

from collections.abc import Iterable, Mapping
from math import sqrt
from statistics import fmean
from typing import Any, NamedTuple

from erpd_hub.comparing.paper import LENGTH, SELECTION_BENCHMARK, Experiment, Row

POINTS = 3.0
"""[I] AVG@K agrees within this many points, or two errors of a difference where that is more."""
KL_ABSOLUTE, KL_RELATIVE = 0.005, 0.3
"""[I] A KL agrees within this many nats per token, or this share of what is reported where that is more."""
ENTROPY = 0.05
"""[I] Nats."""
LENGTH_RELATIVE = 0.1
"""[I] Of a mean response."""
PROBED = ("kl_to_base", "entropy")

HOW = (
    f"a score agrees within {POINTS:g} points or two errors of a difference of two such scores, a KL within "
    f"{KL_ABSOLUTE:g} or {KL_RELATIVE:.0%}, an entropy within {ENTROPY:g}, a mean length within {LENGTH_RELATIVE:.0%}"
)


class Cell(NamedTuple):
    """One number of the paper and ours."""

    column: str
    reported: float | None
    measured: float | None
    """In the units of the paper."""
    tolerance: float | None
    agrees: bool | None
    """None where one of the two is missing."""
    selection: bool
    """The models were selected on it: it counts in no mean."""


class Beside(NamedTuple):
    """One row of the paper and ours."""

    row: str
    ref: str
    cells: tuple[Cell, ...]
    reported_mean: float | None
    """Over benchmarks without the one selected on, of those that both have."""
    measured_mean: float | None


def beside(experiment: Experiment, model: str, checkpoints: Iterable[Mapping[str, Any]]) -> list[Beside]:
    """The paper's rows for a model beside the summary of a run.

    Args:
        checkpoints: Of the summary, with `stderr_sampling` where the record has it.
    """
    by_ref: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in checkpoints:
        by_ref.setdefault(item["ref"], {})[item["benchmark"]] = item
    also = experiment.also.get(model, {})
    lengths = dict.fromkeys(column for values in also.values() for column in values if column.endswith(LENGTH))
    return [
        _beside(
            name,
            row,
            dict(zip(experiment.columns, row.reported, strict=True))
            | {column: also.get(name, {}).get(column) for column in lengths},
            by_ref,
        )
        for name, row in experiment.rows.get(model, {}).items()
    ]


def _beside(
    name: str,
    row: Row,
    reported: Mapping[str, float | None],
    by_ref: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Beside:
    ref = max(row.ref, key=lambda one: (one in by_ref, _score(by_ref.get(one, {}), SELECTION_BENCHMARK) or 0.0))
    found = by_ref.get(ref, {})
    cells = tuple(_cell(column, value, found) for column, value in reported.items())
    scores = [cell for cell in cells if cell.column not in PROBED and not cell.column.endswith(LENGTH)]
    both = [cell for cell in scores if cell.agrees is not None and not cell.selection]
    means = [fmean(values) if values else None for values in (
        [cell.reported for cell in both if cell.reported is not None],
        [cell.measured for cell in both if cell.measured is not None],
    )]  # fmt: skip
    return Beside(name, ref, cells, means[0], means[1])


def _score(found: Mapping[str, Mapping[str, Any]], benchmark: str) -> float | None:
    """With the judge, where a recipe asked one whose canaries let it be trusted, as the paper's numbers may be."""
    if benchmark not in found:
        return None
    item = found[benchmark]
    judged = None if item.get("canaries_problem") else item.get("avg_judged")
    return item["avg"] if judged is None else judged


def _cell(column: str, reported: float | None, found: Mapping[str, Mapping[str, Any]]) -> Cell:
    if column in PROBED:
        measured = next((item[column] for item in found.values() if item[column] is not None), None)
        error = None
    elif column.endswith(LENGTH):
        measured = found.get(column.removesuffix(LENGTH), {}).get("mean_length")
        error = None
    else:
        average, error = _score(found, column), found.get(column, {}).get("stderr_sampling")
        measured = None if average is None else 100 * average
    if reported is None or measured is None:
        return Cell(column, reported, measured, None, None, column == SELECTION_BENCHMARK)
    tolerance = _tolerance(column, reported, error)
    agrees = abs(measured - reported) <= tolerance
    return Cell(column, reported, measured, tolerance, agrees, column == SELECTION_BENCHMARK)


def _tolerance(column: str, reported: float, error: float | None) -> float:
    if column == "kl_to_base":
        return max(KL_ABSOLUTE, KL_RELATIVE * reported)
    if column == "entropy":
        return ENTROPY
    if column.endswith(LENGTH):
        return LENGTH_RELATIVE * reported
    return max(POINTS, 200 * sqrt(2) * (error or 0.0))
