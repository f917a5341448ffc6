"""What a card says about a raw signal: moments, quantiles and outliers, by a response's outcome and the position in it.

Streaming, in two passes and in memory that does not grow with the signal. Quantiles of the whole and of each label are
exact, which takes the second pass; those by position come from the first and are up to 0.8 % nearer to zero.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from erpd_hub.errors import ArtifactError
from erpd_hub.quantiles import HALF, bin_of, cut_value, exact_value, ordered_bits, ranks

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Of the whole and of each label."""
POSITION_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
OUTLIER_DEVIATIONS = (5, 10)
"""Distances from the signal's mean in its standard deviations, beyond which a token counts as an outlier."""
POSITIONS = ("first", *(f"{10 * tenth}-{10 * tenth + 10} %" for tenth in range(10)), "last")
"""Tenths of a response, and its first and last token, which are also in a tenth."""
_LABELS = ("positive", "negative", "ungraded")
_CELLS = len(_LABELS) * len(POSITIONS)
_LISTED = 10


class SignalBlock(NamedTuple):
    """Some responses of a signal: N tokens of M responses."""

    values: np.ndarray
    """(N,) nats in float32, response after response."""
    lengths: np.ndarray
    """(M,) tokens of each response."""
    labels: np.ndarray
    """(M,) outcome of each response, NaN where ungraded."""
    problem_ids: Sequence[str]
    ks: Sequence[int]


class Moments:
    """Count, mean and sum of squared distances from it, of what came so far and in each cell, in float64."""

    def __init__(self, cells: int = 1) -> None:
        self.count: np.ndarray = np.zeros(cells)
        self.mean: np.ndarray = np.zeros(cells)
        self.squares: np.ndarray = np.zeros(cells)

    def add(self, values: np.ndarray, cells: np.ndarray | None = None) -> None:
        """Take in values, each in its cell (all in the only one, where no cells are given)."""
        exact: np.ndarray = values.astype(np.float64)
        places = np.zeros(len(values), np.intp) if cells is None else cells
        added = Moments(len(self.count))
        added.count = np.bincount(places, minlength=len(self.count)).astype(np.float64)
        added.mean = np.bincount(places, exact, minlength=len(self.count)) / np.maximum(added.count, 1)
        added.squares = np.bincount(places, (exact - added.mean[places]) ** 2, minlength=len(self.count))
        self._merge(added)

    def of(self, cells: Sequence[int]) -> "Moments":
        """Several cells as one."""
        whole = Moments()
        for cell in cells:
            part = Moments()
            part.count, part.mean, part.squares = (x[[cell]] for x in (self.count, self.mean, self.squares))
            whole._merge(part)
        return whole

    def deviation(self) -> float:
        """Standard deviation of the only cell, unbiased."""
        return math.sqrt(self.squares[0] / max(self.count[0] - 1, 1))

    def _merge(self, added: "Moments") -> None:
        count = self.count + added.count
        shift, share = added.mean - self.mean, added.count / np.maximum(count, 1)
        self.squares = self.squares + added.squares + shift**2 * self.count * share
        self.mean, self.count = self.mean + shift * share, count


