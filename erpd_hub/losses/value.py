"""The loss of PPO's critic: value pre-training on a fixed batch.

With gamma 1 and lambda 1 the target of each token is the Monte-Carlo return. The only reward is the outcome R, so that
is R for every token of the response, whatever the policy and the critic do meanwhile. On a fixed batch a critic is
therefore fitted once, before the policy moves, and there is nothing to update it with afterwards.
"""

from erpd_hub.losses.batch import LossOutput, Metrics, ValueBatch, aggregate, fit_metrics, token_sum


def value_loss(batch: ValueBatch) -> LossOutput:
    """(V_t - R)^2, mean over response tokens.

    Metrics:
        value_positive, value_negative: mean V over tokens of right and of wrong responses.
    """
    losses = (batch.values - batch.labels[:, None]) ** 2
    metrics: Metrics = fit_metrics(batch.values, batch)
    for name, label in (("positive", 1), ("negative", 0)):
        of_label = batch.mask & (batch.labels == label)[:, None]
        metrics[f"value_{name}"] = token_sum(batch.values.detach(), of_label)
    return LossOutput(aggregate(losses, batch, "token"), "token", metrics)
