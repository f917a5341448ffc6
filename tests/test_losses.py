from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from typing import get_args

import pytest
import torch
from torch import Tensor

from erpd_hub.config import TeacherLoss
from erpd_hub.losses import LOSSES, TokenBatch, ce_loss, clip_loss, mse_loss, sft_loss, summarise

CLIP = partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.0, entropy_weight=0.0)
ALL = [
    partial(ce_loss, beta=0.7, aggregate="sum"),
    partial(ce_loss, beta=0.7, aggregate="mean"),
    partial(mse_loss, negative_weight=1.5),
    partial(ce_loss, beta=0.7, aggregate="sum", kl_weight=2.0),
    CLIP,
    partial(CLIP, dual_clip=1.1),
    partial(CLIP, reduction="sequence", kl_weight=0.3, kl_estimator="k1"),
    partial(CLIP, reduction="max_len", kl_weight=0.3, kl_estimator="k2"),
    partial(CLIP, kl_weight=0.3, kl_estimator="exact"),
    sft_loss,
    partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.1, entropy_weight=0.5),
]


def example(seed: int = 0) -> TokenBatch:
    """Four sequences of 5, 3, 4 and 1 tokens in fp64, two right and two wrong."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5)[None] < torch.tensor([5, 3, 4, 1])[:, None]

    def draw(scale: float) -> Tensor:
        return torch.where(mask, scale * torch.randn(4, 5, generator=generator, dtype=torch.float64), 0.0)

    logprobs = -draw(1.0).abs()
    return TokenBatch(
        logprobs=logprobs.requires_grad_(),
        mask=mask,
        labels=torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64),
        old_logprobs=(logprobs.detach() + draw(0.4)),
        reference_logprobs=(logprobs.detach() + draw(0.4)),
        advantages=draw(1.0),
        entropy=draw(1.0).abs(),
        kl_to_old=draw(0.1).abs(),
    )


def some_rows(batch: TokenBatch, rows: list[int]) -> TokenBatch:
    return TokenBatch(**{name: None if value is None else value[rows] for name, value in vars(batch).items()})


def gradient(loss, batch: TokenBatch) -> Tensor:
    return torch.autograd.grad(loss(batch).sum, batch.logprobs)[0]


def test_registry_takes_the_parameters_of_the_configs() -> None:
    configs = {get_args(c.model_fields["type"].annotation)[0]: c for c in get_args(get_args(TeacherLoss)[0])}
    assert configs.keys() == LOSSES.keys() | {"custom"}
    for name, loss in LOSSES.items():
        keywords = {p.name for p in signature(loss).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
        assert keywords == configs[name](type=name).parameters.keys()


@pytest.mark.parametrize("loss", ALL)
def test_gradients_match_finite_differences(loss) -> None:
    batch = example()
    torch.autograd.gradcheck(lambda x: loss(replace(batch, logprobs=x)).sum, (batch.logprobs,))


@pytest.mark.parametrize("loss", ALL)
def test_padding_changes_nothing(loss) -> None:
    batch = example()
    padding = torch.nn.functional.pad
    wide = replace(
        batch,
        **{
            name: padding(getattr(batch, name), (0, 3), value=0)
            for name in ("logprobs", "mask", "old_logprobs", "reference_logprobs", "advantages", "entropy", "kl_to_old")
        },
    )
    torch.testing.assert_close(loss(wide).sum, loss(batch).sum)
    assert summarise(loss(wide).metrics) == pytest.approx(summarise(loss(batch).metrics))


@pytest.mark.parametrize("loss", ALL)
def test_parts_of_a_batch_add_up(loss) -> None:
    batch = example()
    parts = [some_rows(batch, rows) for rows in ([0, 3], [1], [2])]
    torch.testing.assert_close(sum(loss(part).sum for part in parts), loss(batch).sum)
    for name, (total, count) in loss(batch).metrics.items():
        assert sum(loss(part).metrics[name][1] for part in parts) == count
        assert sum(loss(part).metrics[name][0] for part in parts) == pytest.approx(total)


def test_ce_gradient_is_beta_times_sigma_minus_label() -> None:
    batch, beta = example(), 0.7
    rewards = beta * torch.where(batch.mask, batch.logprobs - batch.reference_logprobs, 0.0).sum(-1)
    expected = (beta * (rewards.sigmoid() - batch.labels))[:, None] * batch.mask
    torch.testing.assert_close(gradient(ALL[0], batch), expected)


def test_ce_kl_penalty_is_the_sequence_mean_of_k3() -> None:
    batch = example()
    plain, penalised = (ce_loss(batch, beta=0.7, aggregate="sum", kl_weight=weight).sum for weight in (0.0, 2.0))
    log_ratio = batch.reference_logprobs - batch.logprobs
    k3 = torch.where(batch.mask, log_ratio.exp() - 1 - log_ratio, 0.0).sum(-1) / batch.mask.sum(-1)
    torch.testing.assert_close(penalised - plain, 2.0 * k3.sum())


def test_ce_mean_is_ce_sum_with_beta_over_length() -> None:
    batch = example()
    row = some_rows(batch, [0])
    a = ce_loss(row, beta=0.5, aggregate="mean").sum
    torch.testing.assert_close(a, ce_loss(row, beta=0.5 / 5, aggregate="sum").sum)


def test_ce_does_not_saturate_into_infinity() -> None:
    batch = replace(example(), reference_logprobs=torch.full((4, 5), -500.0, dtype=torch.float64))
    assert torch.isfinite(ce_loss(batch, beta=5.0, aggregate="sum").sum)


def test_mse_gradient_is_2p_times_p_minus_outcome() -> None:
    batch = example()
    p, outcome = batch.logprobs.exp(), batch.labels[:, None]
    weight = torch.where(outcome == 1, 1.0, 1.5)
    torch.testing.assert_close(gradient(ALL[2], batch), 2 * weight * (p - outcome) * p * batch.mask)


def test_mse_explained_variance_is_exact_over_parts() -> None:
    batch = example()
    p, outcome = batch.logprobs.exp()[batch.mask], batch.labels[:, None].expand(4, 5)[batch.mask]
    expected = 1 - (outcome - p).var(correction=0) / outcome.var(correction=0)
    summary = summarise(mse_loss(batch, negative_weight=1.0).metrics)
    assert summary["explained_variance"] == pytest.approx(expected.item())
    assert "residual" not in summary


def test_clip_gradient_at_the_old_policy_is_minus_the_advantage() -> None:
    batch = example()
    same = replace(batch, old_logprobs=batch.logprobs.detach())
    torch.testing.assert_close(gradient(CLIP, same), -batch.advantages)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [(0.3, 1, False), (0.3, -1, True), (-0.3, -1, False), (-0.3, 1, True), (0.24, 1, True)],
)
def test_clip_stops_only_what_goes_further_away(log_ratio: float, advantage: float, moves: bool) -> None:
    logprobs = torch.tensor([[-1.0]], requires_grad=True)
    batch = TokenBatch(
        logprobs, torch.tensor([[True]]), torch.ones(1), logprobs.detach() - log_ratio,
        advantages=torch.tensor([[float(advantage)]]),
    )  # fmt: skip
    assert bool(gradient(CLIP, batch).any()) == moves
    assert CLIP(batch).metrics["clip_fraction"] == (float(not moves), 1)


def test_reductions_divide_by_tokens_sequences_or_the_longest() -> None:
    batch = example()
    by_hand = {"token": 13.0, "sequence": 4.0, "max_len": 20.0}
    rho = (batch.logprobs - batch.old_logprobs).exp()
    tokens = torch.where(batch.mask, -torch.minimum(rho * batch.advantages, rho.clamp(0.8, 1.28) * batch.advantages), 0)
    expected = {
        "token": tokens.sum() / 13,
        "sequence": (tokens.sum(-1) / batch.mask.sum(-1)).mean(),
        "max_len": tokens.sum() / 20,
    }
    for reduction, divisor in by_hand.items():
        output = CLIP(batch, reduction=reduction)
        assert output.reduction == reduction
        torch.testing.assert_close(output.sum / divisor, expected[reduction])


@pytest.mark.parametrize(("estimator", "slope"), [("k1", lambda d: 1 + 0 * d), ("k2", lambda d: d),
                                                  ("k3", lambda d: 1 - (-d).exp())])  # fmt: skip
def test_kl_penalty_gradients(estimator: str, slope) -> None:
    """d KL / d log pi of k1, k2, k3 at log-ratio d is 1, d and 1 - e^-d."""
    batch = example()
    difference = (batch.logprobs - batch.old_logprobs).detach()
    added = gradient(partial(CLIP, kl_weight=0.5, kl_estimator=estimator), batch) - gradient(CLIP, batch)
    torch.testing.assert_close(added, torch.where(batch.mask, 0.5 * slope(difference), 0.0))


def test_fixed_signal_with_a_kl_weight_goes_past_the_teacher() -> None:
    """max E_pi[log pi_E / pi_old] - c KL(pi || pi_old) is at pi_old (pi_E / pi_old)^(1/c): stationary there."""
    generator = torch.Generator().manual_seed(2)
    old, teacher = (torch.log_softmax(torch.randn(6, generator=generator, dtype=torch.float64), -1) for _ in range(2))
    for weight in (0.5, 1.0, 2.0):
        logits = (old + (teacher - old) / weight).requires_grad_()
        log_p = torch.log_softmax(logits, -1)
        objective = (log_p.exp() * (teacher - old)).sum() - weight * (log_p.exp() * (log_p - old)).sum()
        torch.testing.assert_close(torch.autograd.grad(objective, logits)[0], torch.zeros(6, dtype=torch.float64))


def test_evolving_signal_gives_the_gradient_of_the_reverse_kl() -> None:
    """E_pi[(log pi_E - log pi) grad log pi] = -grad KL(pi || pi_E), exact on a categorical."""
    logits = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    teacher = torch.log_softmax(torch.arange(6, dtype=torch.float64) / 3, -1)
    log_p = torch.log_softmax(logits, -1)
    kl = (log_p.exp() * (log_p - teacher)).sum()
    signal = (teacher - log_p).detach()
    surrogate = (log_p.detach().exp() * torch.exp(log_p - log_p.detach()) * signal).sum()
    gradient_of_surrogate = torch.autograd.grad(surrogate, logits, retain_graph=True)[0]
    torch.testing.assert_close(gradient_of_surrogate, -torch.autograd.grad(kl, logits)[0])


def test_metrics_leave_out_ungraded_samples_and_empty_counts() -> None:
    batch = replace(example(), labels=torch.tensor([1.0, float("nan"), 1.0, float("nan")], dtype=torch.float64))
    summary = summarise(CLIP(batch).metrics)
    assert "logprob_negative" not in summary and "probability_negative" not in summary
    assert summary["logprob_positive"] == pytest.approx(batch.logprobs[[0, 2]][batch.mask[[0, 2]]].mean().item())
