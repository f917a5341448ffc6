"""What a row of the leaderboard says: its name, its score, its marks, what it was measured with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from markup import badge
from places import Row

ROLES = ("base", "teacher", "unlearned", "student", "control", "online", "endpoint")
SETTINGS = ("version", "benchmark_definition", "limit", "k", "temperature", "top_p", "max_new_tokens",
            "max_sequence_tokens")  # fmt: skip
GRADED_BY = ("grader", "math-verify", "sandbox", "protection", "numpy")
"""What scores must share to be compared: these columns, and these parts of the `harness`."""


def name_of(score: Row) -> str:
    """`run: checkpoint`, the name of a checkpoint in menus."""
    return f"{score.get('run')}: {score.get('checkpoint') or score.get('role')}"


def incomparable(rows: Sequence[Row]) -> list[str]:
    """A sentence for each benchmark that these rows did not measure alike."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        measured.setdefault(str(row.get("benchmark")), []).append(_settings(row))
    differing = {
        name: [key for key in found[0] if len({str(each[key]) for each in found}) > 1]
        for name, found in measured.items()
    }
    return [
        f"{name}: scores that differ in {', '.join(keys)} are not comparable"
        for name, keys in differing.items()
        if keys
    ]


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else format(value, form)


def score_text(row: Row) -> str:
    """`63.1 (58.5-67.5)`, or with a standard error where there is no interval."""
    interval = row.get("interval")
    if row.get("avg") is None:
        return "-"
    if interval:
        return f"{percent(row['avg'])} ({percent(interval[0])}-{percent(interval[1])})"
    return percent(row["avg"]) + ("" if row.get("stderr") is None else f" ± {percent(row['stderr'])}")


def marks(row: Row) -> Markup:
    """What a reader has to know before comparing this row."""
    found = [
        ("reported by the paper", row.get("reported")),
        ("selected on", row.get("selection")),
        ("unpinned", row.get("pinned") is False),
        (f"first {row.get('limit')} problems", row.get("limit") is not None),
        (f"{percent(row.get('coverage'))} % graded", row.get("coverage") is not None and row["coverage"] < 1.0),
        ("unequal K", row.get("equal_k") is False),
        ("other problems than the recorded ones", row.get("problems_state") == "other"),
        ("seeds ignored", row.get("seeds_ignored")),
        (f"{row.get('cut_short')} samples cut by the server", row.get("cut_short")),
        ("some samples made otherwise", row.get("taken_over_otherwise")),
        (f"judged score not to be trusted: {row.get('canaries_problem')}", row.get("canaries_problem")),
    ]
    return Markup("").join(badge(text, "mark") for text, there in found if there)


def judged(row: Row) -> str:
    """The score with the judge, how many samples it raised, and how many wrong answers it took for right."""
    if row.get("avg_judged") is None:
        return "-"
    share, canaries = percent(row.get("judge_share")), percent(row.get("canary_acceptance"), 0)
    raised = f"raised {share} % of samples, canaries accepted {canaries} %"
    return f"{percent(row['avg_judged'])} with {row.get('judge')}: {raised}"


def measured_on(row: Row) -> str:
    """`K x problems`, or of how many of them the score is."""
    if row.get("k") is None:
        return "-"
    all_graded = row.get("n_graded") in (None, row.get("n"))
    return f"{row['k']} x " + (str(row.get("n")) if all_graded else f"{row['n_graded']}/{row.get('n')}")


def loss_of(row: Row) -> str:
    """What a checkpoint was trained with; a student has no such loss of its own, but its teacher's."""
    if not row.get("loss"):
        return "-"
    return f"{row['loss']} (its teacher's)" if row.get("role") == "student" else str(row["loss"])


def _settings(row: Row) -> dict[str, Any]:
    try:
        harness = json.loads(row.get("harness") or "{}")
    except (ValueError, RecursionError):
        harness = {}
    graded_by: Mapping[str, Any] = harness if isinstance(harness, dict) else {}
    return {**{name: row.get(name) for name in SETTINGS}, **{name: graded_by.get(name) for name in GRADED_BY}}
