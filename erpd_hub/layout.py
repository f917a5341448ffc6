"""How sequences lie in a forward pass, and whether this model gives each of them the log-probs it has alone.

Packing several sequences into a row is exact only where an architecture honours it: attention with variable lengths
does, a linear attention may carry its state over from the row's earlier sequences and say nothing. So every training
and scoring stage probes the model at hand before it starts. Needs torch and transformers alone.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from erpd_hub.errors import ConfigError
from erpd_hub.logprobs import Dtype, body_dtype, response_logprobs, unwrap
from erpd_hub.response_batch import Layout, ResponseBatch, make_batch

_PROBE_LENGTHS = ((5, 9), (66, 8), (3, 14))
"""(prompt, response) tokens; one sequence is longer than the 64 positions that linear attentions take at once."""
_TOLERANCE = 1e-4
"""Of a log-prob in fp32, relative where it is below -1. Measured: up to 2e-5 where a layout is exact (tiny policies far
from their start), 0.3 where it leaks (SmolLM2-135M)."""
_TOLERANCE_BF16 = 0.2
"""Root mean square in nats. Measured on SmolLM2-135M: 0.014 to 0.022 where a layout is exact, 1.7 where it leaks. Both
are wide: a checkpoint to which a layout is refused cannot be compared with the others of its run."""
_VARLEN = "flash_attention"

Wanted = Layout | Literal["auto"]

logger = logging.getLogger(__name__)


class _Probe(NamedTuple):
    prompts: list[Tensor]
    responses: list[Tensor]
    alone: list[Tensor]  # log-probs of each response, its sequence alone in the batch


def exact_layout(model: nn.Module, wanted: Wanted, *, dtype: Dtype) -> Layout:
    """The fastest layout that this model is exact in; one sequence a row, with a warning, where the wanted one is not.

    Args:
        model: As `response_logprobs` takes it; where it is sharded, every process probes at once.
        wanted: `auto` packs only where attention takes variable lengths, else it pads: with a mask instead, a packed
            row costs the square of its length.
        dtype: Of the body's products. Exactness is a matter of structure, so the probe runs in fp32 wherever it can.

    Raises:
        ConfigError: this package's log-probs are not those of the model's own logits.
    """
    policy = unwrap(model)
    varlen = str(policy.config._attn_implementation).startswith(_VARLEN)
    probed_in: Dtype = dtype if varlen or policy.dtype != torch.float32 else "float32"
    probe = _alone(model, probed_in)
    _check_head(model, probe, probed_in)
    candidates: tuple[Layout, ...] = (
        ("packed", "padded") if wanted == "auto" and varlen else ("padded",) if wanted == "auto" else (wanted,)
    )
    for layout in candidates:
        if layout == "single":
            return layout
        deviation, tolerance = _deviation(model, probe, layout, probed_in)
        if deviation <= tolerance:
            return layout
        logger.warning(
            "%s rows change this model's log-probs by %.2g nats (%.2g allowed): not used",
            layout, deviation, tolerance,
        )  # fmt: skip
    return "single"


def cut_batches(lengths: Sequence[int], budget: int, layout: Layout) -> Iterator[list[int]]:
    """Cut sequences into batches of at most `budget` tokens, padding included; a longer one is a batch by itself.

    Longest first, so that what does not fit into memory fails at once; the rest of a packed row is filled with the
    longest sequences that fit.
    """
    if layout == "packed":
        yield from _filled_rows(lengths, budget)
        return
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (layout == "single" or (len(batch) + 1) * lengths[batch[0]] > budget):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _filled_rows(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    left = sorted((length, -index) for index, length in enumerate(lengths))
    while left:
        length, index = left.pop()
        row, room = [-index], budget - length
        while (at := bisect_right(left, (room, 0))) > 0:
            length, index = left.pop(at - 1)
            row.append(-index)
            room -= length
        yield row


def _alone(model: nn.Module, dtype: Dtype) -> _Probe:
    generator = torch.Generator().manual_seed(0)
    vocabulary = unwrap(model).config.get_text_config().vocab_size
    prompts, responses = zip(
        *(
            (torch.randint(vocabulary, (a,), generator=generator), torch.randint(vocabulary, (b,), generator=generator))
            for a, b in _PROBE_LENGTHS
        ),
        strict=True,
    )
    alone = [
        _logprobs(model, make_batch([prompt], [response], layout="single"), dtype)[0]
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    return _Probe(list(prompts), list(responses), alone)


def _deviation(model: nn.Module, probe: _Probe, layout: Layout, dtype: Dtype) -> tuple[float, float]:
    """Deviation of the layout from one sequence alone, and what is allowed.

    fp32: the largest, relative where a log-prob is below -1. bf16, where other shapes round otherwise: the root mean
    square.
    """
    together = _logprobs(model, make_batch(probe.prompts, probe.responses, layout=layout), dtype)
    alone = torch.cat(probe.alone)
    found = torch.cat([row[: len(values)] for row, values in zip(together, probe.alone, strict=True)])
    if _is_fp32(model, dtype):
        return ((found - alone).abs() / alone.abs().clamp(min=1)).max().item(), _TOLERANCE
    return (found - alone).square().mean().sqrt().item(), _TOLERANCE_BF16


@torch.no_grad()
def _check_head(model: nn.Module, probe: _Probe, dtype: Dtype) -> None:
    """Families scale their logits each in its own way, and one that is not known here would be scored wrongly."""
    prompt, response = probe.prompts[0], probe.responses[0]
    ids = torch.cat([prompt, response])[None].to(unwrap(model).device)
    with body_dtype(model, dtype):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    own = torch.log_softmax(logits, dim=-1).gather(-1, response[:, None].to(logits.device))[:, 0]
    deviation = (own - probe.alone[0]).abs().mean().item()
    if deviation > (10 * _TOLERANCE if _is_fp32(model, dtype) else _TOLERANCE_BF16):
        raise ConfigError(
            f"{type(unwrap(model)).__name__}: expected log-probs of the model's own logits, got {deviation:.2g} nats "
            "beside them; erpd_hub.logprobs.logit_transform does not know what this family does to its logits"
        )


@torch.no_grad()
def _logprobs(model: nn.Module, batch: ResponseBatch, dtype: Dtype) -> Tensor:
    with body_dtype(model, dtype):
        return response_logprobs(model, batch.to(unwrap(model).device), temperature=1.0).logprobs


def _is_fp32(model: nn.Module, dtype: Dtype) -> bool:
    return dtype == "float32" and unwrap(model).dtype == torch.float32
