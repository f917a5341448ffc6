"""An experiment's rows before anything has run: what is reported, the step of the recipe that measures it, and its
counterpart in the twin. It stands beside the bill."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from rich.table import Table

from erpd_hub.comparing.paper import get_experiment
from erpd_hub.display import make_console
from erpd_hub.plain import escape


def paper_rows(experiment: str, model: str) -> dict[str, Any]:
    """The rows of a model, or of all where it is that of a twin, with the experiment's notes and models.

    Raises:
        ConfigError: no such experiment.
    """
    about = get_experiment(experiment)
    shown = {model: about.rows.get(model, {})} if model in about.models else about.rows
    return {
        "experiment": experiment,
        "model": model,
        **about.model_dump(mode="json", include={"title", "claim", "models", "tiny", "columns", "notes"}),
        "rows": [
            {"model": name, "row": label, **row.model_dump(mode="json")}
            for name, rows in shown.items()
            for label, row in rows.items()
        ],
    }


def print_paper_rows(found: Mapping[str, Any]) -> None:
    """For people.

    Args:
        found: As `paper_rows` gives it.
    """
    console = make_console()
    console.print(f"\n[bold]{escape(found['title'])}[/bold]: {escape(found['claim'])}")
    if found["rows"]:
        table = Table("model", "row", *found["columns"], "step of the recipe", f"of {found['tiny']}", box=None)
        for row in found["rows"]:
            reported = ("-" if value is None else f"{value:g}" for value in row["reported"])
            cells = (row["model"], row["row"], *reported, " | ".join(row["ref"]), row["tiny"] or "-")
            table.add_row(*map(escape, cells))
        console.print(table)
    for note in found["notes"]:
        console.print(f"note: {escape(note)}")
    for model, recipe in found["models"].items():
        if model != found["model"]:
            console.print(f"{escape(recipe)}: erpd-hub reproduce {found['experiment']} --model {escape(quote(model))}")