def describe_signal(blocks: Iterable[SignalBlock]) -> dict[str, Any]:
    """Statistics of a raw signal as JSON values; the rows of `by_label_and_position` and `outliers` are flat tables.

    Args:
        blocks: Iterated twice.

    Raises:
        ArtifactError: there are no tokens.
    """
    first = _FirstPass()
    for block in blocks:
        first.add(block)
    whole = first.moments.of(_cells_of())
    count = int(whole.count[0])
    if not count:
        raise ArtifactError("rollouts: expected response tokens, got none; there is no signal without")
    second = _SecondPass(first, float(whole.mean[0]), whole.deviation())
    for block in blocks:
        second.add(block)
    summary: dict[str, Any] = {"tokens": count, "mean": float(whole.mean[0]), "std": whole.deviation()}
    summary["share_positive"] = first.above_zero / count
    for label in ("positive", "negative"):
        moments = first.moments.of(_cells_of(label))
        if moments.count[0]:
            summary |= {f"mean_{label}": float(moments.mean[0]), f"std_{label}": moments.deviation()}
    for bound, beyond in second.beyond.items():
        summary[f"share_beyond_{bound}_std"] = float(beyond[_cells_of()].sum()) / count
    summary |= {f"quantile_{quantile:g}": value for quantile, value in second.quantiles(None).items()}
    for label in ("positive", "negative"):
        if first.moments.of(_cells_of(label)).count[0]:
            exact = second.quantiles(label).items()
            summary[f"quantiles_{label}"] = {f"{quantile:g}": value for quantile, value in exact}
    summary["by_label_and_position"] = list(_rows(first, second))
    return summary | {"outliers": second.listed()}


class _FirstPass:
    def __init__(self) -> None:
        self.moments = Moments(_CELLS)
        self.upper: np.ndarray = np.zeros((_CELLS, HALF), np.int64)
        self.least: np.ndarray = np.full(_CELLS, np.inf)
        self.greatest: np.ndarray = np.full(_CELLS, -np.inf)
        self.above_zero = 0

    def add(self, block: SignalBlock) -> None:
        values, cells, _ = _in_cells(block)
        self.moments.add(values, cells)
        upper = (ordered_bits(values) >> 16).astype(np.int64)
        self.upper += np.bincount(cells * HALF + upper, minlength=_CELLS * HALF).reshape(_CELLS, HALF)
        for cell in np.flatnonzero(np.bincount(cells, minlength=_CELLS)):  # minimum.at takes ten times as long
            inside = values[cells == cell]
            self.least[cell] = min(self.least[cell], inside.min())
            self.greatest[cell] = max(self.greatest[cell], inside.max())
        self.above_zero += int(np.count_nonzero(block.values > 0))


class _SecondPass:
    """What needs the whole's mean and deviation, or the bins in which the wanted ranks lie."""

    def __init__(self, first: _FirstPass, mean: float, deviation: float) -> None:
        self._mean, self._deviation = mean, deviation
        self._upper = {label: first.upper[_cells_of(label)].sum(axis=0) for label in (None, "positive", "negative")}
        self._lower: dict[str | None, dict[int, np.ndarray]] = {
            label: {bin_of(upper, rank): np.zeros(HALF, np.int64) for rank in ranks(upper, QUANTILES)}
            for label, upper in self._upper.items()
        }
        self.beyond: dict[int, np.ndarray] = {bound: np.zeros(_CELLS, np.int64) for bound in OUTLIER_DEVIATIONS}
        self._largest: list[tuple[float, int, dict[str, Any]]] = []
        self._seen = 0

    def add(self, block: SignalBlock) -> None:
        values, cells, responses = _in_cells(block)
        distances = np.abs(values.astype(np.float64) - self._mean)
        for bound, counts in self.beyond.items():
            counts += np.bincount(cells[distances > bound * self._deviation], minlength=_CELLS)
        count = len(block.values)
        bits = ordered_bits(block.values)
        labels: np.ndarray = cells[:count] // len(POSITIONS)
        for label, bins in self._lower.items():
            chosen = bits if label is None else bits[labels == _LABELS.index(label)]
            upper = chosen >> 16
            for bin, counts in bins.items():
                counts += np.bincount(chosen[upper == bin] & 0xFFFF, minlength=HALF)
        self._keep_largest(block, distances[:count], responses)

    def _keep_largest(self, block: SignalBlock, distances: np.ndarray, responses: np.ndarray) -> None:
        """Of equally distant tokens the first ones stay, so that it does not matter how the signal is cut."""
        if not len(distances) or not self._deviation:
            return
        wanted = min(_LISTED, len(distances))
        bound = np.partition(distances, -wanted)[-wanted]
        candidates = [*np.flatnonzero(distances > bound), *np.flatnonzero(distances == bound)[:wanted]]
        found = [
            (float(distances[at]), -self._seen - int(at), self._outlier(block, int(at), int(responses[at])))
            for at in candidates
        ]
        self._largest = heapq.nlargest(_LISTED, self._largest + found, key=lambda entry: entry[:2])
        self._seen += len(distances)

    def _outlier(self, block: SignalBlock, at: int, response: int) -> dict[str, Any]:
        label, value = block.labels[response], float(block.values[at])
        return {
            "problem_id": block.problem_ids[response],
            "k": int(block.ks[response]),
            "position": at - int(block.lengths[:response].sum()),
            "length": int(block.lengths[response]),
            "label": None if np.isnan(label) else int(label),
            "value": _rounded(value),
            "deviations": _rounded((value - self._mean) / self._deviation),
        }

    def listed(self) -> list[dict[str, Any]]:
        return [found for _, _, found in self._largest]

    def quantiles(self, label: str | None) -> dict[float, float]:
        upper = self._upper[label]
        found = [exact_value(upper, self._lower[label], rank) for rank in ranks(upper, QUANTILES)]
        return dict(zip(QUANTILES, found, strict=True))


