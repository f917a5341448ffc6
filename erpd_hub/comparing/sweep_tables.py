"""The table of a sweep for people: points by checkpoints, and a matrix where two keys vary."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from erpd_hub.display import make_console
from erpd_hub.plain import escape
from erpd_hub.tables import print_preview

if TYPE_CHECKING:
    from erpd_hub.comparing.sweep_run import SweepOutcome

Json = Mapping[str, Any]


def print_sweep(outcome: "SweepOutcome") -> None:
    """Everything at the end of a sweep."""
    console = _console()
    report = outcome.report
    print_rows(console, report)
    print_matrices(console, report)
    print_problems(console, report)
    console.print(
        f"\n{len(report['points'])} points x {len(report['seeds'])} seeds, {len(report['artifacts'])} artifacts on "
        f"{outcome.endpoint}: {report['made']} made, {report['reused']} reused; {report['seconds']:.1f} s"
    )
    for label, place in (("picture", outcome.picture), ("report", outcome.report_path)):
        if place:
            console.print(f"{label}: {place}")


def _console() -> Console:
    """A terminal folds what is too wide for it; a file gets every figure whole."""
    console = make_console()
    if not console.is_terminal:
        console.width = 400
    return console


def print_sweep_preview(report: dict[str, Any]) -> None:
    """What a sweep would do: its points and the runs they are, then its artifacts and the bill, each artifact once."""
    console = make_console()
    table = Table(box=None, header_style="bold")
    for name in ("point", "runs"):
        table.add_column(name, no_wrap=True)
    for point in report["points"]:
        settings = ", ".join(f"{key}={_text(value)}" for key, value in point["settings"].items())
        table.add_row(escape(settings or "the recipe"), " ".join(point["runs"].values()))
    console.print(table)
    print_problems(console, report | {"failures": []})
    print_preview(report)


def print_rows(console: Console, report: Json) -> None:
    """AVG@K in percent; its error is over seeds where there are several, else over problems."""
    keys = _shown_keys(report)
    table = Table(box=None, header_style="bold")
    for name in ("checkpoint", "role", "benchmark", *keys):
        table.add_column(name, no_wrap=not console.is_terminal)
    labels = list(dict.fromkeys(item["to"] for row in report["rows"] for item in row["differences"]))
    several = len(report["seeds"]) > 1
    numbers = ("AVG@K %", "± s.e.", "KL to base", "entropy", "length", *(f"vs {label}" for label in labels))
    for name in (*numbers, *(("seed by seed",) if several else ())):
        table.add_column(name, justify="right", no_wrap=not console.is_terminal)
    for row in report["rows"]:
        settings = (_text(row["settings"][key]) if key in row["settings"] else "any" for key in keys)
        found = {item["to"]: _difference(item) for item in row["differences"]}
        table.add_row(
            *map(escape, (row["checkpoint"], row["role"], f"{row['benchmark']} K={row['k']}", *settings)),
            _number(row["avg"], 1, 100),
            _number(row["stderr"], 1, 100),
            _number(row["kl_to_base"], 4),
            _number(row["entropy"], 3),
            _number(row["mean_length"], 1),
            *(found.get(label, "") for label in labels),
            *((" ".join(_number(item["avg"], 1, 100) for item in row["seeds"]),) if several else ()),
        )
    console.print(table)
    if several:
        seeds = ", ".join(map(str, report["seeds"]))
        console.print(
            f"means over seeds {seeds}; differences (vs) go seed by seed, with Student's 95 % interval over seeds"
        )


def print_matrices(console: Console, report: Json) -> None:
    """One matrix a checkpoint where two keys vary: AVG@K in percent and KL to base."""
    keys = _shown_keys(report)
    if len(keys) != 2:
        return
    cells: dict[tuple[str, str], dict[tuple[str, str], Json]] = {}
    for row in report["rows"]:
        if all(key in row["settings"] for key in keys):
            place = (_text(row["settings"][keys[0]]), _text(row["settings"][keys[1]]))
            cells.setdefault((row["checkpoint"], row["benchmark"]), {})[place] = row
    for (checkpoint, benchmark), found in cells.items():
        columns = list(dict.fromkeys(column for _, column in found))
        table = Table(box=None, header_style="bold", title=f"{checkpoint} on {benchmark}: AVG@K % @ KL",
                      title_justify="left", title_style="bold")  # fmt: skip
        table.add_column(f"{keys[0]} \\ {keys[1]}", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for line in dict.fromkeys(line for line, _ in found):
            shown = (_cell(found.get((line, column))) for column in columns)
            table.add_row(escape(line), *shown)
        console.print()
        console.print(table)


def print_problems(console: Console, report: Json) -> None:
    """What a sweep left out, each with its reason."""
    for item in report["refused"]:
        at = ", ".join(f"{key}={_text(value)}" for key, value in item["settings"].items())
        console.print(f"left out: {escape(at)}: {escape(item['reason'])}")
    for item in report["failures"]:
        console.print(f"[red]FAILED[/red]  {escape(item['step'])}: {escape(item['reason'])}")


def print_checks(checks: Iterable[Json]) -> None:
    """Claims that were fixed beforehand, with their margin at each seed."""
    console = make_console()
    for check in checks:
        values = ", ".join("no value" if value is None else f"{value:+.3f}" for value in check["values"])
        console.print(f"{'holds' if check['holds'] else 'FAILS':>6}  {check['claim']}: {values}")


def _shown_keys(report: Json) -> list[str]:
    """Keys that differ between points."""
    points = [point["settings"] for point in report["points"]]
    return [key for key in report["keys"] if len({_text(point.get(key)) for point in points}) > 1]


def _difference(item: Json) -> str:
    text = f"{100 * item['mean']:+.1f}"
    return text if item["low"] is None else f"{text} [{100 * item['low']:+.1f}, {100 * item['high']:+.1f}]"


def _cell(row: Json | None) -> str:
    if row is None:
        return ""
    error = "" if row["stderr"] is None else f" ± {100 * row['stderr']:.1f}"
    return f"{_number(row['avg'], 1, 100)}{error} @ {_number(row['kl_to_base'], 4)}"


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _number(value: float | None, digits: int, scale: float = 1) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"
