"""A twin at several seeds as one table for a document: every checkpoint's means, and where its numbers are from.

Pure: summaries of runs that differ by their seed in, rows out. Each number is one of a summary, so of an artifact; the
fingerprints name these (on one machine type and thread count the same recipe and seed make the same bytes again).
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

METRICS = ("avg", "kl_to_base", "entropy", "mean_length")
_SHOWN = 16
"""Hex digits of a fingerprint: those of the tag `fp-...` of the artifact."""


def checkpoints_over_seeds(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a checkpoint and benchmark, with `ref`, `role`, `benchmark`, and of METRICS one value a seed."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for place, summary in enumerate(summaries):
        for row in summary["checkpoints"]:
            entry = found.setdefault(
                (row["ref"], row["benchmark"]),
                {name: row[name] for name in ("ref", "role", "benchmark", "k", "n")}
                | {metric: [None] * len(summaries) for metric in METRICS},
            )
            for metric in METRICS:
                entry[metric][place] = row[metric]
    return list(found.values())


def fingerprints_over_seeds(summaries: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The first digits of the fingerprint of every artifact, by step, one a seed."""
    found: dict[str, list[str | None]] = {}
    for place, summary in enumerate(summaries):
        for item in summary["artifacts"]:
            found.setdefault(item["step"], [None] * len(summaries))[place] = item["fingerprint"][:_SHOWN]
    return found


# ------------------------------------------------------------------------------------------- markdown


def markdown(found: Mapping[str, Any]) -> str:
    """The report of several seeds for a document; AVG@K in points, other metrics in their own units."""
    model = "" if found["model"] == "tiny" else f" --model {found['model']}"
    seeds = ",".join(map(str, found["seeds"]))
    lines = [
        f"### {found['title']}",
        "",
        f"`erpd-hub reproduce {found['experiment']} --tiny{model} --seeds {seeds}`: {found['claim']}",
        "",
        *_claims(found["claims"]),
        "",
        *_checkpoints(found["checkpoints"]),
    ]
    return "\n".join(lines) + "\n"


def _claims(claims: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = ["| claim | compared | means | difference (95 %) | by seed | verdict |", "|---|---|---|---|---|---|"]
    for claim in claims:
        scale, digits = (100, 1) if claim["metric"] == "avg" else (1, 4)
        cells = ["-"] * 3
        if claim["difference"] is not None:
            means = (f"{scale * claim[side]:.{digits}f}" for side in ("value_more", "value_less"))
            low, high = claim["interval"] or (float("nan"), float("nan"))
            cells = [
                " / ".join(means),
                f"{scale * claim['difference']:+.{digits}f} ({scale * low:+.{digits}f} to {scale * high:+.{digits}f})",
                ", ".join(f"{scale * value:+.{digits}f}" for value in claim["by_seed"]),
            ]
        metric = "" if claim["metric"] == "avg" else f"{claim['metric']}: "
        compared = f"{metric}`{claim['more']}` - `{claim['less']}`"
        rows.append(f"| {claim['says']} | {compared} | {' | '.join(cells)} | **{claim['verdict']}** |")
    return rows


def _checkpoints(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [
        "| checkpoint | role | AVG@K (sd over seeds) | KL to base | entropy | tokens |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for entry in entries:
        average = [100 * value for value in entry["avg"] if value is not None]
        spread = f" ({stdev(average):.1f})" if len(average) > 1 else ""
        cells = [f"{fmean(average):.1f}{spread}" if average else "-"]
        for metric, digits in (("kl_to_base", 4), ("entropy", 3), ("mean_length", 1)):
            values = [value for value in entry[metric] if value is not None]
            cells.append(f"{fmean(values):.{digits}f}" if values else "-")
        rows.append(f"| `{entry['ref']}` | {entry['role']} | {' | '.join(cells)} |")
    return rows
