import numpy as np
import pytest
import torch

from erpd_hub.errors import ArtifactError
from erpd_hub.signals import describe_signal, group_advantages, raw_signal, whiten


def test_raw_signal_drops_a_missing_side() -> None:
    num, den = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])
    assert raw_signal(num, den).tolist() == [2, -1]
    assert raw_signal(num, None).tolist() == [-1, -2]
    assert raw_signal(None, den).tolist() == [3, 1]


def test_whitened_has_mean_zero_and_unbiased_variance_one_whatever_the_padding() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.3 - 0.1
    whitened = whiten(values, torch.ones(1000, dtype=torch.bool), shift_mean=True)
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened.var().item() == pytest.approx(1, abs=1e-5)
    padded = torch.cat([values, torch.full((500,), 7.0)])
    again = whiten(padded, torch.arange(1500) < 1000, shift_mean=True)
    torch.testing.assert_close(again[:1000], whitened)
    assert not again[1000:].any()


def test_scaling_without_shift_keeps_every_sign() -> None:
    values = torch.tensor([-0.5, 0.0, 0.01, 2.0])
    scaled = whiten(values, torch.ones(4, dtype=torch.bool), shift_mean=False)
    assert torch.equal(scaled.sign(), values.sign())
    torch.testing.assert_close(scaled, values / values.std())


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5])
@pytest.mark.parametrize("shift_mean", [True, False])
def test_equal_checkpoints_give_no_signal(noise: float, shift_mean: bool) -> None:
    values = noise * torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert not whiten(values, torch.ones(100, dtype=torch.bool), shift_mean=shift_mean).any()


def test_group_advantages_centre_each_prompt_and_skip_the_ungraded() -> None:
    labels = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, float("nan")])
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    assert group_advantages(labels, group).tolist() == [0.5, -0.5, 0, 0, 0, 0]


def test_description_tells_labels_and_outliers_apart() -> None:
    values = np.array([0.0] * 998 + [1.0, -3.0], np.float32)
    labels = np.array([1.0] * 999 + [0.0])
    summary = describe_signal([(values[:500], labels[:500]), (values[500:], labels[500:])])
    assert summary["mean_positive"] == pytest.approx(1 / 999)
    assert summary["mean_negative"] == -3
    assert summary["share_positive"] == pytest.approx(1 / 1000)
    assert summary["share_beyond_10_std"] == pytest.approx(1 / 500)
    assert (summary["quantile_0"], summary["quantile_0.5"], summary["quantile_1"]) == (-3, 0, 1)


def test_description_is_that_of_the_sorted_values_however_they_are_cut() -> None:
    values = np.random.default_rng(0).standard_cauchy(10_007).astype(np.float32)
    values[::7] = 0
    labels = np.where(np.arange(len(values)) % 3 == 0, np.nan, np.arange(len(values)) % 2)
    whole = describe_signal([(values, labels)])
    cut = describe_signal(list(zip(np.array_split(values, 9), np.array_split(labels, 9), strict=True)))
    assert whole == pytest.approx(cut, rel=1e-12)
    ordered = np.sort(values)
    for quantile in (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1):
        assert cut[f"quantile_{quantile:g}"] == ordered[round(quantile * (len(values) - 1))]
    exact = values.astype(np.float64)
    assert cut["std"] == pytest.approx(exact.std(ddof=1), rel=1e-12)
    assert cut["mean_positive"] == pytest.approx(exact[labels == 1].mean(), rel=1e-9)
    assert cut["share_beyond_5_std"] == (np.abs(exact - exact.mean()) > 5 * exact.std(ddof=1)).mean()


def test_a_signal_without_tokens_is_refused() -> None:
    with pytest.raises(ArtifactError, match="expected response tokens"):
        describe_signal([])
