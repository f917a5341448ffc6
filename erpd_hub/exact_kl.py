"""The exact KL between two policies at the response tokens of a batch: over the whole vocabulary, chunk by chunk.

B sequences, T response positions, N response tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from erpd_hub.head import make_head
from erpd_hub.logprobs import Dtype, autocast, logit_transform, output_head, predicting_states
from erpd_hub.response_batch import ResponseBatch, scatter


class Comparison(NamedTuple):
    """Two policies p and q at each response position, in nats; (B, T) each, 0 where the mask is False."""

    kl: Tensor  # KL(p || q) over the whole vocabulary
    entropy: Tensor  # of p, over the whole vocabulary
    logprobs_p: Tensor  # of the taken tokens
    logprobs_q: Tensor


@torch.no_grad()
def full_vocabulary_kl(
    model_p: PreTrainedModel,
    model_q: PreTrainedModel,
    batch: ResponseBatch,
    *,
    temperature: float = 1.0,
    dtype: Dtype = "float32",
) -> Comparison:
    """Exact KL(p || q) over the whole vocabulary at each response position, the entropy of p and both log-probs.

    Args:
        dtype: Of the products in both bodies; the heads are fp32.
    """
    with autocast(batch.input_ids.device, dtype):
        hidden_p, targets = predicting_states(model_p, batch)
        hidden_q, _ = predicting_states(model_q, batch)
    head_p, head_q = (
        make_head(head.weight, head.bias, logit_transform(model, temperature), low_precision=dtype == "bfloat16")
        for model, head in ((model_p, output_head(model_p)), (model_q, output_head(model_q)))
    )
    parts = []
    for at in head_p.chunks(len(hidden_p)):
        log_p, log_q = head_p.log_softmax(hidden_p[at]), head_q.log_softmax(hidden_q[at])
        p, taken = log_p.exp(), targets[at, None]
        taken_p, taken_q = log_p.gather(-1, taken)[:, 0], log_q.gather(-1, taken)[:, 0]
        parts.append(torch.stack([(p * (log_p - log_q)).sum(-1), -(p * log_p).sum(-1), taken_p, taken_q]))
    return Comparison(*(scatter(values, batch.mask) for values in torch.cat(parts, dim=1)))


def kl_to_anchor(
    model: PreTrainedModel, anchor: PreTrainedModel, batch: ResponseBatch, *, temperature: float, dtype: Dtype
) -> Tensor:
    """(B, T) exact KL(model || anchor) over the whole vocabulary at each response position, with the model's gradient.

    Costs a further forward pass of each; logits are computed again, chunk by chunk, in the backward pass.
    """
    device = batch.input_ids.device
    with autocast(device, dtype):
        states, _ = predicting_states(model, batch)
        with torch.no_grad():
            anchored, _ = predicting_states(anchor, batch)
    head, other = output_head(model), output_head(anchor)
    low = dtype == "bfloat16"
    bias = None if other.bias is None else other.bias.detach()
    fixed = make_head(other.weight.detach(), bias, logit_transform(anchor, temperature), low_precision=low)
    transform = logit_transform(model, temperature)

    def chunk(states: Tensor, anchored: Tensor) -> Tensor:
        wide = torch.promote_types(head.weight.dtype, torch.float32)
        logits = nn.functional.linear(states.to(wide), head.weight.to(wide), head.bias)
        log_p, log_q = torch.log_softmax(transform.applied(logits), -1), fixed.log_softmax(anchored)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    parts = [checkpoint(chunk, states[at], anchored[at], use_reentrant=False) for at in fixed.chunks(len(states))]
    return scatter(torch.cat(parts), batch.mask)
