"""What a card says of a critic's values on its rollouts: V, its error V - R, and how much of the outcome it explains.

The tables are those of a raw signal (`signal_statistics`), so that the outliers of a log-ratio and of a linear critic
stand side by side [P Fig. 10]; the explained variance is that of the MSE policy's probabilities [P Fig. 5].
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erpd_hub.columns import ShardReader, flat_values, row_lengths
from erpd_hub.samples import shard_paths
from erpd_hub.signal_statistics import Moments, SignalBlock, describe_signal


def describe_values(rollouts: Path, folder: Path, held_out: Collection[str] = ()) -> dict[str, Any]:
    """Statistics as JSON values.

    Args:
        folder: With VALUE_SCHEMA shards that mirror those of the rollouts.
        held_out: Prompts that were not trained on.
    """
    fits = {name: OutcomeFit() for name in ("whole", "trained", "held_out")}
    for block in _Values(rollouts, folder):
        out = np.isin(np.asarray(block.problem_ids), list(held_out))
        for name, rows in (("whole", True), ("trained", ~out), ("held_out", out)):
            fits[name].add(block.values, block.lengths, np.where(rows, block.labels, np.nan))
    found = {"explained_variance": fits["whole"].explained_variance()}
    if held_out:
        found["explained_variance_trained"] = fits["trained"].explained_variance()
        found["explained_variance_held_out"] = fits["held_out"].explained_variance()
    values = describe_signal(_Values(rollouts, folder))
    return {**found, "values": values, "errors": describe_signal(_Errors(_Values(rollouts, folder)))}


class OutcomeFit:
    """How well values of tokens fit the outcome of their response: moments of R and of R - V over tokens."""

    def __init__(self) -> None:
        self._outcomes, self._errors = Moments(), Moments()

    def add(self, values: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> None:
        """Take in responses.

        Args:
            values: (tokens,), those of one response after the other.
            lengths: (B,), tokens of each response.
            labels: (B,), outcomes; a response without one (NaN) is left out.
        """
        graded = ~np.isnan(labels)
        kept: np.ndarray = np.repeat(graded, lengths)
        outcomes: np.ndarray = np.repeat(labels[graded].astype(np.float64), lengths[graded])
        self._outcomes.add(outcomes)
        self._errors.add(outcomes - values[kept])

    def explained_variance(self) -> float | None:
        """1 - Var(R - V) / Var(R); None where all outcomes are the same."""
        variance = float(self._outcomes.squares[0])
        return 1 - float(self._errors.squares[0]) / variance if variance else None

    def mean_squared_error(self) -> float | None:
        """Mean of (R - V)^2; None of no tokens."""
        count = float(self._errors.count[0])
        return float(self._errors.squares[0] / count + self._errors.mean[0] ** 2) if count else None


@dataclass(frozen=True)
class _Values:
    """The values of all responses, block by block and as often as asked for."""

    rollouts: Path
    folder: Path

    def __iter__(self) -> Iterator[SignalBlock]:
        for shard in shard_paths(self.folder):
            samples = ShardReader(self.rollouts / "data" / shard.name, ["label"])
            for block in ShardReader(shard, ["problem_id", "k", "values"]).blocks():
                labels = samples.take(len(block))["label"].cast("float32").to_numpy()  # a null becomes NaN
                ids, ks = block["problem_id"].to_pylist(), block["k"].to_pylist()
                yield SignalBlock(flat_values(block["values"]), row_lengths(block["values"]), labels, ids, ks)


@dataclass(frozen=True)
class _Errors:
    """V - R of the graded responses."""

    values: _Values

    def __iter__(self) -> Iterator[SignalBlock]:
        for block in self.values:
            graded = ~np.isnan(block.labels)
            rows = np.flatnonzero(graded).tolist()
            kept: np.ndarray = np.repeat(graded, block.lengths)
            errors = (block.values - np.repeat(block.labels, block.lengths))[kept]
            ids, ks = [block.problem_ids[row] for row in rows], [block.ks[row] for row in rows]
            yield SignalBlock(errors, block.lengths[rows], block.labels[rows], ids, ks)
