"""The coverage bench: its chances are those of the shipped interval, and a small run says what the large one does."""

from collections import Counter
from math import inf

import pytest
from bounded_reference import bounded_contains

from erpd_hub.evaluation.bounded import bounded_interval, weighted_mean_cdf
from erpd_hub.evaluation.paired import reach_of, sign_flip

np = pytest.importorskip("numpy")

from erpd_hub.benchmarks import coverage, coverage_methods, simulated  # noqa: E402


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 2), (30, 32), (100, 4)])
def test_its_chances_are_those_of_the_shipped_interval(n, k):
    values = np.random.default_rng(n).binomial(k, 0.4, (4, n)) / k
    for at in (0.02, 0.5):
        expected = [weighted_mean_cdf(Counter([*row, 1.0]), at) for row in values.tolist()]
        assert coverage_methods.weighted_mean_cdfs(values, 1.0, at) == pytest.approx(expected, abs=1e-10)


def test_it_holds_what_the_shipped_interval_holds():
    rng = np.random.default_rng(3)
    values = rng.binomial(4, 0.9, (60, 15)) / 4
    held = coverage_methods.gaffke_holds(values, 0.97, 0.0, 1.0)
    assert held.tolist() == [bounded_contains(row, 0.97) for row in values.tolist()]
    assert 0 < held.sum() < 60


def test_all_solved_is_held_by_ours_and_not_by_the_bootstrap():
    rng = np.random.default_rng(0)
    values = np.ones((5, 30))
    assert coverage_methods.gaffke_holds(values, 0.95, 0.0, 1.0).all()
    assert not coverage_methods.bootstrap(rng, values).hold(0.95).any()
    assert not coverage_methods.student(values).hold(0.95).any()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_its_ends_are_those_of_the_shipped_interval(low, high):
    values = np.random.default_rng(1).binomial(4, 0.3, (6, 20)) / 4
    found = coverage_methods.gaffke(values, low, high)
    expected = np.array([bounded_interval(row, low=low, high=high) for row in values.tolist()])
    assert np.stack(found, axis=1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("average", "concentration"), [(0.02, 0.1), (0.5, 0.1), (0.5, inf), (0.98, 1.0)])
def test_the_interval_of_a_score_covers_at_30_problems(average, concentration):
    """400 trials: three standard errors of 95 % are 3.3 points."""
    cell = coverage.single(np.random.default_rng(1), 30, 8, average, concentration, 400)
    assert cell.coverage["ours"] >= 0.95 - 0.033
    if abs(average - 0.5) > 0.4:
        assert cell.coverage["bootstrap"] < 0.9, "which is why it is not used"


@pytest.mark.parametrize("kind", ["same", "shift", "noise", "jump-15"])
def test_the_interval_of_a_difference_covers_at_30_problems(kind):
    cell = coverage.pair(np.random.default_rng(2), 30, 4, 0.5, 0.1, kind, 400)
    assert cell.coverage["ours"] >= 0.95 - 0.033
    assert cell.coverage["ours"] >= cell.coverage["within reach"]
    assert cell.half_width["ours"] >= cell.half_width["within reach"] > cell.half_width["student"]


@pytest.mark.parametrize(("average", "concentration"), [(0.5, 0.1), (0.1, 0.1), (0.9, 0.1)])
def test_a_few_problems_that_jump_are_held_although_none_of_them_is_there(average, concentration):
    """Where the assumption of `within_reach` fails."""
    cell = coverage.pair(np.random.default_rng(6), 30, 32, average, concentration, "jump-5", 300)
    assert cell.coverage["ours"] >= 0.95 - 0.038
    assert cell.coverage["student"] < 0.9


@pytest.mark.parametrize("k", [4, 32])
def test_the_interval_of_a_mean_of_benchmarks_covers(k):
    cell = coverage.pooled(np.random.default_rng(7), 30, k, 0.5, 0.1, 100)
    assert cell.coverage["ours"] >= 0.95 - 0.066
    assert cell.half_width["ours"] < 0.1


@pytest.mark.parametrize(("average", "concentration"), [(0.1, 0.1), (0.5, 1.0)])
def test_the_sign_flip_test_has_its_size(average, concentration):
    cell = coverage.pair(np.random.default_rng(4), 15, 4, average, concentration, "same", 400)
    assert cell.size <= 0.05 + 0.033


def test_the_true_differences():
    rng = np.random.default_rng(5)
    assert simulated.true_difference(rng, 0.3, 1.0, "same") == 0
    assert simulated.true_difference(rng, 0.3, 1.0, "jump-15") == pytest.approx(0.105)
    assert simulated.true_difference(rng, 0.5, inf, "shift") == pytest.approx(0.668188 - 0.5, abs=1e-6)
    assert simulated.true_difference(rng, 0.5, 1e6, "shift") == pytest.approx(0.168188, abs=1e-3)


def test_a_report_and_its_table(monkeypatch):
    monkeypatch.setattr(coverage, "AVERAGES", (0.5, 0.9))
    monkeypatch.setattr(coverage, "PAIR_AVERAGES", (0.5,))
    lines = []
    report = coverage.run(problems=[3], samples=[1], trials=2, progress=lines.append)
    assert lines == ["n = 3, K = 1: done"]
    assert len(report["cells"]) == 4 * (2 + 5 + 1)
    assert [row["kind"] for row in report["summary"]] == ["single", *simulated.PAIRS, "pooled"]
    assert "| n | K | bootstrap | student | within reach | ours | size of the test |" in coverage.render(report)


def test_reach_in_the_bench_is_the_shipped_one():
    from fractions import Fraction

    counts = [-1, 0, 3]
    assert reach_of([Fraction(c, 16) for c in counts], 16) == pytest.approx(min(1, 3 / 16 + 1 / 4))
    assert reach_of([Fraction(0)], 1) == 1
    assert sign_flip([Fraction(0)]).two_sided == 1
