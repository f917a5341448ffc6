"""What makes a score less than its samples seem to say, in words that tables, notes and cards share. Pure.

Samples may repeat each other, be ended by a server's own limit, or have been made otherwise than the rest. The metrics
of details record it; a leaderboard row has it in three columns.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_MADE_WITH = ("type", "dtype", "graded_by")


def draws_one(metrics: Mapping[str, Any]) -> bool:
    """Whether K samples of a problem tell no more than one: seeds were ignored, or the temperature is 0."""
    decoding = metrics.get("decoding") or {}
    return bool(metrics.get("seeds_ignored")) or decoding.get("temperature") == 0


def made_otherwise(metrics: Mapping[str, Any]) -> dict[str, str]:
    """How samples that were taken over from earlier evaluations were made, where other than those drawn last."""
    found: dict[str, list[str]] = {}
    earlier = metrics.get("taken_over_otherwise")
    while earlier:
        told = {key: earlier[key] for key in _MADE_WITH if key in earlier}
        for key, value in {**told, **earlier.get("versions", {})}.items():
            found.setdefault(key, []).append(str(value))
        earlier = earlier.get("taken_over_otherwise")
    return {key: ", ".join(dict.fromkeys(values)) for key, values in found.items()}


def sampling_notes(label: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    """What makes an evaluation's samples fewer, or shorter, than was asked for."""
    if metrics.get("seeds_ignored"):
        yield (
            f"{label} has {metrics.get('duplicates', 'some')} samples that repeat another of their problem: whatever "
            "drew them ignores seeds, so K and the errors are less than they seem"
        )
    elif draws_one(metrics) and (metrics.get("k") or 1) > 1:
        yield f"{label} was sampled at temperature 0, so K = 1 says the same"
    if metrics.get("seeds_sent") is False:
        yield f"{label} was drawn without seeds, which its server does not take"
    if metrics.get("cut_short"):
        yield f"of {label}, {metrics['cut_short']} samples were ended by a limit of the server's own"


# ------------------------------------------------------------------------------------ leaderboard rows


def told_caveats(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a leaderboard row; null where there is nothing to say."""
    otherwise = made_otherwise(metrics)
    return {
        "seeds_ignored": metrics.get("seeds_ignored") or None,
        "cut_short": metrics.get("cut_short") or None,
        "taken_over_otherwise": json.dumps(otherwise, sort_keys=True) if otherwise else None,
    }


def caveats(row: Mapping[str, Any]) -> Iterator[str]:
    """Those columns in words; rows without them have none."""
    if row.get("seeds_ignored"):
        yield "whatever drew the samples ignores seeds, so K and the errors are less than they seem"
    if row.get("cut_short"):
        yield f"the server ended {row['cut_short']} samples by a limit of its own, below the one asked for"
    if row.get("taken_over_otherwise"):
        yield f"samples were taken over that were made otherwise than the others: {row['taken_over_otherwise']}"
