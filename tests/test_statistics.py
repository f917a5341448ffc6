"""AVG@K, its errors and pass@k, against values computed by hand."""

from math import sqrt

import pytest

from erpd_hub.evaluation.statistics import (
    avg_at_k,
    pass_at_k,
    quantiles,
    score_interval,
    stderr_problem,
    stderr_sampling,
    summarise,
)

LABELS = [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]  # means 1/2, 1, 1/4


def a_sample(problem: str, label: int | None, verdict: str, length: int | None = 10) -> dict:
    ids = None if length is None else list(range(length))
    how = {"finish_reason": "length" if verdict == "truncated" else "stop", "gold": "7", "extracted": None}
    if verdict in ("correct", "wrong"):
        how["extracted"] = "7" if label else "eight"
    return {"problem_id": problem, "label": label, "verdict": verdict, "response_ids": ids, **how}


def test_average_is_over_problems() -> None:
    assert avg_at_k(LABELS) == (pytest.approx((0.5 + 1 + 0.25) / 3), 3, 0, True)
    uneven = avg_at_k([[1], [0, 0, 0]])
    assert uneven.value == 0.5
    assert not uneven.equal_k


def test_ungradable_samples_are_left_out_and_counted() -> None:
    average = avg_at_k([[1, None], [None, None], [0, 0]])
    assert average == (0.5, 2, 3, False)
    assert avg_at_k([[None]]) == (None, 0, 1, True)
    assert avg_at_k([]).value is None


def test_standard_errors() -> None:
    # deviations from 7/12: -1/12, 5/12, -4/12; variance (1 + 25 + 16) / 144 / 2 = 7/48
    assert stderr_problem(LABELS) == pytest.approx(sqrt(7 / 48) / sqrt(3))
    # p(1-p)/(K-1): 1/12, 0, 1/16; mean 7/144
    assert stderr_sampling(LABELS) == pytest.approx(sqrt(7 / 144) / sqrt(3))
    assert stderr_problem([[1, 0]]) is None
    assert stderr_sampling([[1], [0, 1]]) is None


def test_no_sampling_error_where_every_draw_agrees() -> None:
    assert stderr_sampling([[1, 1], [0, 0]]) == 0
    assert stderr_problem([[1, 1], [0, 0]]) == pytest.approx(0.5)


def test_sampling_error_matches_repeated_draws() -> None:
    import random

    rng = random.Random(0)
    chances = [rng.random() for _ in range(20)]
    draws = [[[int(rng.random() < p) for _ in range(8)] for p in chances] for _ in range(400)]
    averages = [avg_at_k(draw).value for draw in draws]
    mean = sum(averages) / 400
    spread = sqrt(sum((a - mean) ** 2 for a in averages) / 399)
    estimate = sqrt(sum(stderr_sampling(draw) ** 2 for draw in draws) / 400)
    assert estimate == pytest.approx(spread, rel=0.1)


def test_the_interval_is_over_problems() -> None:
    assert score_interval([[None]]) is None
    labels = [[1, 0], [0, 0], [1, 1], [0, 1]] * 10
    low, high = score_interval(labels)
    assert low == pytest.approx(0.5 - 1.96 * stderr_problem(labels), abs=0.02)
    assert high == pytest.approx(0.5 + 1.96 * stderr_problem(labels), abs=0.02)
    assert score_interval([[*row, None] for row in labels]) == (low, high)


def test_the_interval_has_a_width_where_every_problem_is_solved() -> None:
    low, high = score_interval([[1] * 32] * 30)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 30), abs=1e-8), 1.0)  # Clopper and Pearson's of 30 of 30


def test_quantiles_interpolate() -> None:
    assert quantiles([3, 1, 2], at=(0.25, 0.5)) == {"0.25": 1.5, "0.5": 2, "1": 3}
    assert quantiles([7], at=(0.9,)) == {"0.9": 7, "1": 7}
    assert quantiles([]) == {}


def test_pass_at_k() -> None:
    assert pass_at_k(LABELS, 1) == pytest.approx(avg_at_k(LABELS).value)
    # k=2 of 4 with 2, 4, 1 right: 1 - 1/6, 1, 1 - 3/6
    assert pass_at_k(LABELS, 2) == pytest.approx((5 / 6 + 1 + 1 / 2) / 3)
    assert pass_at_k(LABELS, 4) == 1
    assert pass_at_k(LABELS, 5) is None
    assert pass_at_k([], 1) is None


def test_summary() -> None:
    rows = [
        a_sample("a", 1, "correct", 4), a_sample("a", 0, "truncated", 16),
        a_sample("b", 0, "no_answer", 4), a_sample("b", None, "ungradable", None),
    ]  # fmt: skip
    summary = summarise(rows)
    assert summary["avg"] == 0.25
    assert (summary["n"], summary["k"], summary["equal_k"]) == (2, 2, False)
    assert summary["mean_length"] == 8
    assert [summary[name] for name in ("truncated", "no_answer", "timeout", "ungradable")] == [0.25, 0.25, 0, 0.25]
    assert summary["coverage"] == 0.75
    assert summary["pass_at_k"] == {"1": 0.25}
    assert summary["majority_at_k"] == {"1": 0.25}
    assert summary["interval_method"] == "gaffke"
    assert summary["length_quantiles"]["all"] == {"0.1": 4, "0.5": 4, "0.9": pytest.approx(13.6),
                                                  "0.99": pytest.approx(15.76), "1": 16}  # fmt: skip
    assert summary["length_quantiles"]["correct"]["1"] == 4
    assert summary["stderr"] == pytest.approx(0.25)
    assert summary["stderr_sampling"] is None


def test_summary_shows_samples_that_are_missing() -> None:
    summary = summarise([a_sample("a", 1, "correct"), a_sample("a", 1, "correct"), a_sample("b", 0, "wrong")])
    assert summary["coverage"] == 0.75
    assert not summary["equal_k"]


def test_summary_of_nothing() -> None:
    summary = summarise([])
    assert summary["avg"] is None
    assert (summary["n"], summary["k"], summary["coverage"], summary["pass_at_k"]) == (0, 0, 0, {})


def test_well_formed_tells_format_from_mathematics() -> None:
    rows = [a_sample("a", 1, "correct"), a_sample("a", 0, "wrong"), a_sample("b", 0, "truncated")]
    rows.append({**a_sample("b", 0, "wrong"), "extracted": "8"})
    summary = summarise(rows)
    assert summary["well_formed"] == 0.5  # "eight" is no integer, and a response that was cut off has no end
    assert summary["avg_well_formed"] == 0.5
    assert summary["avg"] == 0.25


def test_without_golds_the_format_is_not_told() -> None:
    summary = summarise([{**a_sample("a", 1, "correct"), "gold": None}], votes=False)
    assert (summary["well_formed"], summary["avg_well_formed"], summary["avg"]) == (None, None, 1)
    assert summary["majority_at_k"] == {}


def test_pass_at_5_is_reported_beside_the_powers() -> None:
    rows = [a_sample("a", int(i == 0), "correct" if i == 0 else "wrong") for i in range(10)]
    found = summarise(rows)["pass_at_k"]
    assert list(found) == ["1", "2", "4", "5", "8"]
    assert found == pytest.approx({k: int(k) / 10 for k in found})
