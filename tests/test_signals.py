import pytest
import torch

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
    values = torch.cat([torch.zeros(998), torch.tensor([1.0, -3.0])])
    labels = torch.cat([torch.ones(999), torch.zeros(1)])
    summary = describe_signal(values, labels)
    assert summary["mean_positive"] == pytest.approx(1 / 999)
    assert summary["mean_negative"] == -3
    assert summary["share_positive"] == pytest.approx(1 / 1000)
    assert summary["share_beyond_10_std"] == pytest.approx(1 / 500)
    assert (summary["quantile_0"], summary["quantile_0.5"], summary["quantile_1"]) == (-3, 0, 1)
