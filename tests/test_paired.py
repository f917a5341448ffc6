"""Paired statistics against enumeration, hand computation and simulation."""

import random
from fractions import Fraction
from itertools import product
from math import sqrt
from statistics import stdev

import pytest

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.paired import compare, labels_by_problem, sign_flip


def _enumerated(values: list[Fraction]) -> tuple[float, float]:
    seen = sum(values)
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in product((1, -1), repeat=len(values))]
    greater = sum(total >= seen for total in sums) / len(sums)
    return greater, sum(abs(total) >= abs(seen) for total in sums) / len(sums)


@pytest.mark.parametrize("seed", range(12))
def test_the_sign_flip_test_is_that_over_all_patterns(seed):
    rng = random.Random(seed)
    values = [Fraction(rng.randint(-4, 5), rng.choice((1, 2, 4, 8))) for _ in range(rng.randint(1, 11))]
    found = sign_flip(values)
    assert found.exact
    assert (found.greater, found.two_sided) == pytest.approx(_enumerated(values), abs=1e-15)


def test_without_any_difference_nothing_is_significant():
    assert sign_flip([Fraction(0)] * 5) == (1.0, 1.0, True)
    assert sign_flip([Fraction(1)] * 10).greater == 2**-10
    assert sign_flip([Fraction(-1)] * 10).greater == 1.0


def test_many_draws_come_near_the_exact_value_and_repeat():
    rng = random.Random(3)
    values = [Fraction(rng.randint(-3, 4), 4) for _ in range(40)]
    exact, drawn = sign_flip(values), sign_flip(values, most_bits=0)
    assert (exact.exact, drawn.exact) == (True, False)
    assert drawn.greater == pytest.approx(exact.greater, abs=0.02)
    assert drawn.two_sided == pytest.approx(exact.two_sided, abs=0.02)
    assert drawn == sign_flip(values, most_bits=0)


def test_a_comparison_by_hand():
    first = {"a": [1, 1, 0, 0], "b": [1, 1, 1, 1], "c": [0, 1, None, 1], "d": [None]}
    second = {"a": [0, 0, 0, 0], "b": [1, 1, 0, 0], "c": [0, 0, 1, 1], "d": [1]}
    found = compare(first, second)
    differences = [0.5, 0.5, 2 / 3 - 0.5]
    assert found.first == pytest.approx((0.5 + 1 + 2 / 3) / 3)
    assert found.second == pytest.approx(1 / 3)
    assert found.difference == pytest.approx(sum(differences) / 3)
    assert found.stderr == pytest.approx(stdev(differences) / sqrt(3))
    assert found.p_greater == 1 / 8
    assert found.p_two_sided == 2 / 8
    assert (found.num_problems, found.num_left_out, found.num_ungradable, found.equal_k) == (3, 1, 2, False)
    assert found.interval[0] <= found.within_reach[0] <= found.difference <= found.within_reach[1] <= found.interval[1]
    back = compare(second, first)
    assert back.difference == pytest.approx(-found.difference)
    assert back.p_greater == 1.0
    assert back.p_two_sided == found.p_two_sided


def test_a_margin_is_taken_off_each_problem():
    first, second = {str(i): [1, 0, 0, 0] for i in range(6)}, {str(i): [0, 0, 0, 0] for i in range(6)}
    assert compare(first, second, margin=0.2).p_greater == 2**-6
    assert compare(first, second, margin=0.25).p_greater == 1.0
    assert compare(first, second, margin=0.3).p_greater == 1.0
    assert compare(first, second).correlation is None


def test_pairing_takes_the_difficulty_out_of_the_error():
    """The same gain on problems of very different difficulty has no error at all."""
    first = {str(i): [1] * (i + 1) + [0] * (9 - i) for i in range(9)}
    second = {str(i): [1] * i + [0] * (10 - i) for i in range(9)}
    found = compare(first, second)
    assert found.difference == pytest.approx(0.1)
    assert found.stderr == pytest.approx(0, abs=1e-12)
    assert found.correlation == pytest.approx(1)


def test_problems_on_one_side_only_are_refused():
    with pytest.raises(ArtifactError, match=r"got 1 only on the second \(b\); evaluate both on the same benchmark"):
        compare({"a": [1]}, {"a": [1], "b": [0]})
    with pytest.raises(ArtifactError, match=r"got 4 only on the first \(b, c, d, \.\.\.\)"):
        compare({"a": [1], "b": [1], "c": [1], "d": [1], "e": [1]}, {"a": [1]})
    with pytest.raises(ArtifactError, match="graded samples on both sides, got none"):
        compare({"a": [None]}, {"a": [1]})


def test_labels_are_grouped_by_problem():
    rows = [{"problem_id": p, "label": label} for p, label in (("a", 1), ("b", 0), ("a", None))]
    assert labels_by_problem(rows) == {"a": [1, None], "b": [0]}


def test_the_false_positive_rate_is_at_most_alpha():
    """Two equal checkpoints on problems of different difficulty: p is at most alpha in at most that share of trials."""
    rng = random.Random(11)
    trials, small, twice = 600, 0, 0
    for _ in range(trials):
        chances = [rng.random() for _ in range(12)]
        sides = [{str(i): [int(rng.random() < p) for _ in range(4)] for i, p in enumerate(chances)} for _ in range(2)]
        found = sign_flip([Fraction(sum(sides[0][name]) - sum(sides[1][name]), 4) for name in sides[0]])
        small += found.greater <= 0.05
        twice += found.two_sided <= 0.05
    slack = 3 * sqrt(0.05 * 0.95 / trials)
    assert small / trials <= 0.05 + slack
    assert twice / trials <= 0.05 + slack
    assert small / trials > 0.02, "the test is not so shy that it never speaks"


def test_it_is_fast_where_there_are_many_problems():
    rng = random.Random(0)
    values = [Fraction(rng.randint(-4, 4), 4) for _ in range(1319)]
    assert sign_flip(values).exact
