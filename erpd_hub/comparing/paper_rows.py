"""An experiment's rows before anything has run: what is reported, the step of the recipe that measures it, and its
counterpart in the twin. It stands beside the bill. And the part of a plan that some of the rows need."""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from rich.table import Table

from erpd_hub.comparing.paper import Experiment, get_experiment
from erpd_hub.config import EvaluateConfig, JudgeConfig, ProbeConfig
from erpd_hub.display import make_console
from erpd_hub.errors import ConfigError
from erpd_hub.plain import escape
from erpd_hub.plan import Plan
from erpd_hub.recipe_files import suggestion
from erpd_hub.summary import reference_of


def of_rows(plan: Plan, about: Experiment, model: str, rows: Sequence[str]) -> Plan:
    """The part of an experiment's plan that measures some of its rows: their checkpoints and all that these need.

    Args:
        model: One of the experiment's, or another name for that of its twin.
        rows: Names of rows; several of one name, of several models, are one in the twin.

    Raises:
        ConfigError: there is no such row.
    """
    known = twin_refs(about)
    if model in about.models:
        known = {label: set(row.ref) for label, row in about.rows.get(model, {}).items()}
    for label in rows:
        if label not in known:
            raise ConfigError(f"--row: {_unknown(about, label, list(known))}")
    refs = set().union(*(known[label] for label in rows))
    measuring = [node for node in plan.nodes if isinstance(node.config, EvaluateConfig | ProbeConfig)]
    wanted = {node.name for node in measuring if reference_of(plan, node) in refs}
    judges = [node for node in plan.nodes if isinstance(node.config, JudgeConfig)]
    return plan.only(wanted | {node.name for node in judges if any(edge.source in wanted for edge in node.inputs)})


def _unknown(about: Experiment, label: str, known: list[str]) -> str:
    others = [f"--model {quote(model)}" for model, rows in about.rows.items() if label in rows]
    if others:
        return f"{label!r} is a row of {' and of '.join(others)}"
    if not known:
        return f"expected none, since the paper gives no rows of it, got {label!r}; leave --row out"
    return f"expected a row of the paper ({', '.join(known)}), got {label!r}{suggestion(label, known)}"


def twin_refs(about: Experiment) -> dict[str, set[str]]:
    """The checkpoints of the twin that stand for each row, by its name; rows of one name of several models are one."""
    found: dict[str, set[str]] = {}
    for rows in about.rows.values():
        for label, row in rows.items():
            found.setdefault(label, set()).add(row.tiny)
    return found


def paper_rows(experiment: str, model: str, chosen: Sequence[str] = ()) -> dict[str, Any]:
    """The rows of a model, or of all where it is that of a twin, with the experiment's notes and models.

    Args:
        chosen: Names of rows, where not all are asked for; only models that have them are named then.

    Raises:
        ConfigError: no such experiment.
    """
    about = get_experiment(experiment)
    shown = {model: about.rows.get(model, {})} if model in about.models else about.rows
    return {
        "experiment": experiment,
        "model": model,
        "chosen": list(chosen),
        **about.model_dump(mode="json", include={"title", "claim", "tiny", "columns", "notes"}),
        "models": {
            name: recipe for name, recipe in about.models.items() if set(chosen) <= set(about.rows.get(name, {}))
        },
        "rows": [
            {"model": name, "row": label, **row.model_dump(mode="json")}
            for name, rows in shown.items()
            for label, row in rows.items()
            if label in chosen or not chosen
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
            cells = (row["model"], row["row"], *reported, " | ".join(row["ref"]), row["tiny"])
            table.add_row(*map(escape, cells))
        console.print(table)
    for note in found["notes"]:
        console.print(f"note: {escape(note)}")
    rows = "".join(f" --row {quote(label)}" for label in found["chosen"])
    for model, recipe in found["models"].items():
        if model != found["model"]:
            command = f"erpd-hub reproduce {found['experiment']} --model {quote(model)}{rows}"
            console.print(f"{escape(recipe)}: {escape(command)}")
