"""Each loss against a plain loop written from its formula, and the gradients the formulas promise."""

import math
import re
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_losses import example, gradient, some_rows

from erpd_hub import losses as pg
from erpd_hub.losses import TokenBatch


def rows(batch: TokenBatch):
    """Plain numbers: (label, [(logp, old, advantage), ...]) of each sequence."""
    for i, label in enumerate(batch.labels.tolist()):
        length = int(batch.mask[i].sum())
        columns = (batch.logprobs, batch.old_logprobs, batch.advantages)
        yield label, list(zip(*(column[i, :length].tolist() for column in columns), strict=True))


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def grpo(batch: TokenBatch) -> float:
    return sum(
        -min(math.exp(p - q) * a, clip(math.exp(p - q), 0.8, 1.28) * a) for _, seq in rows(batch) for p, q, a in seq
    )


def sapo(batch: TokenBatch) -> float:
    total = 0.0
    for _, seq in rows(batch):
        gates = []
        for p, q, a in seq:
            tau = 1.0 if a > 0 else 1.05
            gates.append(-4 / tau / (1 + math.exp(-tau * (math.exp(p - q) - 1))) * a)
        total += sum(gates) / len(gates)
    return total


def gspo(batch: TokenBatch) -> float:
    total = 0.0
    for _, seq in rows(batch):
        s = math.exp(sum(p - q for p, q, _ in seq) / len(seq))
        total += sum(-min(s * a, clip(s, 1 - 3e-4, 1 + 4e-4) * a) for _, _, a in seq) / len(seq)
    return total


def cispo(batch: TokenBatch) -> float:
    return sum(-clip(math.exp(p - q), 0.8, 3.0) * a * p for _, seq in rows(batch) for p, q, a in seq)


def vespo(batch: TokenBatch) -> float:
    total = 0.0
    for _, seq in rows(batch):
        log_w = clip(sum(p - q for p, q, _ in seq), -20, 20)
        for p, _, a in seq:
            k, lam = (2, 3) if a >= 0 else (3, 2)
            total -= math.exp(lam + k * log_w - lam * math.exp(log_w)) * a * p
    return total


def topr(batch: TokenBatch, level: str) -> float:
    total = 0.0
    for label, seq in rows(batch):
        whole = sum(p - q for p, q, _ in seq)
        for p, q, _ in seq:
            ratio = math.exp(whole if level == "sequence" else p - q)
            total += -p if label == 1 else min(ratio, 1.0) * p
    return total


CASES = {
    "grpo": (partial(pg.grpo_loss, clip_low=0.2, clip_high=0.28), grpo, "token"),
    "dr_grpo": (partial(pg.dr_grpo_loss, clip_low=0.2, clip_high=0.28), grpo, "max_len"),
    "sapo": (partial(pg.sapo_loss, tau_positive=1.0, tau_negative=1.05), sapo, "sequence"),
    "gspo": (partial(pg.gspo_loss, clip_low=3e-4, clip_high=4e-4), gspo, "sequence"),
    "cispo": (partial(pg.cispo_loss, clip_low=0.2, clip_high=2.0), cispo, "token"),
    "vespo": (
        partial(pg.vespo_loss, k_positive=2, lambda_positive=3, k_negative=3, lambda_negative=2), vespo, "token"),
    "topr": (partial(pg.topr_loss, ratio_level="sequence"), partial(topr, level="sequence"), "token"),
    "topr-token": (partial(pg.topr_loss, ratio_level="token"), partial(topr, level="token"), "token"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_is_that_of_the_formula(name: str) -> None:
    loss, reference, reduction = CASES[name]
    output = loss(example())
    assert output.reduction == reduction
    assert output.sum.item() == pytest.approx(reference(example()), rel=1e-9)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "sapo"])
def test_gradient_matches_finite_differences(name: str) -> None:
    loss, batch = CASES[name][0], example()
    torch.autograd.gradcheck(lambda x: loss(replace(batch, logprobs=x)).sum, (batch.logprobs,))


