"""Advantages against plain loops and the definitions."""

import math

import pytest
import torch

from erpd_hub.advantages import gae, group_advantages, length_adaptive_lambda


def test_group_advantages_centre_each_prompt_and_skip_the_ungraded() -> None:
    labels = torch.tensor([1.0, 0.0, 1.0, 1.0, math.nan, 0.0])
    group = torch.tensor([0, 0, 1, 1, 1, 2])
    assert group_advantages(labels, group).tolist() == [0.5, -0.5, 0, 0, 0, 0]


def test_scaled_advantages_are_those_of_grpo() -> None:
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, math.nan], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    first = labels[:4]
    expected = (first - first.mean()) / (first.std() + 1e-6)
    found = group_advantages(labels, group, scale=True)
    torch.testing.assert_close(found[:4], expected)
    assert found[4:].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("length", [1, 2, 7, 300, 1000])
@pytest.mark.parametrize("lambda_", [0.0, 0.8, 0.999, 1.0])
def test_gae_is_its_recursion(length: int, lambda_: float) -> None:
    values = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected, running = [0.0] * length, 0.0
    for t in reversed(range(length)):
        after = 1.0 if t == length - 1 else values[t + 1].item()
        running = after - values[t].item() + lambda_ * running
        expected[t] = running
    torch.testing.assert_close(gae(values, 1.0, lambda_=lambda_), torch.tensor(expected, dtype=torch.float64))


def test_gae_with_lambda_one_is_outcome_minus_value() -> None:
    values = torch.rand(600, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gae(values, 0.0, lambda_=1.0), -values)


def test_nothing_has_no_advantages() -> None:
    nothing = torch.empty(0)
    assert gae(nothing, 1.0, lambda_=0.9).shape == (0,)
    assert all(group_advantages(nothing, nothing.long(), scale=scale).shape == (0,) for scale in (False, True))


def test_lambda_grows_with_the_length() -> None:
    assert length_adaptive_lambda(0) == 0.0
    assert length_adaptive_lambda(100) == pytest.approx(0.8)
    assert length_adaptive_lambda(20_000) == pytest.approx(0.999)
    assert length_adaptive_lambda(10) == 0.0
