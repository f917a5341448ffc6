"""Evaluations side by side: the report of `erpd-hub compare`, from sample rows and records. Pure.

Everything is computed from the samples. What must not be compared, and what has to be known about a comparison, is said
by `erpd_hub.evaluation.comparability`.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.bounded import METHOD
from erpd_hub.evaluation.comparability import (
    Evaluation,
    Row,
    Side,
    notes,
    refuse,
    without_judge,
)
from erpd_hub.evaluation.judge import judged_label
from erpd_hub.evaluation.pair_notes import disagreements, multiplicity
from erpd_hub.evaluation.paired import LabelsByProblem, labels_by_problem
from erpd_hub.evaluation.statistics import (
    avg_at_k,
    pass_at_k,
    quantiles,
    score_interval,
    stderr_problem,
    stderr_sampling,
)
from erpd_hub.evaluation.strata import Pooled, compare_on_each, holm
from erpd_hub.evaluation.voting import Same, ballots, majority_at_k

SCHEMA = "erpd-hub/compare/v1"
MOST_PROBLEMS = 10


def report(
    sides: Sequence[Side],
    *,
    all_pairs: bool = False,
    judged: bool = False,
    force: bool = False,
    same: Same | None = None,
) -> dict[str, Any]:
    """The `--json` object: scores of each side, paired differences of each pair, notes.

    Args:
        all_pairs: Every side against every earlier one; otherwise all against the first.
        judged: Compare the labels with the judge, which all sides need; otherwise the rule's.
        force: Compare on common problems, and with other decoding; each such difference is flagged.
        same: A grader for majority@K (`erpd_hub.evaluation.voting`).

    Raises:
        ArtifactError: no benchmark in common, or what is not to be compared.
    """
    benchmarks = [name for name in sides[0].evaluations if all(name in side.evaluations for side in sides)]
    if not benchmarks:
        had = "; ".join(f"{side.name}: {', '.join(side.evaluations)}" for side in sides)
        raise ArtifactError(f"compare: expected a benchmark that all sides were evaluated on, got {had}")
    if judged and (missing := without_judge(sides, benchmarks)):
        raise ArtifactError(f"compare: expected a judge on all sides, got none for {'; '.join(missing)}; "
                            "evaluate with --judge, or compare the rule's scores")  # fmt: skip
    flags = [
        flag
        for side in sides[1:]
        for name in benchmarks
        for flag in refuse(sides[0], side, name, judged=judged, force=force)
    ]
    labels = [_labels(side, benchmarks, judged=judged) for side in sides]
    if force:
        labels = _common(labels)
        if empty := [name for name, found in labels[0].items() if not found]:
            raise ArtifactError(f"compare: expected common problems, got none of {', '.join(empty)}")
    numbers = [(later, earlier) for later in range(1, len(sides)) for earlier in range(later if all_pairs else 1)]
    pairs = [_pair(sides[a], sides[b], labels[a], labels[b]) for a, b in numbers]
    _adjust(pairs)
    return {
        "schema": SCHEMA,
        "benchmarks": benchmarks,
        "labels": "judge" if judged else "rule",
        "interval_method": METHOD,
        "sides": [_side(side, found, same, judged=judged) for side, found in zip(sides, labels, strict=True)],
        "pairs": pairs,
        "forced": flags,
        "notes": [*notes(sides, benchmarks), *disagreements(pairs), *multiplicity(pairs)],
    }


def _labels(side: Side, benchmarks: Sequence[str], *, judged: bool) -> dict[str, dict[str, list[int | None]]]:
    """Labels by benchmark and problem."""
    return {name: labels_by_problem(_counted(side.evaluations[name], judged=judged)) for name in benchmarks}


def _counted(evaluation: Evaluation, *, judged: bool) -> Iterable[Row]:
    """The rows with the label that counts."""
    return ({**row, "label": judged_label(row)} for row in evaluation.rows) if judged else evaluation.rows


def _common(labels: Sequence[Mapping[str, LabelsByProblem]]) -> list[dict[str, Any]]:
    """Of each benchmark the problems that all sides have."""
    shared = {name: set.intersection(*(set(side[name]) for side in labels)) for name in labels[0]}
    return [{name: {p: v for p, v in side[name].items() if p in shared[name]} for name in side} for side in labels]


# -------------------------------------------------------------------------------------------- figures


def _side(side: Side, labels: Mapping[str, LabelsByProblem], same: Same | None, *, judged: bool) -> dict[str, Any]:
    return {
        "name": side.name,
        "evaluations": [_scores(side.evaluations[name], labels[name], same, judged=judged) for name in labels],
    }


def _scores(evaluation: Evaluation, by_problem: LabelsByProblem, same: Same | None, *, judged: bool) -> dict[str, Any]:
    """Scores of one evaluation on the problems that are compared."""
    labels = list(by_problem.values())
    average, k = avg_at_k(labels), max(map(len, labels), default=0)
    rows = [row for row in _counted(evaluation, judged=judged) if row["problem_id"] in by_problem]
    lengths = [row["length"] for row in rows if row["length"] is not None]
    interval = score_interval(labels)
    return {
        "benchmark": evaluation.benchmark,
        "details": evaluation.place,
        "n": len(labels),
        "k": k,
        "equal_k": average.equal_k,
        "avg": average.value,
        "stderr": stderr_problem(labels),
        "stderr_sampling": stderr_sampling(labels),
        "interval": list(interval) if interval else None,
        "pass_at_k": pass_at_k(labels, k) if k else None,
        "majority_at_k": majority_at_k(ballots(rows, same=same), [k]).get(k) if evaluation.has_votes else None,
        "mean_length": sum(lengths) / len(lengths) if lengths else None,
        "length_quantiles": quantiles(lengths),
        **{name: _share(row["verdict"] == name for row in rows) for name in ("truncated", "no_answer")},
        "coverage": (sum(map(len, labels)) - average.num_ungradable) / (len(labels) * k) if k else 0.0,
        **_both_ways(evaluation, by_problem),
        "selected": evaluation.selected,
    }


def _both_ways(evaluation: Evaluation, by_problem: LabelsByProblem) -> dict[str, Any]:
    """The score by the rule and with the judge, on the same problems, and what the judge is worth."""
    report = evaluation.metrics.get("judge") or {}

    def average(*, judged: bool) -> float | None:
        labels = labels_by_problem(_counted(evaluation, judged=judged))
        return avg_at_k([labels[problem] for problem in by_problem]).value

    return {
        "judge": evaluation.judge,
        "avg_rule": average(judged=False),
        "avg_judged": average(judged=True) if report else None,
        "judge_share": evaluation.metrics.get("judge_share"),
        "canary_acceptance": report.get("canary_acceptance"),
        "canaries_alarm": report.get("canaries_alarm"),
    }


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found) if found else 0.0


def _pair(
    side: Side, against: Side, labels: Mapping[str, LabelsByProblem], base: Mapping[str, LabelsByProblem]
) -> dict[str, Any]:
    draws_one = [name for name in labels if any(one.evaluations[name].draws_one for one in (side, against))]
    each, pooled = compare_on_each(labels, base, draws_one=draws_one)
    return {
        "checkpoint": side.name,
        "against": against.name,
        "benchmarks": [
            {
                "benchmark": name,
                **found._asdict(),
                "within_reach": list(found.within_reach),
                "interval": list(found.interval),
                "coverage": _coverage(labels[name], base[name]),
                "problems": _most_different(labels[name], base[name]),
            }
            for name, found in each.items()
        ],
        "pooled": _pooled(pooled) if len(each) > 1 else None,
    }


def _pooled(pooled: Pooled) -> dict[str, Any]:
    return {**pooled._asdict(), "within_reach": list(pooled.within_reach), "interval": list(pooled.interval)}


def _coverage(one: LabelsByProblem, other: LabelsByProblem) -> float:
    """Problems with a graded sample on both sides, as a share of all."""
    return _share(any(x is not None for x in one[p]) and any(x is not None for x in other[p]) for p in one)


def _most_different(labels: LabelsByProblem, base: LabelsByProblem) -> list[dict[str, Any]]:
    """The problems that the two sides solve most differently, at most MOST_PROBLEMS."""
    rows = []
    for problem, mine in labels.items():
        graded = [[label for label in side if label is not None] for side in (mine, base[problem])]
        if all(graded):
            first, second = (Fraction(sum(side), len(side)) for side in graded)
            rows.append((first - second, problem, float(first), float(second)))
    rows.sort(key=lambda row: (-abs(row[0]), row[1]))
    return [
        {"problem_id": problem, "first": first, "second": second, "difference": float(difference)}
        for difference, problem, first, second in rows[:MOST_PROBLEMS]
        if difference
    ]


def _adjust(pairs: Sequence[dict[str, Any]]) -> None:
    """Holm's p: over the pooled tests of all pairs, and over all tests of single benchmarks."""
    pooled = [pair["pooled"] for pair in pairs if pair["pooled"]]
    single = [row for pair in pairs for row in pair["benchmarks"]]
    for family in (pooled, single):
        for row, adjusted in zip(family, holm([row["p_two_sided"] for row in family]), strict=True):
            row["p_holm"] = adjusted
            row["num_tests"] = len(family)