def test_at_the_old_policy_every_loss_follows_the_advantage() -> None:
    """All gradients are then -A a token (VESPO's phi is 1 there, TOPR's weights are the outcomes)."""
    batch = replace(example(), old_logprobs=example().logprobs.detach())
    batch = replace(batch, advantages=(2 * batch.labels - 1)[:, None].expand_as(batch.logprobs))
    expected = torch.where(batch.mask, -batch.advantages, 0.0)
    lengths = batch.mask.sum(-1, keepdim=True)
    for name, (loss, _, reduction) in CASES.items():
        found = gradient(loss, batch) * (lengths if reduction == "sequence" else 1)
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_sapo_gate_is_a_soft_clip() -> None:
    batch = example()
    ratio = (batch.logprobs - batch.old_logprobs).exp().detach()
    tau = torch.where(batch.advantages > 0, 1.0, 1.05)
    slope = 1 / torch.cosh(tau * (ratio - 1) / 2) ** 2
    expected = -slope * ratio * batch.advantages / batch.mask.sum(-1, keepdim=True)
    torch.testing.assert_close(gradient(CASES["sapo"][0], batch), torch.where(batch.mask, expected, 0.0))


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    batch = replace(example(), old_logprobs=example().logprobs.detach() - 3)
    assert (gradient(CASES["cispo"][0], batch)[batch.mask] != 0).all()
    positive = batch.mask & (batch.advantages > 0)
    assert (gradient(CASES["grpo"][0], batch)[positive] == 0).all()
    assert CASES["cispo"][0](batch).metrics["clip_fraction"] == (batch.mask.sum(), batch.mask.sum())
    assert CASES["cispo"][0](replace(batch, old_logprobs=batch.logprobs)).metrics["clip_fraction"][0] == 0


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_topr_weighs_wrong_tokens_by_a_ratio_without_gradient(level: str) -> None:
    batch = example()
    logs = (batch.logprobs - batch.old_logprobs).detach()
    ratio = (logs.sum(-1, keepdim=True).expand_as(logs) if level == "sequence" else logs).exp()
    expected = torch.where((batch.labels == 1)[:, None], -1.0, ratio.clamp(max=1.0))
    assert (ratio[batch.labels == 0] < 1).any(), "it has to taper something"
    torch.testing.assert_close(gradient(partial(pg.topr_loss, ratio_level=level), batch), expected * batch.mask)


def test_dual_clip_bounds_wrong_tokens_that_became_likely() -> None:
    ratio, advantages = torch.tensor([10.0, 10.0, 2.0]), torch.tensor([-1.0, 1.0, -1.0])
    losses, clipped = pg.clipped_surrogate(ratio, advantages, clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    torch.testing.assert_close(losses, torch.tensor([3.0, -1.28, 2.0]))
    assert clipped.tolist() == [1.0, 1.0, 0.0]


def test_the_documents_example_is_the_formula(tmp_path) -> None:
    (text,) = re.findall(
        r"```python\n(import torch\n.*?)```", (Path(__file__).parents[1] / "docs" / "method.md").read_text(), re.S
    )
    (tmp_path / "one_loss.py").write_text(text)
    names = runpy.run_path(str(tmp_path / "one_loss.py"))
    ratio, spread = math.exp(0.1), math.sqrt(1 / 3) + 1e-6
    right, wrong = 2 / 3 * ratio / spread, -1 / 3 * ratio / spread
    assert names["loss"].item() == pytest.approx(-(3 * right + 3 * wrong) / 6)
    assert names["logprobs"].grad[0, 0].item() == pytest.approx(-right / 6)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_topr_learns_nothing_from_what_could_not_be_graded(level: str) -> None:
    batch = replace(example(), labels=torch.tensor([1.0, 0.0, math.nan, 0.0], dtype=torch.float64))
    loss = partial(pg.topr_loss, ratio_level=level)
    assert (gradient(loss, batch)[2] == 0).all()
    torch.testing.assert_close(loss(batch).sum, loss(some_rows(batch, [0, 1, 3])).sum)


@pytest.mark.parametrize("other", [0.0, math.nan])
def test_sft_imitates_right_responses_alone(other: float) -> None:
    batch = replace(example(), labels=torch.tensor([1.0, other, 1.0, other], dtype=torch.float64))
    output = pg.sft_loss(batch)
    assert output.reduction == "token"
    assert output.sum.item() == pytest.approx(-sum(p for label, seq in rows(batch) if label == 1 for p, _, _ in seq))
    right = some_rows(batch, [0, 2])
    torch.testing.assert_close(gradient(pg.sft_loss, right), torch.where(right.mask, -1.0, 0.0).double())
