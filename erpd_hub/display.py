"""Tables, trees and progress for people (stderr while it works, stdout for what was asked), JSON for programs."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from erpd_hub.checkpoint_role import role_of
from erpd_hub.plain import escape
from erpd_hub.score_table import coverage_cell, judged_cells, score_notes, score_table

if TYPE_CHECKING:
    from erpd_hub.finished import Finished
    from erpd_hub.lineage import Finding
    from erpd_hub.nodes import Node, Plan
    from erpd_hub.pipeline import Outcome


WIDTH = 220
"""Columns of a table that goes into a file or a pipe, where nothing should be cut off."""


def make_console() -> Console:
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def print_json(data: Any) -> None:
    json.dump(data, sys.stdout, indent=2)
    sys.stdout.write("\n")


class ProgressWatch:
    """One line on stderr for every artifact, when it is there."""

    def __init__(self, plan: "Plan") -> None:
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.width = max(len(node.name) for node in plan.nodes)
        self.reused = 0

    def begin(self, node: "Node") -> None:
        if self.console.is_terminal:
            self.console.print(f"[dim]  {escape(node.name)} ...[/dim]", end="\r")

    def end(self, finished: "Finished") -> None:
        how = "reused" if finished.reused else f"{finished.seconds:6.1f} s"
        place = finished.record.repo_id + (f"/{finished.record.folder}" if finished.record.folder else "")
        name = f"{finished.node.name:<{self.width}}"
        self.console.print(f"  {escape(name)}  {how:>8}  {escape(place)}@{finished.revision[:10]}")


# ------------------------------------------------------------------------------------------- outcome


def print_outcome(outcome: "Outcome") -> None:
    console = make_console()
    if outcome.summary["checkpoints"]:
        rows = outcome.summary["checkpoints"]
        probed = any(row["kl_to_base"] is not None for row in rows)
        console.print(checkpoint_table(rows) if probed else score_table(rows))
        if any(row["selection"] for row in outcome.summary["checkpoints"]):
            console.print("* a gate or a selection of this run decided on it: biased, and in no mean over benchmarks")
        for line in score_notes(rows):
            console.print(line)
        for line in judge_notes(outcome.summary["checkpoints"]):
            console.print(line)
    made = sum(not item.reused for item in outcome.finished)
    console.print(
        f"\n{len(outcome.finished)} artifacts on {outcome.endpoint}: {made} made, "
        f"{len(outcome.finished) - made} reused; "
        f"{outcome.summary['seconds']:.1f} s"
    )
    for label, place in (
        ("leaderboard", outcome.leaderboard),
        ("picture", outcome.picture),
        ("summary", outcome.summary_path),
    ):
        if place:
            console.print(f"{label}: {place}")
    if outcome.finished:
        console.print(f"lineage: erpd-hub lineage {_example_reference(outcome)}")


def _example_reference(outcome: "Outcome") -> str:
    distilled = [item for item in outcome.finished if item.node.config.stage == "distill"]
    students = [item for item in distilled if role_of(item.record) == "student"]
    return (students or outcome.finished)[-1].record.repo_id


def checkpoint_table(rows: list[dict[str, Any]]) -> Table:
    """One line a checkpoint; AVG@K and its standard error in percent."""
    table = Table(box=None, header_style="bold")
    for name in ("checkpoint", "role", "benchmark"):
        table.add_column(name, no_wrap=True)
    judged = any(row["judge"] for row in rows)
    columns = ("AVG@K %", "± s.e.", *(("judged %", "± s.e.") if judged else ()), "KL to base", "entropy", "length")
    for name in (*columns, "truncated"):
        table.add_column(name, justify="right")
    table.add_column("artifact", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row["ref"]),
            row["role"],
            f"{row['benchmark']} K={row['k']}{' *' if row['selection'] else ''}",
            _number(row["avg"], 1, 100) + ("" if (row["coverage"] or 0) >= 1 else f" ({coverage_cell(row)} graded)"),
            _number(row["stderr"], 1, 100),
            *(judged_cells(row) if judged else ()),
            _number(row["kl_to_base"], 4),
            _number(row["entropy"], 3),
            _number(row["mean_length"], 1),
            _number(row["truncated"], 1, 100, "%"),
            f"{escape(row['repo'])}@{row['revision'][:10]}" if row["pinned"] else "unpinned",
        )
    return table


def judge_notes(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for every judge: what share of the samples is right by its word alone, and how it took canaries."""
    by_judge: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["judge"]:
            by_judge.setdefault(row["judge"], []).append(row)
    for judge, judged in by_judge.items():
        name, unjudged = escape(judge), sum(row["judge_unjudged"] for row in judged)
        yield (
            f"judge {name}: right by its word alone {_between(judged, 'judge_share', '.1%')} of samples; injected "
            f"answers accepted {_between(judged, 'canary_acceptance', '.1%')}; kappa with the rule "
            f"{_between(judged, 'judge_kappa', '.2f')}" + (f"; {unjudged} samples unjudged" if unjudged else "")
        )
        if any(row["canaries_alarm"] for row in judged):
            said = dict.fromkeys(row["canaries_problem"] for row in judged if row["canaries_problem"])
            why = "; ".join(said) or "it takes injected wrong answers for right"
            yield f"[bold red]! {name}: {escape(why)}: judged % cannot be trusted[/bold red]"


def _between(rows: Iterable[dict[str, Any]], name: str, form: str) -> str:
    """A figure of several rows: one number, or the least and the most."""
    ends = sorted({format(row[name], form): row[name] for row in rows if row[name] is not None}.items(), key=_value)
    return " to ".join(text for text, _ in (ends if len(ends) < 2 else (ends[0], ends[-1]))) or "-"


def _value(item: tuple[str, float]) -> float:
    return item[1]


def _number(value: float | None, digits: int, scale: float = 1, unit: str = "") -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}{unit}"


# -------------------------------------------------------------------------------------------- lineage


def print_differences(first: str, second: str, found: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
    """What two artifacts were made of differently, a line for each key, or that there is nothing."""
    console = make_console()
    if not found:
        console.print("no difference in stage, recipe, inputs, code, environment and result")
        return
    table = Table("", "", escape(first), escape(second), box=None)
    for section, keys in found.items():
        for number, (key, values) in enumerate(keys.items()):
            shown = (escape(f"{value:.6g}" if isinstance(value, float) else value) for value in values)
            table.add_row(section if number == 0 else "", escape(key), *shown)
    console.print(table)


def print_findings(findings: Iterable["Finding"]) -> bool:
    """Print each finding as it comes; returns whether any artifact is missing or altered."""
    console = make_console()
    counts = {"ok": 0, "MISSING": 0, "ALTERED": 0}
    for finding in findings:
        word = "MISSING" if finding.missing else "ALTERED" if finding.problems else "ok"
        counts[word] += 1
        note = f"  [dim]{escape(finding.note)}[/dim]" if finding.note else ""
        console.print(f"[{'green' if word == 'ok' else 'red'}]{word:<7}[/]  {escape(finding.place)}{note}")
        for problem in finding.problems:
            console.print(f"         {escape(problem)}")
    bad = counts["MISSING"] + counts["ALTERED"]
    parts = f" ({counts['MISSING']} missing, {counts['ALTERED']} altered)" if bad else ""
    console.print(f"\n{sum(counts.values())} checked, {bad} missing or altered{parts}")
    return bad > 0