def _rows(first: _FirstPass, second: _SecondPass) -> Iterator[dict[str, Any]]:
    """One flat row for each label and position that has tokens; None stands for all of them."""
    for label in (None, "positive", "negative"):
        for position in (None, *POSITIONS):
            cells = _cells_of(label, position)
            moments = first.moments.of(cells)
            if not moments.count[0]:
                continue
            upper = first.upper[cells].sum(axis=0)
            least, greatest = float(first.least[cells].min()), float(first.greatest[cells].max())
            row: dict[str, Any] = {"label": label, "position": position, "tokens": int(moments.count[0])}
            row |= {
                "mean": _rounded(float(moments.mean[0])),
                "std": _rounded(moments.deviation()),
                "min": _rounded(least),
            }
            for quantile, rank in zip(POSITION_QUANTILES, ranks(upper, POSITION_QUANTILES), strict=True):
                row[f"quantile_{quantile:g}"] = _rounded(min(max(cut_value(upper, rank), least), greatest))
            row["max"] = _rounded(greatest)
            for bound, beyond in second.beyond.items():
                row[f"share_beyond_{bound}_std"] = _rounded(beyond[cells].sum() / moments.count[0])
            yield row


def _in_cells(block: SignalBlock) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and their cells, the first and last tokens of responses behind the N tokens; and (N,) response of each."""
    lengths: np.ndarray = block.lengths.astype(np.int64)
    responses: np.ndarray = np.repeat(np.arange(len(lengths)), lengths)
    ends = lengths.cumsum()
    filled = lengths > 0
    offsets = np.arange(len(block.values)) - np.repeat(ends - lengths, lengths)
    rows = np.where(block.labels == 1, 0, np.where(block.labels == 0, 1, 2)) * len(POSITIONS)
    tenths = 1 + 10 * offsets // np.repeat(lengths, lengths)
    firsts, lasts = (ends - lengths)[filled], ends[filled] - 1
    values = np.concatenate([block.values, block.values[firsts], block.values[lasts]])
    last = rows[filled] + len(POSITIONS) - 1
    return values, np.concatenate([rows[responses] + tenths, rows[filled], last]), responses


def _cells_of(label: str | None = None, position: str | None = None) -> list[int]:
    """Cells of a label and a position; of all positions those of the tenths, which hold every token once."""
    labels = range(len(_LABELS)) if label is None else [_LABELS.index(label)]
    positions = range(1, len(POSITIONS) - 1) if position is None else [POSITIONS.index(position)]
    return [row * len(POSITIONS) + column for row in labels for column in positions]


def _rounded(value: float) -> float:
    """Five significant digits: tables are part of the lineage record."""
    return float(f"{value:.5g}")
