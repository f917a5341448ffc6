"""What the paper reports, beside what a leaderboard has measured. Reported numbers are never rows and in no mean."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from erpd_hub.comparing.paper import Experiment, Row, experiments, get_experiment
from erpd_hub.errors import ErpdError
from erpd_hub.recipe import load_recipe
from erpd_hub.results.rows import Row as Measured

_OF_PROBE = {"kl_to_base": "kl_checkpoint_to_base", "entropy": "entropy"}
UNITS = {
    "kl_to_base": "nats a token",
    "entropy": "nats a token",
    "mean_length": "tokens",
    "hours": "hours",
    "aime_2024_length": "tokens",
}
"""Of columns; all others are percent."""


def reported(names: Sequence[str], rows: Iterable[Measured]) -> list[dict[str, Any]]:
    """One entry a number of the paper: `experiment`, `model`, `row`, `column`, `unit`, `reported`, and `measured` with
    the `run` and `checkpoint` it is of, null where this leaderboard has none.

    Args:
        names: Experiments; none for all.

    Raises:
        ConfigError: there is none of that name.
    """
    chosen = {name: get_experiment(name) for name in names} if names else experiments()
    board = list(rows)
    return [entry for name, experiment in chosen.items() for entry in _entries(name, experiment, board)]


def _entries(name: str, experiment: Experiment, board: list[Measured]) -> Iterator[dict[str, Any]]:
    for model in dict.fromkeys((*experiment.rows, *experiment.also)):
        run = _run(experiment.models.get(model))
        rows, also = experiment.rows.get(model, {}), experiment.also.get(model, {})
        for label in dict.fromkeys((*rows, *also)):
            row = rows.get(label)
            values = dict(zip(experiment.columns, row.reported, strict=True)) if row else {}
            for column, value in (values | also.get(label, {})).items():
                if value is not None:
                    found = _measured(row, column, run, board) if row else None
                    yield {
                        "experiment": name, "model": model, "row": label, "column": column,
                        "unit": UNITS.get(column, "percent"), "reported": value,
                        **(found or {"measured": None, "run": None, "checkpoint": None}),
                    }  # fmt: skip


def _run(recipe: str | None) -> str | None:
    """The name under which a recipe's run is published."""
    try:
        return load_recipe(recipe).run if recipe else None
    except ErpdError:
        return None


def _measured(row: Row, column: str, run: str | None, board: list[Measured]) -> dict[str, Any] | None:
    """The number of the first checkpoint in the row's order that the run has it of."""
    for ref in row.ref:
        found = [item for item in board if item["run"] == run and item["checkpoint"] in (ref, ref.removeprefix("r1/"))]
        for item in found:
            value = _value(item, column)
            if value is not None:
                return {"measured": value, "run": item["run"], "checkpoint": item["checkpoint"]}
    return None


def _value(item: Measured, column: str) -> float | None:
    if column in _OF_PROBE:
        return item[_OF_PROBE[column]]
    if item["benchmark"] != column or item["avg"] is None:
        return None
    return 100 * float(item["avg"])


def reported_tables(entries: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One table for each experiment: reported, and measured where there is something."""
    for name in dict.fromkeys(entry["experiment"] for entry in entries):
        mine = [entry for entry in entries if entry["experiment"] == name]
        found = {entry["column"] for entry in mine}
        columns = [c for c in get_experiment(name).columns if c in found]
        columns += sorted(found - set(columns))
        table = Table(title=f"{name}, as reported by the paper: {escape(get_experiment(name).title)}", box=None,
                      header_style="bold", title_justify="left")  # fmt: skip
        for heading in ("model", "row"):
            table.add_column(heading, no_wrap=True)
        for column in columns:
            unit = UNITS.get(column, "%")
            table.add_column(f"{column} ({unit})", justify="right", no_wrap=True)
        for model, label in dict.fromkeys((entry["model"], entry["row"]) for entry in mine):
            cells = {e["column"]: e for e in mine if (e["model"], e["row"]) == (model, label)}
            table.add_row(escape(model), escape(label), *(_cell(cells.get(column)) for column in columns))
        yield table


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return f"{entry['reported']:g}" + ("" if entry["measured"] is None else f" | {entry['measured']:.4g} measured")
