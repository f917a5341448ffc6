"""Advantages from outcomes: group baselines, and generalised advantages of a critic. Pure functions.

M samples, T response tokens; outcomes in {0, 1}.
"""

import torch
from torch import Tensor

_STD_FLOOR = 1e-6
"""Added to a group's standard deviation [S verl]."""
_BLOCK = 256
LAMBDA_ALPHA = 0.05
"""lambda_policy = 1 - 1 / (alpha l) for a response of l tokens [P the form, S2 VAPO's 0.05]."""


def group_advantages(labels: Tensor, group: Tensor, *, scale: bool = False) -> Tensor:
    """Outcome minus the mean outcome of its prompt's samples; 0 for a sample that could not be graded.

    Args:
        labels: (M,) in {0, 1}, NaN where ungraded.
        group: (M,) index of the prompt, 0 to the number of prompts - 1.
        scale: Divide by the group's unbiased standard deviation + 1e-6, as GRPO does [S verl, TRL].
    """
    graded = ~labels.isnan()
    outcome = torch.where(graded, labels, 0.0)
    size = int(group.max()) + 1 if len(group) else 0
    counts = _sums(graded.to(labels.dtype), group, size)
    means = _sums(outcome, group, size) / counts.clamp(min=1)
    centred = torch.where(graded, outcome - means[group], 0.0)
    if not scale:
        return centred
    variances = _sums(centred**2, group, size) / (counts - 1).clamp(min=1)
    return centred / (variances.sqrt() + _STD_FLOOR)[group]


def gae(values: Tensor, outcome: float, *, lambda_: float) -> Tensor:
    """Generalised advantages of one response, whose only reward R is its outcome after the last token; gamma = 1.

    A_t = sum_{i >= t} lambda^(i - t) delta_i, delta_i = V_{i+1} - V_i, and R - V_T at the last token.

    Args:
        values: (T,) V_t of the state before token t.
    """
    if not len(values):
        return values
    deltas = torch.cat([values[1:], values.new_tensor([outcome])]) - values
    # A reversed linear recurrence, in blocks: responses have tens of thousands of tokens.
    distance = torch.arange(_BLOCK, dtype=deltas.dtype)
    weights = torch.triu(lambda_ ** (distance[None, :] - distance[:, None]).clamp(min=0))
    found: list[Tensor] = []
    beyond = deltas.new_zeros(())
    for block in reversed(deltas.split(_BLOCK)):
        size = len(block)
        inside = weights[:size, :size] @ block + lambda_ ** (size - distance[:size]) * beyond
        found.append(inside)
        beyond = inside[0]
    return torch.cat(found[::-1])


def length_adaptive_lambda(length: int, alpha: float = LAMBDA_ALPHA) -> float:
    """1 - 1 / (alpha l), and 0 for responses so short that it would be negative: 100 tokens 0.8, 20,000 0.999."""
    return max(0.0, 1.0 - 1.0 / (alpha * max(length, 1)))


def _sums(values: Tensor, group: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=values.dtype).index_add_(0, group, values)
