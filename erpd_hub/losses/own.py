"""A loss of the user's own, held to what the trainer needs of it."""

from collections.abc import Callable
from typing import Any, get_args

import torch

from erpd_hub.errors import StageError
from erpd_hub.losses.batch import LossOutput, Reduction, TokenBatch

Loss = Callable[..., LossOutput]


def checked(path: str, function: Callable[..., Any]) -> Loss:
    """The function, whose results are looked at before they train anything.

    Args:
        path: Its import path, for messages.
    """

    def loss(batch: TokenBatch, **arguments: Any) -> LossOutput:
        return _checked(path, function(batch, **arguments))

    return loss


def _checked(path: str, output: Any) -> LossOutput:
    """Raises StageError: it is not a sum with a reduction and metrics."""
    if not isinstance(output, LossOutput):
        raise StageError(
            f"{path}: expected a LossOutput, got {type(output).__name__}; return LossOutput(sum, reduction, metrics), "
            "from erpd_hub.losses"
        )
    if not isinstance(output.sum, torch.Tensor) or output.sum.numel() != 1:
        shape = f"shape {tuple(output.sum.shape)}" if isinstance(output.sum, torch.Tensor) else repr(output.sum)
        raise StageError(f"{path}: sum: expected a tensor of one number, got {shape}; add up the batch's losses")
    if not output.sum.requires_grad:
        raise StageError(f"{path}: sum: expected a gradient, got none; make it from batch.logprobs")
    if output.reduction not in get_args(Reduction):
        names = ", ".join(get_args(Reduction))
        raise StageError(f"{path}: reduction: expected one of {names}, got {output.reduction!r}")
    for name, pair in output.metrics.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise StageError(f"{path}: metrics.{name}: expected a pair (sum, count), got {pair!r}")
    return output
