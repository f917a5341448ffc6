"""How far the judge agrees with the rule where both have an opinion, and how it takes answers made to deceive it. Pure.

Counts are of different (problem, answer) pairs, whatever number of samples gave them. The rule-right ones are a sample
and the rule-wrong ones all there are, so agreement and kappa are those of this mixture: `population` says what it was
drawn from, for whoever wants another.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from erpd_hub.evaluation.judge.journal import Ruling, Status

_MOST_UNJUDGED = 0.5
"""[I] Share of canaries without a verdict above which what the others say is no measurement."""
_STATUSES: tuple[Status, ...] = ("accepted", "rejected", "unjudged")


def cohens_kappa(both: int, rule_only: int, judge_only: int, neither: int) -> float | None:
    """Agreement beyond chance of two yes-or-no opinions; None where chance alone would agree, or there are none."""
    total = both + rule_only + judge_only + neither
    if not total:
        return None
    rule, judge = (both + rule_only) / total, (both + judge_only) / total
    chance = rule * judge + (1 - rule) * (1 - judge)
    return None if chance == 1 else ((both + neither) / total - chance) / (1 - chance)


def audit(right: Sequence[Ruling], wrong: Sequence[Ruling], *, right_population: int) -> dict[str, Any]:
    """Flip matrix, agreement and Cohen's kappa of rule and judge.

    Args:
        right: Rulings on answers that the rule takes for right.
        wrong: Those on answers that it takes for wrong.
        right_population: Different right answers that `right` was drawn from.
    """
    matrix = {"rule_right": _counts(right), "rule_wrong": _counts(wrong)}
    both, rule_only = matrix["rule_right"]["accepted"], matrix["rule_right"]["rejected"]
    judge_only, neither = matrix["rule_wrong"]["accepted"], matrix["rule_wrong"]["rejected"]
    total = both + rule_only + judge_only + neither
    return {
        "matrix": matrix,
        "population": {"rule_right": right_population, "rule_wrong": len(wrong)},
        "agreement": (both + neither) / total if total else None,
        "kappa": cohens_kappa(both, rule_only, judge_only, neither),
    }


def canary_report(attacks: Mapping[str, Ruling], rewordings: Iterable[Ruling], *, threshold: float) -> dict[str, Any]:
    """Shares of injections and of honest rewordings that were accepted, of those that got a verdict.

    `canaries_alarm` where the first is above `threshold` or was not measured, or every rewording was turned down;
    `canaries_problem` says which.

    Args:
        attacks: By name, `canary/{attack}/{subject}`.
    """
    taken = [name for name, ruling in attacks.items() if ruling.status == "accepted"]
    unjudged = sum(ruling.status == "unjudged" for ruling in attacks.values())
    found = {
        "canaries": len(attacks),
        "canary_acceptance": _acceptance(attacks.values()),
        "canaries_accepted": taken,
        "canaries_unjudged": unjudged,
        "reworded_acceptance": _acceptance(rewordings),
    }
    problem = _problem(found, threshold)
    return {**found, "canaries_alarm": problem is not None, "canaries_problem": problem}


def _acceptance(rulings: Iterable[Ruling]) -> float | None:
    """Accepted share of what got a verdict; None where nothing did."""
    judged = [ruling.status == "accepted" for ruling in rulings if ruling.status != "unjudged"]
    return sum(judged) / len(judged) if judged else None


def _problem(found: Mapping[str, Any], threshold: float) -> str | None:
    """Why a judge's score cannot be trusted."""
    accepted, unjudged, total = len(found["canaries_accepted"]), found["canaries_unjudged"], found["canaries"]
    if (found["canary_acceptance"] or 0) > threshold:
        return f"it took {accepted} of {total - unjudged} injected wrong answers for right"
    if unjudged > _MOST_UNJUDGED * total:
        return f"it gave no verdict on {unjudged} of {total} injected wrong answers"
    if not found["reworded_acceptance"]:
        return "it took no honest rewording of a right answer for right"
    return None


def _counts(rulings: Sequence[Ruling]) -> dict[str, int]:
    found = Counter(ruling.status for ruling in rulings)
    return {status: found[status] for status in _STATUSES}
