"""What has to be known before p and intervals of paired comparisons are believed, in words. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from erpd_hub.evaluation.paired import excludes_zero

_LEVEL = 0.05


def disagreements(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where an interval and p say different things of the difference 0, and why they may."""
    unsure: list[str] = []
    close: list[str] = []
    for pair in pairs:
        pooled = [{"benchmark": "the mean of benchmarks", **pair["pooled"]}] if pair["pooled"] else []
        for item in (*pair["benchmarks"], *pooled):
            place = f"{pair['checkpoint']} against {pair['against']} on {item['benchmark']}"
            small, apart = item["p_two_sided"] < _LEVEL, excludes_zero(item["interval"])
            if small != apart:
                (unsure if small else close).append(place)
    found = []
    if unsure:
        found.append(f"{'; '.join(unsure)}: p < {_LEVEL} although the interval holds 0: not alike on these problems, "
                     "but others like them, of which none is here, could turn the mean around")  # fmt: skip
    if close:
        found.append(f"{'; '.join(close)}: p >= {_LEVEL} although the interval excludes 0: too close to call")
    return found


def multiplicity(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    single = sum(len(pair["benchmarks"]) for pair in pairs)
    pooled = sum(pair["pooled"] is not None for pair in pairs)
    if max(single, pooled) < 2:
        return []
    pooled_text = f" and {pooled} of means over benchmarks" if pooled > 1 else ""
    return [
        f"{single} tests of single benchmarks{pooled_text}: one in twenty tests of equal checkpoints has p < 0.05, so "
        "read p (Holm), which holds over each family; the best of several checkpoints looks better than it is, so "
        "choose on one benchmark and report another"
    ]
