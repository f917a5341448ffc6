"""AVG@K, its errors and pass@k, against values computed by hand."""

from math import sqrt

import pytest

from erpd_hub.evaluation.statistics import (
    avg_at_k,
    bootstrap_interval,
    pass_at_k,
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


def test_bootstrap_interval() -> None:
    # two problems, 0 and 1: averages 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert bootstrap_interval([[0], [1]]) == (0.0, 1.0)
    assert bootstrap_interval([[0], [1]], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([[1, 1]] * 5) == (1.0, 1.0)
    assert bootstrap_interval([[None]]) is None
    labels = [[1, 0], [0, 0], [1, 1], [0, 1]] * 10
    low, high = bootstrap_interval(labels)
    assert low == pytest.approx(0.5 - 1.96 * stderr_problem(labels), abs=0.02)
    assert (low, high) == bootstrap_interval(labels)


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
