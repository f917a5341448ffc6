"""The table of an evaluation by itself, and the notes under any table of scores: what to know before believing one."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.table import Table

from erpd_hub.plain import escape


def score_table(rows: list[dict[str, Any]]) -> Table:
    """One line a checkpoint and benchmark; scores, errors and shares in percent, lengths in tokens."""
    judged = any(row["judge"] for row in rows)
    table = Table(box=None, header_style="bold")
    for name in ("checkpoint", "benchmark"):
        table.add_column(name, no_wrap=True)
    scores = ("AVG@K %", "± s.e.", "95 % interval", *(("judged %", "± s.e.") if judged else ()))
    for name in (*scores, "length", "truncated", "no answer", "coverage"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("details", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{escape(row['ref'])}{'' if row['pinned'] else ' (unpinned)'}",
            f"{row['benchmark']} K={row['k']}{' *' if row['selection'] else ''}",
            percent(row["avg"]),
            percent(row["stderr"]),
            _interval(row["interval"]),
            *(judged_cells(row) if judged else ()),
            "-" if row["mean_length"] is None else f"{row['mean_length']:.1f}",
            percent(row["truncated"]),
            percent(row["no_answer"]),
            coverage_cell(row),
            escape(row["details"]),
        )
    return table


def judged_cells(row: dict[str, Any]) -> tuple[str, str]:
    """The score with the judge and its error, marked where the judge takes injected answers for right."""
    score = percent(row["avg_judged"])
    return f"[bold red]! {score}[/bold red]" if row["canaries_alarm"] else score, percent(row["stderr_judged"])


def coverage_cell(row: dict[str, Any]) -> str:
    """Share of the n * K samples that could be graded, marked where it is not all of them."""
    coverage = row["coverage"]
    whole = coverage is None or (coverage >= 1 and row["equal_k"])
    return percent(coverage) if whole else f"[bold red]! {percent(coverage)}[/bold red]"


def score_notes(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for everything that makes a score less than it seems."""
    for row in rows:
        place = f"{escape(row['ref'])} on {row['benchmark']}"
        if not row["pinned"]:
            yield f"{place}: unpinned, an endpoint may answer otherwise tomorrow; no weights are behind this score"
        if row["coverage"] is not None and row["coverage"] < 1:
            errors = f", {row['errors']} failed and the same command tries them again" if row["errors"] else ""
            yield f"{place}: {row['coverage']:.1%} of the samples are graded{errors}; the rest is in no mean"
        if not row["equal_k"]:
            yield f"{place}: problems have unequal numbers of graded samples, so the means of some rest on fewer"
        if row["cut_short"]:
            yield f"{place}: the server ended {row['cut_short']} samples by a limit of its own, below the one asked for"
        if row["taken_over_otherwise"]:
            yield f"{place}: {row['taken_over']} samples are from earlier and were made otherwise: {_words(row)}"
        if row["taken_over"] and not row["pinned"]:
            yield f"{place}: {row['taken_over']} samples are from earlier, when another model may have had that name"
        repeats = f"{place}: {row['duplicates']} samples repeat another of their problem"
        if row["seeds_ignored"]:
            yield f"{repeats}: whatever drew them ignores seeds, so K and the errors are less than they seem"
        elif row["duplicates"] and row["temperature"] == 0:
            yield f"{repeats}, as temperature 0 makes them: K=1 says the same"


def _words(row: dict[str, Any]) -> str:
    """As the record says it, and fit for a line."""
    return escape(json.dumps(row["taken_over_otherwise"], sort_keys=True))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
