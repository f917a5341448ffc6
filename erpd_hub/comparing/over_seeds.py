"""A twin at several seeds as one table for a document: every checkpoint's means, and where its numbers are from.

Pure: summaries of runs that differ by their seed in, rows out. Each number is one of a summary, so of an artifact; the
fingerprints name these (on one machine type and thread count the same recipe and seed make the same bytes again).
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

from erpd_hub.artifacts import LineageRecord
from erpd_hub.comparing.claims import Verdict
from erpd_hub.comparing.paper import NOT_THE_PAPERS, get_experiment

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


def machine(records: Iterable[LineageRecord]) -> str | None:
    """What a run's tensors were on, which decides their bits; of several all; None where no artifact's record says."""
    kinds = (_kind(record.environment) for record in records if "device" in record.environment)
    return "; ".join(dict.fromkeys(kinds)) or None


def _kind(environment: Mapping[str, Any]) -> str:
    device, threads = environment["device"], environment.get("threads")
    name = f"CPU {environment.get('instructions', '')}".strip() if device == "cpu" else device
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}, torch {environment.get('torch')}"


# ------------------------------------------------------------------------------------------- markdown


def markdown(found: Mapping[str, Any], picture: str | None = None) -> str:
    """The report of several seeds for a document; AVG@K in points, other metrics in their own units.

    Args:
        picture: Name of the file with what each checkpoint gained against its KL, where there is one.
    """
    model = [] if found["model"] == "tiny" else ["--model", found["model"]]
    seeds = ["--seeds", ",".join(map(str, found["seeds"]))]
    command = shlex.join(["erpd-hub", "reproduce", found["experiment"], *found["overrides"], "--tiny", *model, *seeds])
    lines = [
        f"# {found['title']}",
        "",
        f"`{command}`: {found['claim']}",
        "",
        *_claims(found["claims"]),
        "",
        *(f"* {note}" for note in found["notes"]),
        *([""] if found["notes"] else []),
        *([f"![Gain on the base against KL to the base, means over seeds]({picture})", ""] if picture else []),
        *_paper_rows(found),
        *_checkpoints(found["checkpoints"]),
        "",
        *_artifacts(found),
    ]
    return "\n".join(lines) + "\n"


def overview(reports: Iterable[Mapping[str, Any]]) -> str:
    """Every claim of several reports in one table, each report linked as EXPERIMENT.md; and how many show of those that
    the paper makes, and of the others."""
    rows, paper, ours = [], Counter[str](), Counter[str]()
    for found in reports:
        for claim in found["claims"]:
            (ours if claim["says"].startswith(NOT_THE_PAPERS) else paper)[claim["verdict"]] += 1
            cells = [_experiment(found), claim["says"], str(_measured_seeds(claim)), _difference(claim)]
            rows.append(f"| {' | '.join(cells)} | **{claim['verdict']}** |")
    head = ["| experiment | claim | seeds | difference (95 %) | verdict |", "|---|---|---:|---|---|"]
    counts = f"{paper.total()} claims of the paper: {_counts(paper)}; {ours.total()} others: {_counts(ours)}."
    return "\n".join([counts, "", *head, *rows]) + "\n"


def _counts(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{verdicts[name]} {name}" for name in get_args(Verdict))


def _experiment(found: Mapping[str, Any]) -> str:
    return f"[{found['experiment']}]({page_name(found)}.md)"


def page_name(found: Mapping[str, Any]) -> str:
    """Of a report's two files, without their endings; of a user's own recipe with the name of its file."""
    model = Path(found["model"]).name.removesuffix(".yaml")
    return found["experiment"] if model == "tiny" else f"{found['experiment']}-{model}"


def _claims(claims: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = ["| claim | compared | means | difference (95 %) | by seed | verdict |", "|---|---|---|---|---|---|"]
    for claim in claims:
        cells = ["-"] * 3
        if claim["difference"] is not None:
            scale, digits = scale_of(claim)
            means = (f"{scale * claim[side]:.{digits}f}" for side in ("value_more", "value_less"))
            each = ", ".join("-" if value is None else f"{scale * value:+.{digits}f}" for value in claim["by_seed"])
            cells = [" / ".join(means), _difference(claim), each]
        metric = "" if claim["metric"] == "avg" else f"{claim['metric']}: "
        compared = f"{metric}`{claim['more']}` - `{claim['less']}`"
        rows.append(f"| {claim['says']} | {compared} | {' | '.join(cells)} | **{claim['verdict']}** |")
    return rows


def _measured_seeds(claim: Mapping[str, Any]) -> int:
    return sum(value is not None for value in claim["by_seed"])


def scale_of(claim: Mapping[str, Any]) -> tuple[int, int]:
    """What to multiply with and how many digits to show: AVG@K in points, anything else in its own unit."""
    return (100, 1) if claim["metric"] == "avg" else (1, 4)


def _difference(claim: Mapping[str, Any]) -> str:
    if claim["difference"] is None:
        return "-"
    scale, digits = scale_of(claim)
    shown = f"{scale * claim['difference']:+.{digits}f}"
    if claim["interval"] is None:
        return f"{shown} (one seed)" if _measured_seeds(claim) == 1 else shown
    low, high = (scale * bound for bound in claim["interval"])
    if any(bound and abs(bound) < 0.5 * 10**-digits for bound in (low, high)):
        digits += 1  # +0.0 would not say on which side of zero it is
    return f"{shown} ({low:+.{digits}f} to {high:+.{digits}f})"


def _paper_rows(found: Mapping[str, Any]) -> list[str]:
    """Each row of the paper, the step that measures it, and what its counterpart in the twin has."""
    about = get_experiment(found["experiment"])
    averages = {entry["ref"]: _average(entry) for entry in found["checkpoints"]}
    rows = []
    for model, recipe in about.models.items():
        for label, row in about.rows.get(model, {}).items():
            reported = " / ".join("-" if value is None else f"{value:g}" for value in row.reported)
            steps = ", ".join(f"`{ref}`" for ref in row.ref)
            measured = averages.get(row.tiny, "-")
            cells = (model, label, reported, f"{steps} of `{recipe}`", f"`{row.tiny}`", measured)
            rows.append(f"| {' | '.join(cells)} |")
    head = f"| model | row of the paper | reported: {' / '.join(about.columns)} | measured by | in the twin | AVG@K |"
    said = ["The twin is one for all models.", ""] if len(about.rows) > 1 else []
    return [head, "|---|---|---|---|---|---|", *rows, "", *said] if rows else []


def _checkpoints(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [
        "| checkpoint | role | AVG@K (sd over seeds) | KL to base | entropy | tokens |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for entry in entries:
        cells = [_average(entry)]
        for metric, digits in (("kl_to_base", 4), ("entropy", 3), ("mean_length", 1)):
            values = [value for value in entry[metric] if value is not None]
            cells.append(f"{fmean(values):.{digits}f}" if values else "-")
        rows.append(f"| `{entry['ref']}` | {entry['role']} | {' | '.join(cells)} |")
    return rows


def _average(entry: Mapping[str, Any]) -> str:
    average = [100 * value for value in entry["avg"] if value is not None]
    spread = f" ({stdev(average):.1f})" if len(average) > 1 else ""
    return f"{fmean(average):.1f}{spread}" if average else "-"


def _artifacts(found: Mapping[str, Any]) -> list[str]:
    """Every artifact behind the numbers: step `r1/x` of run RUN is the repository RUN-r1-x, the value is its tag."""
    runs = found["runs"]
    rows = [f"| artifact | {' | '.join(f'`{run}`' for run in runs)} |", "|---" * (1 + len(runs)) + "|"]
    rows.append(f"| made on | {' | '.join(machine or '-' for machine in found['machines'])} |")
    for step, tags in found["fingerprints"].items():
        rows.append(f"| `{step}` | {' | '.join(f'`fp-{tag}`' if tag else '-' for tag in tags)} |")
    return rows
