"""Pooling over benchmarks against hand computation and enumeration; Holm's p against its definition."""

from itertools import product
from math import sqrt

import pytest

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.strata import compare_on_each, holm

FIRST = {"small": {"a": [1, 1], "b": [1, 0]}, "large": {"c": [1, 0], "d": [0, 0], "e": [1, 1], "f": [1, 0]}}
SECOND = {"small": {"a": [0, 0], "b": [1, 0]}, "large": {"c": [0, 0], "d": [1, 0], "e": [0, 1], "f": [0, 0]}}


def test_the_mean_of_benchmarks_weighs_them_alike():
    each, pooled = compare_on_each(FIRST, SECOND)
    assert each["small"].difference == pytest.approx(0.5)
    assert each["large"].difference == pytest.approx((0.5 - 0.5 + 0.5 + 0.5) / 4)
    assert pooled.difference == pytest.approx((0.5 + 0.25) / 2)
    assert pooled.first == pytest.approx((0.75 + 0.5) / 2)
    assert pooled.stderr == pytest.approx(sqrt(each["small"].stderr ** 2 + each["large"].stderr ** 2) / 2)
    assert (pooled.num_benchmarks, pooled.num_problems) == (2, 6)


def test_its_test_flips_every_problem_by_its_weight():
    _, pooled = compare_on_each(FIRST, SECOND)
    weighted = [1 / 2, 0, 0.5 / 4, -0.5 / 4, 0.5 / 4, 0.5 / 4]
    sums = [sum(s * w for s, w in zip(signs, weighted, strict=True)) for signs in product((1, -1), repeat=6)]
    assert pooled.p_two_sided == pytest.approx(sum(abs(x) >= sum(weighted) - 1e-12 for x in sums) / len(sums))
    assert pooled.exact


def test_its_interval_adds_the_distances_of_the_bounds():
    each, pooled = compare_on_each(FIRST, SECOND)
    below = sqrt(sum((one.difference - one.interval[0]) ** 2 for one in each.values())) / 2
    above = sqrt(sum((one.interval[1] - one.difference) ** 2 for one in each.values())) / 2
    assert pooled.interval == pytest.approx((pooled.difference - below, pooled.difference + above))
    assert pooled.interval[0] <= pooled.within_reach[0] <= pooled.within_reach[1] <= pooled.interval[1]


def test_one_benchmark_is_its_own_mean():
    each, pooled = compare_on_each({"small": FIRST["small"]}, {"small": SECOND["small"]})
    assert pooled.interval == pytest.approx(each["small"].interval)
    assert pooled.p_two_sided == each["small"].p_two_sided
    with pytest.raises(ArtifactError, match="got none"):
        compare_on_each({"x": {"a": [None]}}, {"x": {"a": [1]}})


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
