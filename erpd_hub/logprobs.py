"""Token log-probs of responses, the KL estimators built on them, and the one masked reduction.

Only hidden states at positions that predict response tokens reach the output head, in fp32 and tile by tile, so the
(B, L, V) logits never exist. Rows are left-aligned and the mask counts tokens: pad and end token may be the same id.
Old, numerator, denominator and student all come through here, since two code paths differ by more than the signal.

B sequences, L positions, T response positions, N response tokens, V vocabulary, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.kernels import ChunkedLogProbFunction

_TILE_CPU = 256
"""Vocabulary columns of one tile: 0.86 GB and 21 s for a step that took 5.0 GB and 41 s at TRL's 32,768 on a CPU."""
_TILE_GPU = 16384
_KL_ELEMENTS = 1 << 24
"""Logits held at once for a full-vocabulary KL: 64 MB in fp32 a tensor."""
_MAX_LOG_RATIO = 20.0
"""Bound on log-ratios before exp: e^20 is far outside any clip range and still finite in fp32."""


@dataclass(frozen=True)
class ResponseBatch:
    """Prompts with their responses, left-aligned and padded on the right."""

    input_ids: Tensor  # (B, L)
    prompt_lengths: Tensor  # (B,), each at least 1
    response_lengths: Tensor  # (B,), each at least 1

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True on response tokens, the stop token included."""
        positions = torch.arange(int(self.response_lengths.max()), device=self.input_ids.device)
        return positions[None, :] < self.response_lengths[:, None]


class ResponseLogprobs(NamedTuple):
    logprobs: Tensor  # (B, T) nats, 0 where the mask is False
    entropy: Tensor | None  # (B, T) nats over the whole vocabulary


class Comparison(NamedTuple):
    """Two policies p and q at each response position, in nats; (B, T) each, 0 where the mask is False."""

    kl: Tensor  # KL(p || q) over the whole vocabulary
    entropy: Tensor  # of p, over the whole vocabulary
    logprobs_p: Tensor  # of the taken tokens
    logprobs_q: Tensor


def make_batch(
    prompts: Sequence[Sequence[int] | Tensor],
    responses: Sequence[Sequence[int] | Tensor],
    device: torch.device | None = None,
) -> ResponseBatch:
    """Pad token id rows into one batch; the padding id is 0 and means nothing."""
    rows = [
        torch.cat([torch.as_tensor(prompt), torch.as_tensor(response)])
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return ResponseBatch(
        input_ids.to(device),
        torch.tensor([len(prompt) for prompt in prompts], device=device),
        torch.tensor([len(response) for response in responses], device=device),
    )


def response_logprobs(
    model: PreTrainedModel, batch: ResponseBatch, *, temperature: float, with_entropy: bool = False
) -> ResponseLogprobs:
    """Log-probs of the response tokens under softmax(logits / temperature), in fp32 and with gradients.

    Returns:
        (B, T) tensors; `entropy` is None unless asked for.
    """
    mask = batch.mask
    hidden_NH, targets_N = _predicting_states(model, batch)
    head = model.get_output_embeddings()
    scale, softcap = _logit_transform(model)
    tile = min(head.weight.shape[0], _TILE_CPU if hidden_NH.device.type == "cpu" else _TILE_GPU)
    with torch.autocast(hidden_NH.device.type, enabled=False):
        logprobs, entropy, *_ = ChunkedLogProbFunction.apply(
            hidden_NH.float(), head.weight, head.bias, targets_N, temperature, tile, softcap, scale,
            ("entropy",) if with_entropy else (),
        )  # fmt: skip
    return ResponseLogprobs(_scatter(logprobs, mask), None if entropy is None else _scatter(entropy, mask))


@torch.no_grad()
def full_vocabulary_kl(
    model_p: PreTrainedModel, model_q: PreTrainedModel, batch: ResponseBatch, *, temperature: float = 1.0
) -> Comparison:
    """Exact KL(p || q) over the whole vocabulary at each response position, the entropy of p and both log-probs."""
    hidden_p, targets = _predicting_states(model_p, batch)
    hidden_q, _ = _predicting_states(model_q, batch)
    rows = max(1, _KL_ELEMENTS // model_p.get_output_embeddings().weight.shape[0])
    parts = []
    for part_p, part_q, taken in zip(hidden_p.split(rows), hidden_q.split(rows), targets.split(rows), strict=True):
        log_p = _log_softmax(model_p, part_p, temperature)
        log_q = _log_softmax(model_q, part_q, temperature)
        p, taken = log_p.exp(), taken[:, None]
        parts.append(
            torch.stack(
                [
                    (p * (log_p - log_q)).sum(-1),
                    -(p * log_p).sum(-1),
                    log_p.gather(-1, taken)[:, 0],
                    log_q.gather(-1, taken)[:, 0],
                ]
            )
        )
    return Comparison(*(_scatter(values, batch.mask) for values in torch.cat(parts, dim=1)))


def masked_mean(values: Tensor, mask: Tensor, axis: int | None = None) -> Tensor:
    """Mean of `values` where `mask` is True; 0 where nothing is."""
    total = torch.where(mask, values, 0.0)
    return total.sum() / mask.sum().clamp(min=1) if axis is None else total.sum(axis) / mask.sum(axis).clamp(min=1)


def log_ratio(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log pi / pi_reference of the taken tokens, bounded so that its exp is finite."""
    return (logprobs - reference).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def kl_k1(logprobs_p: Tensor, logprobs_q: Tensor) -> Tensor:
    """k1 estimate of KL(p || q) a token, log p - log q, for tokens drawn from p: unbiased, may be negative."""
    return logprobs_p - logprobs_q


def kl_k3(logprobs_p: Tensor, logprobs_q: Tensor) -> Tensor:
    """k3 estimate of KL(p || q) a token, q/p - 1 - log q/p, for tokens drawn from p: unbiased and never negative."""
    ratio = log_ratio(logprobs_q, logprobs_p)
    return ratio.exp() - 1 - ratio


def _predicting_states(model: PreTrainedModel, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """The (N, H) hidden states that predict response tokens and the (N,) tokens, row by row."""
    # Padding stands behind every real token, so causality keeps it out without an attention mask.
    states_BLH = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    rows, offsets = batch.mask.nonzero(as_tuple=True)
    positions = batch.prompt_lengths[rows] + offsets
    return states_BLH[rows, positions - 1], batch.input_ids[rows, positions]


def _scatter(values_N: Tensor, mask: Tensor) -> Tensor:
    return values_N.new_zeros(mask.shape).masked_scatter(mask, values_N)


def _log_softmax(model: PreTrainedModel, hidden_NH: Tensor, temperature: float) -> Tensor:
    head = model.get_output_embeddings()
    scale, softcap = _logit_transform(model)
    bias = None if head.bias is None else head.bias.float()
    logits = torch.nn.functional.linear(hidden_NH.float(), head.weight.float(), bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.log_softmax(logits / temperature, dim=-1)


def _logit_transform(model: PreTrainedModel) -> tuple[float, float | None]:
    """What a family does to its logits before the softmax: (scale, softcap).

    Cohere multiplies them, Granite divides, Gemma squashes.
    """
    config = model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    if (scale := getattr(config, "logit_scale", None)) is not None:
        return scale, softcap
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return 1 / divisor, softcap
    return 1.0, softcap
