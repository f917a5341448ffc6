"""From a raw signal to advantages: sign masks, whitening and their order, fixed and evolving."""

import math

import pytest
import torch

from erpd_hub.losses import TokenBatch
from erpd_hub.signals import Evolving, Shaping, Whitening, keep_signs
from erpd_hub.training.advantages import ShapedSteps, fit_shaping, shaped
from erpd_hub.training.batches import StepBatch, Trajectory

VALUES = torch.tensor([0.5, -1.0, 2.0, -0.25, 0.75, -3.0], dtype=torch.float64)
OUTCOMES = torch.tensor([1.0, 1.0, 0.0, 0.0, math.nan, math.nan], dtype=torch.float64)


def fit(shaping: Shaping, values: torch.Tensor, outcomes: torch.Tensor) -> Whitening:
    """As of rollouts of one token each."""
    one = torch.ones(1, dtype=torch.long)
    pairs = zip(values.split(1), outcomes.tolist(), strict=True)
    return fit_shaping([Trajectory("p", 0, one, one, y, advantages=r) for r, y in pairs], shaping).whitening


def by_hand(values: list[float], shift: bool = True) -> torch.Tensor:
    """verl's masked_whiten: minus the mean, times rsqrt of the unbiased variance + 1e-8."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    shifted = [value - mean if shift else value for value in values]
    return torch.tensor([value / math.sqrt(variance + 1e-8) for value in shifted], dtype=torch.float64)


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("all", "all", [0.5, -1.0, 2.0, -0.25, 0.75, -3.0]),
        ("negative", "all", [0.0, -1.0, 2.0, -0.25, 0.75, -3.0]),
        ("positive", "all", [0.5, 0.0, 2.0, -0.25, 0.75, -3.0]),
        ("all", "positive", [0.5, -1.0, 2.0, 0.0, 0.75, -3.0]),
        ("negative", "negative", [0.0, -1.0, 0.0, -0.25, 0.75, -3.0]),
    ],
)
def test_masks_zero_one_sign_by_label_and_leave_the_ungraded(right, wrong, expected) -> None:
    assert keep_signs(VALUES, OUTCOMES, right=right, wrong=wrong).tolist() == expected


@pytest.mark.parametrize("shift_mean", [True, False])
def test_mask_first_counts_removed_tokens_as_zeros(shift_mean: bool) -> None:
    shaping = Shaping(right="negative", shift_mean=shift_mean)
    found = shaping.apply(VALUES, OUTCOMES, fit(shaping, VALUES, OUTCOMES))
    torch.testing.assert_close(found, by_hand([0.0, -1.0, 2.0, -0.25, 0.75, -3.0], shift_mean))


def test_whitened_first_the_others_stay_as_without_a_mask() -> None:
    plain, masked = (Shaping(right=right, mask_first=False) for right in ("all", "negative"))
    expected = plain.apply(VALUES, OUTCOMES, fit(plain, VALUES, OUTCOMES))
    found = masked.apply(VALUES, OUTCOMES, fit(masked, VALUES, OUTCOMES))
    assert found[0] == 0
    torch.testing.assert_close(found[1:], expected[1:])
    torch.testing.assert_close(expected, by_hand(VALUES.tolist()))


def test_a_signal_of_zero_is_not_taken_for_one_that_the_mask_removed() -> None:
    values = torch.tensor([0.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    outcomes = torch.ones(4, dtype=torch.float64)
    masked = Shaping(right="negative", mask_first=False)
    found = masked.apply(values, outcomes, fit(masked, values, outcomes))
    expected = by_hand(values.tolist())
    assert found.tolist() == pytest.approx([*expected[:2].tolist(), 0.0, 0.0])
    row = Trajectory("p", 0, torch.tensor([1]), torch.tensor([2, 3, 4, 5]), 1.0, advantages=values)
    assert fit_shaping([row], masked).share_removed == 0.5


def test_no_whitening_leaves_the_raw_signal() -> None:
    shaping = Shaping(whiten=False)
    assert fit(shaping, VALUES, OUTCOMES) == Whitening()
    torch.testing.assert_close(shaping.apply(VALUES, OUTCOMES, Whitening()), VALUES)


def rows() -> list[Trajectory]:
    return [
        Trajectory(str(i), 0, torch.tensor([1]), torch.tensor([2, 3]), label, advantages=VALUES[2 * i : 2 * i + 2])
        for i, label in enumerate([1.0, 0.0, 1.0])
    ]


def test_a_step_is_whitened_over_its_own_tokens() -> None:
    steps = ShapedSteps([StepBatch(1, tuple(rows()[:2])), StepBatch(2, tuple(rows()[2:]))], Shaping())
    assert len(steps) == 2
    found = torch.cat([row.advantages for step in steps for row in step.trajectories])
    torch.testing.assert_close(found, torch.cat([by_hand(VALUES[:4].tolist()), by_hand(VALUES[4:].tolist())]))


def test_a_dataset_is_whitened_over_all_of_them() -> None:
    found = torch.cat([row.advantages for row in shaped(rows(), Shaping())])
    torch.testing.assert_close(found, by_hand(VALUES.tolist()))
    masked = Shaping(right="negative")
    outcomes = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(2)
    whitening = fit(masked, VALUES, outcomes)
    fitted = fit_shaping(rows(), masked)
    assert (fitted.whitening.shift, fitted.whitening.scale) == pytest.approx((whitening.shift, whitening.scale))
    kept = torch.cat([row.advantages for row in shaped(rows(), masked)])
    torch.testing.assert_close(kept, masked.apply(VALUES, outcomes, whitening))


def test_evolving_follows_the_student_under_the_whitening_of_its_start() -> None:
    numerator = torch.tensor([[-0.1, -0.5], [-2.0, -0.3]], dtype=torch.float64)
    start = torch.tensor([[-0.6, -0.4], [-1.0, -0.9]], dtype=torch.float64)
    labels, mask = torch.tensor([1.0, 0.0]), torch.ones(2, 2, dtype=torch.bool)
    shaping = Shaping(right="positive")
    whitening = fit(shaping, (numerator - start).flatten(), labels.repeat_interleave(2))
    now = start + torch.tensor([[0.5, 0.0], [0.0, 0.2]], dtype=torch.float64)
    batch = TokenBatch(now.requires_grad_(), mask, labels, numerator_logprobs=numerator)
    found = Evolving(shaping, whitening)(batch)
    raw = torch.tensor([[0.0, 0.0], [-1.0, 0.4]], dtype=torch.float64)  # the numerator reached, and the mask
    torch.testing.assert_close(found, (raw - whitening.shift) * whitening.scale)
    assert not found.requires_grad
