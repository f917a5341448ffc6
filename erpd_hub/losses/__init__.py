"""The losses of both stages as pure functions of token log-probs, one module a family.

`outcome` and `policy_gradient` squeeze the batch in stage 1, `value` fits the critic of PPO, `surrogate` distils in
stage 2. A formula lives here and nowhere else; stages and recipes choose among them.
"""

from collections.abc import Callable

from erpd_hub.losses.batch import LossOutput, Metrics, Reduction, TokenBatch, ValueBatch, fit_metrics, summarise
from erpd_hub.losses.outcome import ce_loss, mse_loss, sft_loss
from erpd_hub.losses.policy_gradient import (
    cispo_loss,
    clipped_surrogate,
    dr_grpo_loss,
    grpo_loss,
    gspo_loss,
    ppo_loss,
    sapo_loss,
    topr_loss,
    vespo_loss,
)
from erpd_hub.losses.surrogate import clip_loss
from erpd_hub.losses.value import value_loss

LOSSES: dict[str, Callable[..., LossOutput]] = {
    "ce": ce_loss,
    "mse": mse_loss,
    "sft": sft_loss,
    "grpo": grpo_loss,
    "sapo": sapo_loss,
    "ppo": ppo_loss,
    "dr_grpo": dr_grpo_loss,
    "gspo": gspo_loss,
    "cispo": cispo_loss,
    "vespo": vespo_loss,
    "topr": topr_loss,
}
"""Teacher losses by the `type` of their config, whose `parameters` are their keyword arguments."""

__all__ = [
    "LOSSES",
    "LossOutput",
    "Metrics",
    "Reduction",
    "TokenBatch",
    "ValueBatch",
    "ce_loss",
    "cispo_loss",
    "clip_loss",
    "clipped_surrogate",
    "dr_grpo_loss",
    "fit_metrics",
    "grpo_loss",
    "gspo_loss",
    "mse_loss",
    "ppo_loss",
    "sapo_loss",
    "sft_loss",
    "summarise",
    "topr_loss",
    "value_loss",
    "vespo_loss",
]
