"""Unlearn and recover: what the MSE loss does to a policy whose states share weights, and the recipes that show it."""

import pytest
import torch

from erpd_hub import config as c
from erpd_hub.losses import TokenBatch, mse_loss
from erpd_hub.losses.batch import summarise
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe

RIGHT = WRONG = 4
START = (0.995, 0.0025, 0.0025)


def train(negative_weight: float, steps: int = 600, *, shared: bool = True) -> list[dict[str, float]]:
    """Metrics of gradient descent on logits = shared + the state's own; 4 right and 4 wrong states of a token each."""
    trunk = torch.tensor(START, dtype=torch.float64).log().requires_grad_(shared)
    own = torch.zeros(RIGHT + WRONG, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([own, trunk] if shared else [own], lr=2.0)
    labels = torch.tensor([1.0] * RIGHT + [0.0] * WRONG, dtype=torch.float64)
    mask = torch.ones(RIGHT + WRONG, 1, dtype=torch.bool)
    seen = []
    for _ in range(steps):
        batch = TokenBatch((trunk + own).log_softmax(-1)[:, :1], mask, labels)
        loss = mse_loss(batch, negative_weight=negative_weight)
        mean = loss.sum / (RIGHT + WRONG)
        seen.append(summarise(loss.metrics) | {"loss": mean.item()})
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
    return seen


def lowest(seen: list[dict[str, float]]) -> float:
    return min(step["probability_positive"] for step in seen)


def test_positives_fall_and_recover() -> None:
    """Section 3.4: dragged down with the negatives at first, then loss near zero and explained variance above 0.9."""
    seen = train(1.0)
    assert seen[0]["probability_positive"] == pytest.approx(0.995)
    assert lowest(seen) < 0.8
    assert seen[-1]["probability_positive"] > 0.95 > 0.1 > seen[-1]["probability_negative"]
    assert seen[-1]["loss"] < 0.01
    assert seen[-1]["explained_variance"] > 0.95


def test_a_larger_weight_of_the_negatives_unlearns_deeper() -> None:
    falls = [lowest(train(weight, 150)) for weight in (0.3, 1.0, 3.0)]
    assert falls[0] > falls[1] > falls[2]


def test_without_shared_weights_nothing_is_unlearned() -> None:
    assert lowest(train(1.0, 100, shared=False)) == pytest.approx(0.995)


def test_at_the_start_negatives_outweigh_positives() -> None:
    """Gradient per log-prob: 2 (p - R) p."""
    logprobs = torch.full((2, 1), 0.98, dtype=torch.float64).log().requires_grad_()
    batch = TokenBatch(logprobs, torch.ones(2, 1, dtype=torch.bool), torch.tensor([1.0, 0.0], dtype=torch.float64))
    mse_loss(batch, negative_weight=1.0).sum.backward()
    assert logprobs.grad[:, 0].tolist() == pytest.approx([2 * (0.98 - 1) * 0.98, 2 * 0.98 * 0.98])


def test_the_recipe_measures_every_saved_step_and_picks_among_the_early_ones() -> None:
    plan = make_plan(load_recipe("mse-recovery"))
    saved = plan.node("r1/mse").config.kept_steps
    measured = {name for name in (node.name for node in plan.nodes) if name.startswith("r1/evaluate/mse")}
    assert len(measured) == len(saved) == 16
    candidates = plan.node("r1/unlearned").inputs
    assert [edge.role for edge in candidates] == [f"candidates:{place}" for place in range(6)]
    assert [edge.saved_step for edge in candidates] == [2, 4, 6, 10, 16, 24]
    assert {edge.source for edge in candidates} == {"r1/mse"}
    assert isinstance(plan.node("r1/control").config, c.DistillConfig)


def test_the_shortcut_pairs_one_recovered_policy_with_short_runs_at_other_rates() -> None:
    plan = make_plan(load_recipe("mse-recovery-rates"))
    rates = {node.step: node.config.learning_rate for node in plan.nodes if isinstance(node.config, c.TeacherConfig)}
    runs = {edge.source.removeprefix("r1/") for edge in plan.node("r1/shortcut").inputs}
    assert "mse" not in runs and len({rates[name] for name in (*runs, "mse")}) == len(runs) + 1 >= 4
    signals = {node.step: node.config for node in plan.nodes if isinstance(node.config, c.SignalConfig)}
    assert {signal.numerator for signal in signals.values()} == {"settled"}
    tens = {f"{name}@step-10" for name in (*runs, "mse")}
    assert {signal.denominator for signal in signals.values()} == tens | {"unlearned", "shortcut"}
