"""Gaffke's interval against distributions in closed form, random weights, and simulated benchmarks."""

import random
from collections import Counter
from math import comb

import pytest
from bounded_reference import bounded_contains

from erpd_hub.evaluation.bounded import bounded_interval, weighted_mean_cdf


def _binomial_tail(least: int, n: int, p: float) -> float:
    return sum(comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(least, n + 1))


@pytest.mark.parametrize("n", [1, 2, 7, 30, 400])
@pytest.mark.parametrize("at", [0.001, 0.2, 0.5, 0.97])
def test_the_weight_of_some_numbers_among_others_is_beta(n, at):
    ones = n // 2 + 1  # the sum of m of n + 1 weights is Beta(m, n + 1 - m)
    found = weighted_mean_cdf({0.0: n + 1 - ones, 1.0: ones}, at)
    assert found == pytest.approx(_binomial_tail(ones, n, at), abs=1e-10)


def test_of_other_numbers_it_is_what_random_weights_give():
    rng = random.Random(5)
    values = [0.0, 0.25, 0.25, 0.5, 0.75, 1.0]
    draws = [[rng.expovariate(1) for _ in values] for _ in range(20_000)]
    means = [sum(w * v for w, v in zip(row, values, strict=True)) / sum(row) for row in draws]
    for at in (0.3, 0.45, 0.6):
        share = sum(mean <= at for mean in means) / len(means)
        assert weighted_mean_cdf(Counter(values), at) == pytest.approx(share, abs=0.012)


def test_beyond_all_numbers_the_chance_is_0_or_1():
    assert weighted_mean_cdf({0.5: 3}, 0.5) == 1
    assert weighted_mean_cdf({0.5: 3, 0.6: 2}, 0.7) == pytest.approx(1, abs=1e-9)
    assert weighted_mean_cdf({0.5: 3, 0.6: 2}, 0.4) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("right", "n"), [(0, 30), (30, 30), (1, 30), (3, 15), (50, 100), (0, 1)])
def test_of_zeros_and_ones_it_is_clopper_and_pearson(right, n):
    low, high = bounded_interval([1.0] * right + [0.0] * (n - right))
    assert low == 0 if right == 0 else _binomial_tail(right, n, low) == pytest.approx(0.025, abs=1e-6)
    assert high == 1 if right == n else _binomial_tail(right + 1, n, high) == pytest.approx(0.975, abs=1e-6)


def test_all_solved_or_none_has_a_width():
    assert bounded_interval([0.0] * 30) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30), abs=1e-8))
    assert bounded_interval([1.0] * 30) == (pytest.approx(0.025 ** (1 / 30), abs=1e-8), 1.0)
    low, high = bounded_interval([0.5] * 30)
    assert 0.43 < low < 0.45
    assert 0.55 < high < 0.57


def test_it_turns_and_stretches_with_the_numbers():
    values = [0.0, 0.1, 0.1, 0.7, 1.0]
    low, high = bounded_interval(values)
    assert bounded_interval([1 - v for v in values]) == (
        pytest.approx(1 - high, abs=1e-8),
        pytest.approx(1 - low, abs=1e-8),
    )
    stretched = bounded_interval([4 * v - 2 for v in values], low=-2, high=2)
    assert stretched == (pytest.approx(4 * low - 2, abs=1e-7), pytest.approx(4 * high - 2, abs=1e-7))
    wider = bounded_interval(values, level=0.99)
    assert wider[0] < low < high < wider[1]


def test_containing_is_lying_between_the_ends():
    rng = random.Random(2)
    for _ in range(10):
        values = [rng.randint(0, 8) / 8 for _ in range(rng.randint(1, 40))]
        low, high = bounded_interval(values)
        for mean in (low - 1e-6, low + 1e-6, high - 1e-6, high + 1e-6):
            if 0 <= mean <= 1:
                assert bounded_contains(values, mean) is (low <= mean <= high)


def _values(rng: random.Random, n: int, k: int, average: float, concentration: float) -> list[float]:
    chances = [rng.betavariate(average * concentration, (1 - average) * concentration) for _ in range(n)]
    return [sum(rng.random() < chance for _ in range(k)) / k for chance in chances]


@pytest.mark.parametrize("n", [15, 30])
@pytest.mark.parametrize(("average", "concentration"), [(0.02, 0.3), (0.1, 1.0), (0.5, 0.1), (0.5, 3.0), (0.95, 0.3)])
def test_its_coverage_is_that_of_its_level(n, average, concentration):
    """300 simulated benchmarks of few problems, K = 4: at 95 %, three standard errors of 300 trials are 3.8 points."""
    rng = random.Random(f"{n} {average} {concentration}")
    held = sum(bounded_contains(_values(rng, n, 4, average, concentration), average) for _ in range(300))
    assert held / 300 >= 0.95 - 0.038
