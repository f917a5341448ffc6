"""Forward and backward of one optimizer step, exact however it is cut and over however many processes.

Each micro-batch's loss is a sum, divided by the denominator of the whole step, so gradients and metrics of the passes
add up to those of the step. Wrappers average gradients over processes: losses are multiplied by their number.

Torch and transformers only, so that a benchmark needs no more. Not here: clipping, the optimizer, and DeepSpeed (see
trainer.py).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from erpd_hub.exact_kl import kl_to_anchor
from erpd_hub.logprobs import Dtype, install_logprob_forward, response_logprobs, unwrap
from erpd_hub.losses import LossOutput, TokenBatch
from erpd_hub.response_batch import Layout, ResponseBatch
from erpd_hub.training.batches import COLUMNS, Denominators, MicroBatch, Trajectory, collate, pad_column

Loss = Callable[[Any], LossOutput]
"""Of what a `Computation` sees: a TokenBatch, or a ValueBatch."""


class StepSums(NamedTuple):
    """What a whole step computed, the same on every rank."""

    loss: float
    metrics: dict[str, tuple[float, float]]
    """(sum, count) over the step, added up in fp64."""


class Anchor(NamedTuple):
    """A frozen policy beside the one in training, for the exact KL to it."""

    model: PreTrainedModel
    dtype: Dtype

    def kl(self, policy: nn.Module, batch: ResponseBatch, *, temperature: float) -> Tensor:
        """(B, T) KL(policy || anchor) over the whole vocabulary, with gradient; of a policy that nothing wraps."""
        return kl_to_anchor(unwrap(policy), self.model, batch, temperature=temperature, dtype=self.dtype)


class Sync:
    """How the gradients of the processes are brought together; this one is for a model that nothing wraps."""

    world = 1
    """Processes whose mean gradient the wrapper takes."""

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        """Entered around the forward and backward pass of each micro-batch."""
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks."""
        return values


class WrappedSync(Sync):
    """DDP and FSDP2: gradients travel after the last micro-batch only.

    Args:
        every: Reduce after each micro-batch all the same. FSDP2 holds whole gradients on each rank until they travel,
            for which a large model has no room.
    """

    def __init__(self, model: nn.Module, *, every: bool = False) -> None:
        self.model = model
        self.every = every
        self.world = dist.get_world_size()

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        travel = last or self.every
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(travel)
        elif isinstance(self.model, DistributedDataParallel) and not travel:
            return self.model.no_sync()
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values


def sync_for(model: nn.Module, *, every: bool = False) -> Sync:
    wrapped = isinstance(model, DistributedDataParallel | FSDPModule)
    return WrappedSync(model, every=every) if wrapped else Sync()


def forward_backward(
    model: nn.Module,
    batches: Sequence[MicroBatch],
    loss: Loss,
    denominators: Denominators,
    *,
    temperature: float,
    device: torch.device,
    layout: Layout = "padded",
    sync: Sync | None = None,
    anchor: Anchor | None = None,
    see: Callable[..., Any] | None = None,
) -> StepSums:
    """Accumulate one step's gradient in the model's parameters.

    Args:
        batches: This rank's part of the step, of the same number on every rank (`batches.share`).
        denominators: Of the whole step.
        sync: Defaults to what the model's wrapper needs.
        anchor: Gives the batch its `kl_to_old`.
        see: Makes what the loss looks at; defaults to `token_batch`, whose arguments it takes.
    """
    sync, see = sync or sync_for(model), see or token_batch
    total = torch.zeros((), dtype=torch.float64, device=device)
    metrics: dict[str, Tensor] = {}
    for place, batch in enumerate(batches, start=1):
        last = place == len(batches)
        with sync.micro_batch(last=last):
            seen = see(model, batch.rows, temperature=temperature, device=device, layout=layout, anchor=anchor)
            output = loss(seen)
            share = output.sum / denominators.by(output.reduction) * batch.weight
            sync.backward(share * sync.world, last=last)
        total += share.detach().double()
        for name, pair in output.metrics.items():
            values = torch.tensor(pair, dtype=torch.float64, device=device) * batch.weight
            metrics[name] = metrics[name] + values if name in metrics else values
    return _sums(sync, total, metrics)


def token_batch(
    model: nn.Module,
    rows: Sequence[Trajectory],
    *,
    temperature: float,
    device: torch.device,
    layout: Layout,
    anchor: Anchor | None = None,
) -> TokenBatch:
    """What a loss looks at, the rows' log-probs under the model among it."""
    batch = collate(rows, device, layout)
    scored = response_logprobs(model, batch, temperature=temperature, with_entropy=True)
    return TokenBatch(
        logprobs=scored.logprobs,
        mask=batch.mask,
        labels=torch.tensor([row.label for row in rows], device=device),
        entropy=scored.entropy,
        kl_to_old=None if anchor is None else anchor.kl(model, batch, temperature=temperature),
        **{name: pad_column(rows, name, device) for name in COLUMNS},
    )


class Computation(NamedTuple):
    """What is computed of rows for a loss, and what makes a model ready for it before anything wraps it."""

    install: Callable[[nn.Module, Dtype], None]
    see: Callable[..., Any]
    """With the arguments of `token_batch`."""


LOGPROBS = Computation(install_logprob_forward, token_batch)


def _sums(sync: Sync, loss: Tensor, metrics: dict[str, Tensor]) -> StepSums:
    """Sums over all ranks in one message: they ran the same losses, so they have the same names in the same order."""
    total, *values = sync.total(torch.cat([loss[None], *metrics.values()])).tolist()
    pairs = zip(values[::2], values[1::2], strict=True)
    return StepSums(total, dict(zip(metrics, pairs, strict=True)))
