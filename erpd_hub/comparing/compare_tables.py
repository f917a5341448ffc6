"""The report of `compare` for people: tables on a terminal, or markdown for a document."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from erpd_hub.display import make_console
from erpd_hub.plain import escape, plain
from erpd_hub.score_table import percent

Report = Mapping[str, Any]

_LISTED = 5
"""Problems listed of a benchmark; the JSON has more."""


class _Columns(NamedTuple):
    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    rows: list[list[str]]


def print_report(report: Report) -> None:
    console = make_console()
    for columns in _tables(report):
        table = Table(box=None, header_style="bold", title=columns.title or None, title_justify="left")
        for name in columns.left:
            table.add_column(name, no_wrap=True)
        for name in columns.right:
            table.add_column(name, justify="right")
        for row in columns.rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
        console.print()
    for line in _lines(report):
        console.print(escape(line))


def markdown(report: Report) -> str:
    parts = []
    for columns in _tables(report):
        rule = "|" + "---|" * len(columns.left) + "--:|" * len(columns.right)
        rows = [_line([*columns.left, *columns.right]), rule, *(_line(row) for row in columns.rows)]
        parts.append(f"**{columns.title}**\n\n" + "\n".join(rows))
    notes = [f"- {_cell(line)}" for line in _lines(report)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _tables(report: Report) -> list[_Columns]:
    return [_scores(report), _differences(report), *_problems(report)]


def _scores(report: Report) -> _Columns:
    items = [item for side in report["sides"] for item in side["evaluations"]]
    other = _other_way(report) if any(item["judge"] for item in items) else None
    right = ("n", "K", "AVG@K %", *([other[0]] if other else []), "95 % interval", "± problems", "± samples", "pass@K",
             "maj@K", "length", "cut off", "no answer", "coverage")  # fmt: skip
    rows = []
    for side in report["sides"]:
        for item in side["evaluations"]:
            rows.append([
                side["name"], item["benchmark"], str(item["n"]), str(item["k"]),
                _marked(item, item["avg"], report["labels"] == "judge"),
                *([_marked(item, item[other[1]], other[1] == "avg_judged")] if other else []),
                _range(item["interval"]), percent(item["stderr"]), percent(item["stderr_sampling"]),
                percent(item["pass_at_k"]), percent(item["majority_at_k"]), _number(item["mean_length"], ".0f"),
                percent(item["truncated"]), percent(item["no_answer"]), percent(item["coverage"]),
            ])  # fmt: skip
    title = "scores" if other is None else f"scores {_whose(report)}"
    return _Columns(title, ("checkpoint", "benchmark"), right, rows)


def _other_way(report: Report) -> tuple[str, str]:
    """Title and key of the score that is not compared, where there are two."""
    return ("rule alone %", "avg_rule") if report["labels"] == "judge" else ("with judge %", "avg_judged")


def _whose(report: Report) -> str:
    return "with the judge" if report["labels"] == "judge" else "by the rule alone"


def _marked(item: Mapping[str, Any], score: float | None, judged: bool) -> str:
    """A score; ! where it is of a judge that takes injected answers for right."""
    return percent(score) + (" !" if judged and item["canaries_alarm"] else "")


def _differences(report: Report) -> _Columns:
    rows = []
    for pair in report["pairs"]:
        pooled = [{"benchmark": "mean of benchmarks", **pair["pooled"]}] if pair["pooled"] else []
        rows += [_difference(pair, item) for item in (*pair["benchmarks"], *pooled)]
    right = ("difference, points", "95 % interval", "within reach", "± problems", "p", "p (Holm)", "correlation",
             "problems")  # fmt: skip
    title = "paired differences" + (f" {_whose(report)}" if report["labels"] == "judge" else "")
    return _Columns(title, ("checkpoint", "against", "benchmark"), right, rows)


def _difference(pair: Mapping[str, Any], item: Mapping[str, Any]) -> list[str]:
    return [
        pair["checkpoint"], pair["against"], item["benchmark"], f"{100 * item['difference']:+.1f}",
        _range(item["interval"], signed=True), _range(item["within_reach"], signed=True), percent(item["stderr"]),
        _chance(item["p_two_sided"]), _chance(item["p_holm"]) if item["num_tests"] > 1 else "-",
        _number(item.get("correlation"), ".2f"), str(item["num_problems"]),
    ]  # fmt: skip


def _problems(report: Report) -> list[_Columns]:
    rows = [
        [pair["checkpoint"], pair["against"], item["benchmark"], found["problem_id"], percent(found["first"]),
         percent(found["second"]), f"{100 * found['difference']:+.1f}"]
        for pair in report["pairs"]
        for item in pair["benchmarks"]
        for found in item["problems"][:_LISTED]
    ]  # fmt: skip
    if not rows:
        return []
    left = ("checkpoint", "against", "benchmark", "problem")
    return [_Columns("problems that differ most", left, ("checkpoint %", "against %", "difference"), rows)]


def _lines(report: Report) -> list[str]:
    forced = [f"FORCED: {flag}" for flag in report["forced"]]
    about = (
        f"intervals: {report['interval_method']}, over problems like these, whatever their differences; within reach: "
        "if none differs by more than the largest seen and 1/sqrt(K); p: by flipping the signs of the problems' "
        "differences, whether the two are alike on these problems; p (Holm): adjusted within its family, the tests of "
        "single benchmarks or those of their means"
    )
    return [*forced, *report["notes"], about]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _chance(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _range(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    return "-" if bounds is None else f"{100 * bounds[0]:{form}} to {100 * bounds[1]:{form}}"
