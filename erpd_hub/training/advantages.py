"""Trajectories with advantages on their tokens: from outcomes, a critic's values, or a signal, whitened and masked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from erpd_hub.advantages import gae, group_advantages, length_adaptive_lambda
from erpd_hub.errors import StageError
from erpd_hub.signals import Shaping, Whitening, whiten
from erpd_hub.training.batches import StepBatch, Trajectory


def from_outcomes(rows: Sequence[Trajectory], *, scale: bool) -> list[Trajectory]:
    """The outcome relative to those of the prompt's other samples, on each token.

    Args:
        scale: In units of their standard deviation.
    """
    prompts = {problem_id: index for index, problem_id in enumerate(dict.fromkeys(row.problem_id for row in rows))}
    advantages = group_advantages(
        torch.tensor([row.label for row in rows]),
        torch.tensor([prompts[row.problem_id] for row in rows]),
        scale=scale,
    )
    return [
        replace(row, advantages=advantage.expand(len(row.response_ids)))
        for row, advantage in zip(rows, advantages, strict=True)
    ]


def from_values(
    rows: Sequence[Trajectory], values: Sequence[Tensor], *, alpha: float, whitened: bool
) -> list[Trajectory]:
    """Generalised advantages of a critic, lambda by the length of the response.

    Args:
        values: (T,) V of the state before each token of each row.
    """
    advantages = [
        gae(value, row.label, lambda_=length_adaptive_lambda(len(value), alpha))
        for row, value in zip(rows, values, strict=True)
    ]
    if whitened:
        flat = torch.cat(advantages)
        flat = whiten(flat, torch.ones_like(flat, dtype=torch.bool), shift_mean=True)
        advantages = list(flat.split([len(value) for value in advantages]))
    return [replace(row, advantages=values) for row, values in zip(rows, advantages, strict=True)]


@dataclass(frozen=True)
class FittedShaping:
    """A shaping with the whitening of some rows, and what its mask takes from them."""

    whitening: Whitening
    share_removed: float
    """Of response tokens whose signal the sign mask made 0."""


def fit_shaping(rows: Sequence[Trajectory], shaping: Shaping) -> FittedShaping:
    """Statistics over all response tokens of the rows, whose advantages are a raw signal: long responses weigh more.

    Row by row in float64, in two passes: a copy of the dataset would take more memory than the dataset.
    """
    tokens, total, removed = 0, 0.0, 0
    for signal, outcome in map(_signal, rows):
        tokens += len(signal)
        total += float(shaping.counted(signal, outcome).sum(dtype=torch.float64))
        removed += int(((shaping.kept(signal, outcome) == 0) & (signal != 0)).sum())
    tokens = max(tokens, 1)
    if not shaping.whiten:
        return FittedShaping(Whitening(), removed / tokens)
    mean = total / tokens
    squares = sum(
        float(((shaping.counted(signal, outcome).double() - mean) ** 2).sum()) for signal, outcome in map(_signal, rows)
    )
    whitening = Whitening.of_moments(mean, squares / max(tokens - 1, 1), shift_mean=shaping.shift_mean)
    return FittedShaping(whitening, removed / tokens)


def refuse_rounding(shaping: Shaping, whitening: Whitening) -> None:
    """Refuse a signal that whitening takes for rounding: every advantage would be zero.

    Raises:
        StageError: it does.
    """
    if whitening.scale == 0:
        masked = (shaping.right, shaping.wrong) != ("all", "all")
        raise StageError(
            "signal: expected one that varies by more than rounding, 1e-4 nats, got less: nothing would be trained on; "
            "take a numerator and a denominator that are further apart, push and score them in float32"
            + (", or keep other signs" if masked else "")
            + ", or use it as it is (whiten: none, --no-whiten of an export)"
        )


def shaped(rows: Sequence[Trajectory], shaping: Shaping, whitening: Whitening | None = None) -> list[Trajectory]:
    """Rows whose raw signal has become advantages.

    Args:
        whitening: Defaults to one fitted to these rows.
    """
    whitening = fit_shaping(rows, shaping).whitening if whitening is None else whitening
    return [replace(row, advantages=shaping.apply(*_signal(row), whitening)) for row in rows]


@dataclass(frozen=True)
class ShapedSteps(Sequence[StepBatch]):
    """Steps whose raw signals become advantages when a step is taken, whitened over its own tokens."""

    steps: Sequence[StepBatch]
    shaping: Shaping

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> StepBatch: ...
    @overload
    def __getitem__(self, index: slice) -> "ShapedSteps": ...
    def __getitem__(self, index: int | slice) -> "StepBatch | ShapedSteps":
        if isinstance(index, slice):
            return ShapedSteps(self.steps[index], self.shaping)
        batch = self.steps[index]
        return replace(batch, trajectories=tuple(shaped(batch.trajectories, self.shaping)))


def _signal(row: Trajectory) -> tuple[Tensor, Tensor]:
    """The raw signal of a row's tokens and the outcome of its response."""
    assert row.advantages is not None, "every row has a signal"
    return row.advantages, torch.tensor(row.label)
