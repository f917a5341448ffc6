"""What `reproduce` found, as tables for people; nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from erpd_hub.comparing.claims import MIN_SEEDS
from erpd_hub.comparing.over_seeds import scale_of
from erpd_hub.display import make_console
from erpd_hub.plain import escape


def print_listing(items: Sequence[Mapping[str, Any]]) -> None:
    """Of experiments, as `reproduction.listing` gives them."""
    table = Table("experiment", "about", "recipe by model", "twin", box=None)
    for item in items:
        models = ", ".join(f"{model}: {recipe}" for model, recipe in item["models"].items())
        table.add_row(*map(escape, (item["experiment"], item["title"], models, item["tiny"])))
    make_console().print(table)


def print_report(found: Mapping[str, Any]) -> None:
    """Of one seed or several, as `reproduction.report` and `report_over_seeds` give it."""
    console = make_console()
    console.print(f"[bold]{escape(found['title'])}[/bold]: {escape(found['claim'])}")
    if found["rows"]:
        console.print(_rows_table(found["rows"]))
        console.print(f"each cell: measured (reported), ! where they disagree: {found['tolerance']}")
        console.print("* selected on: in no mean")
    elif found.get("twin"):
        console.print(_twin_table(found["twin"]))
    elif not found["claims"]:
        run = found["summary"]["run"]
        console.print(f"the paper gives no numbers of it; to draw it: erpd-hub plot {escape(run)} --output DIR")
    if found["claims"]:
        console.print(_claims_table(found["claims"]))
        console.print(
            f"Student's intervals of paired differences over {len(found['seeds'])} seeds; a verdict takes {MIN_SEEDS}"
            if "seeds" in found
            else "intervals are of this one seed: over problems and samples, not over trainings"
        )
    for note in found["notes"]:
        console.print(f"note: {escape(note)}")


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [f"{cell['column']}{'*' if cell['selection'] else ''}" for cell in rows[0]["cells"]]
    table = Table("row", "checkpoint", *columns, "mean", box=None)
    for row in rows:
        cells = [_cell_text(cell) for cell in row["cells"]]
        mean = "-" if row["measured_mean"] is None else f"{row['measured_mean']:.1f} ({row['reported_mean']:.1f})"
        table.add_row(escape(row["row"]), escape(row["ref"]), *cells, mean)
    return table


def _twin_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("row of the paper", "in the twin", "benchmark", "AVG@K", "KL to base", "entropy", "tokens", box=None)
    for row in rows:
        error = "" if row["stderr_sampling"] is None else f" ± {100 * row['stderr_sampling']:.1f}"
        numbers = ((row["kl_to_base"], 4), (row["entropy"], 3), (row["mean_length"], 1))
        shown = ("-" if value is None else f"{value:.{digits}f}" for value, digits in numbers)
        average = "-" if row["avg"] is None else f"{100 * row['avg']:.1f}{error}"
        table.add_row(*map(escape, (row["row"], row["ref"], row["benchmark"])), average, *shown)
    return table


def _cell_text(cell: Mapping[str, Any]) -> str:
    digits = 3 if cell["column"] in ("kl_to_base", "entropy") else 1
    texts = ["-" if cell[key] is None else f"{cell[key]:.{digits}f}" for key in ("measured", "reported")]
    return f"{texts[0]} ({texts[1]}){' !' if cell['agrees'] is False else ''}"


def _claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("claim", "compared", "difference", "95 %", "verdict", box=None)
    for claim in claims:
        compared = f"{claim['metric']}: {claim['more']} - {claim['less']}"
        scale, digits = scale_of(claim)
        difference = "-" if claim["difference"] is None else f"{scale * claim['difference']:+.{digits}f}"
        interval = claim["interval"]
        limits = "-" if interval is None else f"{scale * interval[0]:+.{digits}f} to {scale * interval[1]:+.{digits}f}"
        table.add_row(*map(escape, (claim["says"], compared, difference, limits, claim["verdict"])))
    return table
