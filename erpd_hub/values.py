"""A critic: the backbone of a policy under a linear head, V_t of the state before each response token.

It is transformers' own token classifier with one label, so that it loads anywhere. The states are those that predict
the response tokens (`logprobs`), and the head is fp32 whatever the body is computed in. Its weights start at zero and
its bias at a constant, so that the first values are that constant and the body's first gradient is zero.

B sequences, T response positions, N response tokens, H hidden size.
"""

from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING, AutoModelForTokenClassification, PreTrainedModel
from transformers.modeling_utils import set_zero3_state

from erpd_hub.errors import ConfigError
from erpd_hub.logprobs import Dtype, autocast, predicting_states, unwrap
from erpd_hub.models import device
from erpd_hub.response_batch import ResponseBatch, scatter

_HEAD = "score"
_DTYPE = "_erpd_value_dtype"


def value_model(policy: PreTrainedModel, *, start: float) -> PreTrainedModel:
    """A critic on the policy's own backbone, which is not copied.

    Args:
        start: The value of every state before training.

    Raises:
        ConfigError: transformers has no token classifier of this family, or one that is made otherwise.
    """
    config = deepcopy(policy.config)
    config.num_labels, config.classifier_dropout = 1, 0.0
    family = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.get(type(config), None)
    if family is None:
        raise ConfigError(
            f"init: expected a family with a token classifier in transformers for the critic, got "
            f"{type(policy).__name__}; take another model or a loss without a critic"
        )
    with torch.device("meta"), set_zero3_state():  # ZeRO-3 would otherwise share out, and fill, a body that has no data
        critic = family(config)
    head = getattr(critic, _HEAD, None)
    if not isinstance(head, nn.Linear) or type(critic.base_model) is not type(policy.base_model):
        raise ConfigError(f"init: expected a linear head on the policy's own body, got {family.__name__}; "
                          "take another model or a loss without a critic")  # fmt: skip
    setattr(critic, critic.base_model_prefix, policy.base_model)
    head.to_empty(device=policy.device).to(torch.promote_types(policy.dtype, torch.float32))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, start)
    return critic.eval()


def load_critic(folder: Path, *, attn_implementation: str) -> PreTrainedModel:
    """A saved critic in fp32 on the device at hand, without dropout."""
    critic = AutoModelForTokenClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, attn_implementation=attn_implementation
    )
    return critic.to(device()).eval()


def install_value_forward(model: nn.Module, dtype: Dtype = "float32") -> None:
    """Let `model(**vars(batch))` give the (B, T) values; other calls are as before. To be done before wrapping.

    Args:
        dtype: Of the body's products.
    """
    critic = unwrap(model)
    critic.forward = MethodType(_value_forward, critic)
    setattr(critic, _DTYPE, dtype)


def response_values(model: nn.Module, batch: ResponseBatch) -> Tensor:
    """(B, T) values of the states before the response tokens, in fp32 and with gradients; 0 where the mask is False.

    Args:
        model: A critic after `install_value_forward`, or what wraps it.
    """
    return model(**vars(batch))


def _value_forward(self: PreTrainedModel, *args: Any, prompt_lengths: Tensor | None = None, **kwargs: Any) -> Any:
    """In place of a critic's forward: values where lengths are given."""
    if prompt_lengths is None:
        return type(self).forward(self, *args, **kwargs)
    batch = ResponseBatch(prompt_lengths=prompt_lengths, **kwargs)
    where = batch.input_ids.device
    with autocast(where, getattr(self, _DTYPE)):
        states_NH, _ = predicting_states(self, batch)
    head = getattr(self, _HEAD)
    with torch.autocast(where.type, enabled=False):
        values_N = head(states_NH.to(head.weight.dtype))[:, 0]
    return scatter(values_N, batch.mask)
