import math
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from typing import get_args

import pytest
import torch
from torch import Tensor

from erpd_hub.config import TeacherLoss
from erpd_hub.estimators import kl_k3
from erpd_hub.losses import LOSSES, TokenBatch, ce_loss, clip_loss, mse_loss, summarise
from erpd_hub.signals import Evolving, Shaping, Whitening

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
    partial(CLIP, kl_weight=0.3, kl_correction="ratio"),
    partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.1, entropy_weight=0.5),
]
CONFIGS = {get_args(c.model_fields["type"].annotation)[0]: c for c in get_args(get_args(TeacherLoss)[0])}
EACH = [*ALL, *(partial(loss, **CONFIGS[name](type=name).parameters) for name, loss in LOSSES.items())]
"""The above, and every teacher loss as its config has it."""


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
    assert CONFIGS.keys() == LOSSES.keys() | {"custom"}
    for name, loss in LOSSES.items():
        keywords = {p.name for p in signature(loss).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
        assert keywords == CONFIGS[name](type=name).parameters.keys()


@pytest.mark.parametrize("loss", ALL)
def test_gradients_match_finite_differences(loss) -> None:
    batch = example()
    torch.autograd.gradcheck(lambda x: loss(replace(batch, logprobs=x)).sum, (batch.logprobs,))


@pytest.mark.parametrize("loss", EACH)
def test_padding_and_what_stands_in_it_change_nothing(loss) -> None:
    batch = example()
    wide = {"mask": torch.nn.functional.pad(batch.mask, (0, 3))}
    for name in ("logprobs", "old_logprobs", "reference_logprobs", "advantages", "entropy", "kl_to_old"):
        padded = torch.nn.functional.pad(getattr(batch, name), (0, 3))
        wide[name] = torch.where(wide["mask"], padded, torch.full_like(padded, -0.37))
    garbled = replace(batch, **wide)
    torch.testing.assert_close(loss(garbled).sum, loss(batch).sum)
    assert summarise(loss(garbled).metrics) == pytest.approx(summarise(loss(batch).metrics))
    moved = gradient(loss, garbled)
    torch.testing.assert_close(moved, torch.nn.functional.pad(gradient(loss, batch), (0, 3)))


@pytest.mark.parametrize("loss", EACH)
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


COUNTS = torch.tensor([7, 5, 4, 3, 1])
"""A state's tokens, drawn from the old policy, each as often as it is likely: means over them are exact."""


def student_at_the_end(advance) -> Tensor:
    """(V,) log-probs at which gradient steps on `advance(log-probs, tokens, batch of them)` come to rest, from old."""
    tokens = torch.arange(len(COUNTS)).repeat_interleave(COUNTS)
    old = (COUNTS / COUNTS.sum()).double().log()
    logits = old.clone().requires_grad_()
    everywhere = torch.ones(len(tokens), 1, dtype=torch.bool)
    for _ in range(80):  # after 60 they are within 1e-11 nats of rest
        logprobs = torch.log_softmax(logits, -1)
        batch = TokenBatch(
            logprobs[tokens][:, None], everywhere, torch.ones(len(tokens)).double(), old_logprobs=old[tokens][:, None],
            kl_to_old=(logprobs.exp() * (logprobs - old)).sum().expand(len(tokens), 1),
        )  # fmt: skip
        (step,) = torch.autograd.grad(advance(tokens, batch).sum / len(tokens), logits)
        with torch.no_grad():
            logits -= 2.0 * step
    return torch.log_softmax(logits, -1).detach()


def policies() -> tuple[Tensor, Tensor]:
    """(V,) log-probs of the old policy and of the teacher."""
    old = (COUNTS / COUNTS.sum()).double().log()
    return old, torch.log_softmax(old + torch.tensor([0.5, -0.4, 0.3, -0.2, 0.6]).double(), -1)


def kl(p: Tensor, q: Tensor) -> float:
    return float((p.exp() * (p - q)).sum())


UNCLIPPED = partial(clip_loss, clip_low=0.999, clip_high=1e6)


@pytest.mark.parametrize(("estimator", "correction"), [("exact", "none"), ("k1", "ratio"), ("k3", "ratio")])
def test_fixed_signal_with_a_kl_weight_ends_at_old_times_a_power_of_teacher_over_old(estimator, correction) -> None:
    """max E_pi[log pi_E / pi_old] - c KL(pi || pi_old) is at pi_old (pi_E / pi_old)^(1/c)."""
    old, teacher = policies()
    for weight in (1.0, 2.0):

        def objective(tokens: Tensor, batch: TokenBatch, weight: float = weight):
            given = replace(batch, advantages=(teacher - old)[tokens][:, None])
            return UNCLIPPED(given, kl_weight=weight, kl_estimator=estimator, kl_correction=correction)

        assert kl(student_at_the_end(objective), torch.log_softmax(old + (teacher - old) / weight, -1)) < 1e-6


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_an_estimator_without_its_correction_ends_elsewhere(estimator: str) -> None:
    old, teacher = policies()

    def objective(tokens: Tensor, batch: TokenBatch):
        given = replace(batch, advantages=(teacher - old)[tokens][:, None])
        return UNCLIPPED(given, kl_weight=1.0, kl_estimator=estimator)

    assert kl(student_at_the_end(objective), teacher) > 1e-3


@pytest.mark.parametrize("shift_mean", [True, False])
def test_evolving_signal_ends_at_the_teacher(shift_mean: bool) -> None:
    """E_pi[(log pi_E - log pi) grad log pi] = -grad KL(pi || pi_E), whatever the whitening of the start."""
    old, teacher = policies()
    shaping = Shaping(shift_mean=shift_mean)
    tokens = torch.arange(len(COUNTS)).repeat_interleave(COUNTS)
    start = (teacher - old)[tokens]
    everything = torch.ones(len(tokens), dtype=torch.bool)
    evolving = Evolving(shaping, Whitening.fit(start, everything, shift_mean=shift_mean))

    def objective(tokens: Tensor, batch: TokenBatch):
        return UNCLIPPED(replace(batch, numerator_logprobs=teacher[tokens][:, None]), evolving=evolving)

    assert kl(student_at_the_end(objective), teacher) < 1e-6


def test_k3_is_bounded_at_twenty_nats() -> None:
    """A policy that took nearly all of a token's probability away counts as 19 nats, and is not pulled at."""
    now = torch.tensor([-1.0, -20.5, -200.0], dtype=torch.float64, requires_grad=True)
    found = kl_k3(torch.zeros(3, dtype=torch.float64), now)
    found.sum().backward()
    assert found.tolist() == pytest.approx([math.exp(-1.0), 19.0, 19.0], abs=1e-8)
    assert now.grad is not None and now.grad.tolist() == pytest.approx([math.exp(-1.0) - 1, 0.0, 0.0])


def test_metrics_leave_out_ungraded_samples_and_empty_counts() -> None:
    batch = replace(example(), labels=torch.tensor([1.0, float("nan"), 1.0, float("nan")], dtype=torch.float64))
    summary = summarise(CLIP(batch).metrics)
    assert "logprob_negative" not in summary and "probability_negative" not in summary
    assert summary["logprob_positive"] == pytest.approx(batch.logprobs[[0, 2]][batch.mask[[0, 2]]].mean().item())
    assert all(math.isfinite(value) for value in summary.values()), "nothing of the ungraded, whose label is no number"
