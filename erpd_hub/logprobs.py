"""Token log-probs of responses.

Only hidden states at positions that predict response tokens reach the output head, in fp32 and chunk by chunk
(`head.py`), so the (B, L, V) logits never exist. Old, numerator, denominator and student all come through here, since
two code paths differ by more than the signal.

A model that DDP, FSDP2 or ZeRO-3 will wrap is prepared with `install_logprob_forward`: their hooks gather weights
around the wrapped model's forward and around its head's, so the whole computation and the head's part run in there.

B sequences, R rows, L positions, T response positions, N response tokens, V vocabulary, H hidden size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from erpd_hub.errors import ConfigError
from erpd_hub.head import Transform, token_logprobs
from erpd_hub.response_batch import ResponseBatch, scatter

_INSTALLED = "_erpd_logprob_forward"

Dtype = Literal["float32", "bfloat16"]


class ResponseLogprobs(NamedTuple):
    logprobs: Tensor  # (B, T) nats, 0 where the mask is False
    entropy: Tensor | None  # (B, T) nats over the whole vocabulary


def response_logprobs(
    model: nn.Module, batch: ResponseBatch, *, temperature: float, with_entropy: bool = False
) -> ResponseLogprobs:
    """Log-probs of the response tokens under softmax(logits / temperature), in fp32 and with gradients.

    The head is fp32 whatever the dtype of the body (`install_logprob_forward` says it, else an autocast around this).

    Args:
        model: A policy, or what DDP, DeepSpeed, accelerate, FSDP2 or PEFT made of it; a wrapper is called itself, and
            the policy in it must have gone through `install_logprob_forward` before.

    Returns:
        (B, T) tensors; `entropy` is None unless asked for.
    """
    policy = unwrap(model)
    if getattr(policy, _INSTALLED, None) is not None:
        return model(**vars(batch), temperature=temperature, with_entropy=with_entropy)
    assert model is policy or hasattr(model, "get_base_model"), "install_logprob_forward comes before wrapping"
    return policy_logprobs(policy, batch, temperature=temperature, with_entropy=with_entropy)


def policy_logprobs(
    policy: PreTrainedModel, batch: ResponseBatch, *, temperature: float, with_entropy: bool
) -> ResponseLogprobs:
    """`response_logprobs` of a policy that nothing wraps, in whatever autocast is on."""
    hidden_NH, targets_N = predicting_states(policy, batch)
    head, transform = output_head(policy), logit_transform(policy, temperature)
    if getattr(policy, _INSTALLED, None) is not None:
        scored = head(hidden_NH, targets=targets_N, transform=transform, with_entropy=with_entropy)
    else:
        scored = _head_forward(head, hidden_NH, targets_N, transform=transform, with_entropy=with_entropy)
    logprobs, entropy = scored
    mask = batch.mask
    return ResponseLogprobs(scatter(logprobs, mask), None if entropy is None else scatter(entropy, mask))


def install_logprob_forward(model: nn.Module, dtype: Dtype = "float32") -> None:
    """Let `model(**vars(batch), temperature=, with_entropy=)` give ResponseLogprobs; other calls are as before.

    Args:
        dtype: Of the body's products. The weights keep their dtype, and fp32 masters are cast as they are used:
            scoring has to load them in fp32 too, since bf16 weights mean a residual stream in bf16.
    """
    policy = unwrap(model)
    if getattr(policy, _INSTALLED, None) is None:
        head = output_head(policy)
        head.forward = MethodType(_head_forward, head)
        policy.forward = MethodType(_policy_forward, policy)
    setattr(policy, _INSTALLED, dtype)


def autocast(device: torch.device, dtype: Dtype) -> torch.autocast:
    """Products in bfloat16, or in the weights' own dtype."""
    # Each weight is used once a forward: a cache would only keep a second copy of all of them alive.
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=False)


@contextmanager
def body_dtype(model: nn.Module, dtype: Dtype) -> Iterator[None]:
    """Compute with this dtype for a while, whatever `install_logprob_forward` was told."""
    policy = unwrap(model)
    installed = getattr(policy, _INSTALLED, None)
    if installed is not None:
        setattr(policy, _INSTALLED, dtype)
    try:
        with autocast(policy.device, dtype):
            yield
    finally:
        if installed is not None:
            setattr(policy, _INSTALLED, installed)


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The policy inside DDP, DeepSpeed, torch.compile and PEFT."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
            model = inner
        else:
            return model


def logit_transform(model: PreTrainedModel, temperature: float) -> Transform:
    """What a family does to its logits before the softmax: Cohere multiplies, Granite divides, Gemma squashes them."""
    config = model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    if (scale := getattr(config, "logit_scale", None)) is not None:
        return Transform(temperature, scale, softcap)
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return Transform(temperature, 1 / divisor, softcap)
    return Transform(temperature, 1.0, softcap)


def _policy_forward(self: PreTrainedModel, *args: Any, prompt_lengths: Tensor | None = None, **kwargs: Any) -> Any:
    """In place of a policy's forward: log-probs where lengths are given. PEFT adds arguments of its own, all None."""
    if prompt_lengths is None:
        return type(self).forward(self, *args, **kwargs)
    names = ("input_ids", "response_lengths", "rows", "starts", "position_ids")
    batch = ResponseBatch(prompt_lengths=prompt_lengths, **{name: kwargs[name] for name in names})
    with autocast(batch.input_ids.device, getattr(self, _INSTALLED)):
        return policy_logprobs(self, batch, temperature=kwargs["temperature"], with_entropy=kwargs["with_entropy"])


def _head_forward(self: nn.Linear, hidden: Tensor, targets: Tensor | None = None, **kwargs: Any) -> Any:
    """In place of the head's forward: log-probs where targets are given."""
    if targets is None:
        return type(self).forward(self, hidden)
    return token_logprobs(hidden, self.weight, self.bias, targets, **kwargs)


def predicting_states(model: PreTrainedModel, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """The (N, H) hidden states that predict response tokens and the (N,) tokens, sequence by sequence."""
    # Padding stands behind every real token, so causality keeps it out without an attention mask. With a cache,
    # transformers would no longer see from position_ids that a row holds several sequences.
    positions = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
    states_RLH = model.base_model(input_ids=batch.input_ids, use_cache=False, **positions).last_hidden_state
    sequences, offsets = batch.mask.nonzero(as_tuple=True)
    inside = batch.starts[sequences] + batch.prompt_lengths[sequences] + offsets
    flat = batch.rows[sequences] * batch.input_ids.shape[1] + inside
    return states_RLH.flatten(0, 1).index_select(0, flat - 1), batch.input_ids.flatten()[flat]


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The (V, H) linear map from hidden states to logits.

    Raises:
        ConfigError: the model has none that is linear.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"{type(model).__name__}: expected a linear output head, got {type(head).__name__}; leave the head out of "
            "adapters and quantization"
        )
    return head
