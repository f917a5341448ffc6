"""What was expected of the quick start before it was measured, checked on the seeds of a sweep."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """A claim about one seed's checkpoints: `value` is not negative where it holds."""

    text: str
    value: Callable[[dict[str, dict[str, Any]]], float]


# Fixed beforehand and kept whatever the seeds say; that a student beats its teacher is not among them.
QUICKSTART_CLAIMS = (
    Claim("teacher at least 15 points above base", lambda r: r["teacher"]["avg"] - r["base"]["avg"] - 0.15),
    Claim("student at least 8 points above base", lambda r: r["student"]["avg"] - r["base"]["avg"] - 0.08),
    Claim(
        "student at no more than 0.6 of its teacher's KL",
        lambda r: 0.6 * r["teacher"]["kl_to_base"] - r["student"]["kl_to_base"],
    ),
    Claim("unlearned at least 25 points below base", lambda r: r["base"]["avg"] - 0.25 - r["unlearned"]["avg"]),
    Claim("recovered teacher is weak: below base", lambda r: r["base"]["avg"] - r["recovered"]["avg"]),
    Claim(
        "strategy 2 from the weak teacher at least 5 points above base",
        lambda r: r["student-weak"]["avg"] - r["base"]["avg"] - 0.05,
    ),
    Claim(
        "strategy 2 at least 15 points above strategy 1 from the weak teacher",
        lambda r: r["student-weak"]["avg"] - r["student-weak-s1"]["avg"] - 0.15,
    ),
)


def check_claims(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a sweep of the quick start over seeds has to say about each claim, seed by seed; none of another recipe."""
    if report["recipe"] != "quickstart" or len(report["points"]) != 1:
        return []
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for row in report["rows"]:
        for item in row["seeds"]:
            by_seed.setdefault(item["seed"], {})[row["checkpoint"]] = item
    return [_check(claim, list(by_seed.values())) for claim in QUICKSTART_CLAIMS]


def _check(claim: Claim, by_ref: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """A seed in which a checkpoint failed has no value, and no claim holds that was not seen on every seed."""
    values = [_value(claim, rows) for rows in by_ref]
    return {"claim": claim.text, "values": values, "holds": all(value is not None and value >= 0 for value in values)}


def _value(claim: Claim, rows: dict[str, dict[str, Any]]) -> float | None:
    try:
        return claim.value(rows)
    except KeyError:
        return None
