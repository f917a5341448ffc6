"""What the paper reports, beside what a leaderboard has measured. Reported numbers are never rows and in no mean."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from erpd_hub.comparing.paper import LENGTH, Experiment, Row, experiments, get_experiment
from erpd_hub.config import EvaluateConfig
from erpd_hub.errors import ErpdError
from erpd_hub.evaluation.benchmarks import BENCHMARKS, get_benchmark
from erpd_hub.evaluation.caveats import caveats
from erpd_hub.plain import escape
from erpd_hub.recipe import load_recipe
from erpd_hub.recipe_model import Recipe
from erpd_hub.results.rows import Row as Measured

_OF_PROBE = {"kl_to_base": "kl_checkpoint_to_base", "entropy": "entropy"}
UNITS = {
    "kl_to_base": "nats a token",
    "entropy": "nats a token",
    "hours": "hours",
}
"""Of columns; lengths are tokens, all others percent."""


def reported(names: Sequence[str], rows: Iterable[Measured]) -> list[dict[str, Any]]:
    """One entry a number of the paper: `experiment`, `model`, `row`, `column`, `unit`, `reported`, and `measured` with
    the `run` and `checkpoint` it is of, its `n` and `k`, and in `differs` what was not done as the recipe says; null
    where this leaderboard has none. What was measured as the recipe says goes first.

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
        recipe = _recipe(experiment.models.get(model))
        rows, also = experiment.rows.get(model, {}), experiment.also.get(model, {})
        for label in dict.fromkeys((*rows, *also)):
            row = rows.get(label)
            values = dict(zip(experiment.columns, row.reported, strict=True)) if row else {}
            for column, value in (values | also.get(label, {})).items():
                if value is not None:
                    found = _measured(row, column, recipe, board) if row and recipe else None
                    yield {
                        "experiment": name, "model": model, "row": label, "column": column,
                        "unit": _unit(column) or "percent", "reported": value,
                        **(found or dict.fromkeys(("measured", "run", "checkpoint", "n", "k", "differs"))),
                    }  # fmt: skip


def _recipe(name: str | None) -> Recipe | None:
    """The recipe whose run measures a model's rows."""
    try:
        return load_recipe(name) if name else None
    except ErpdError:
        return None


def _measured(row: Row, column: str, recipe: Recipe, board: list[Measured]) -> dict[str, Any] | None:
    """The number of the first checkpoint in the row's order that the run has it of as the recipe says; without any, of
    the first that it has otherwise."""
    found = []
    for ref in row.ref:
        for item in board:
            value = _value(item, column)
            here = item["run"] == recipe.run and item["checkpoint"] == ref
            if here and value is not None:
                entry = {"measured": value, "run": item["run"], "checkpoint": item["checkpoint"]}
                of_probe = column in _OF_PROBE
                told = {"n": None, "k": None} if of_probe else {"n": item["n"], "k": item["k"]}
                found.append({**entry, **told, "differs": [] if of_probe else list(_differences(item, recipe))})
    return min(found, key=lambda entry: bool(entry["differs"]), default=None)


def _differences(item: Measured, recipe: Recipe) -> Iterator[str]:
    """What of a measured row is not as the recipe has it."""
    expected = _expected(item["benchmark"], recipe)
    for name, value in expected.items():
        if item.get(name) != value:
            yield f"{name} {_text(item.get(name))}, not {_text(value)}"
    if (item["coverage"] or 0) < 1:
        yield f"{100 * (item['coverage'] or 0):.1f} % of the samples graded"
    if item.get("problems_state") == "other":
        yield "problems other than registered"
    if item["selection"]:
        yield "selected on this benchmark"
    yield from caveats(item)


def _expected(name: str, recipe: Recipe) -> dict[str, Any]:
    """K, decoding and limits of a benchmark: of the recipe's evaluation on it, otherwise the benchmark's own."""
    steps = [step for part in recipe.rounds for step in part.steps.values() if isinstance(step, EvaluateConfig)]
    step = next((step for step in steps if name in step.benchmarks), None)
    registered = BENCHMARKS.get(name)
    try:
        benchmark = get_benchmark(name, step.definitions) if step else registered
    except ErpdError:
        benchmark = registered
    if benchmark is None:
        return {}
    decoding = benchmark.decoding.changed(step.decoding if step else None)
    return {
        "k": (step.k if step else None) or benchmark.k,
        "limit": step.limit if step else None,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_new_tokens": (step.extend_to if step else None) or decoding.max_new_tokens,
        **({"max_sequence_tokens": step.max_sequence_tokens} if step else {}),
    }


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}"


def _unit(column: str) -> str | None:
    """None for percent."""
    return "tokens" if column.endswith(LENGTH) else UNITS.get(column)


def _value(item: Measured, column: str) -> float | None:
    if column in _OF_PROBE:
        return item[_OF_PROBE[column]]
    if column.endswith(LENGTH):
        return item["mean_length"] if item["benchmark"] == column.removesuffix(LENGTH) else None
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
            unit = _unit(column) or "%"
            table.add_column(f"{column} ({unit})", justify="right", no_wrap=True)
        for model, label in dict.fromkeys((entry["model"], entry["row"]) for entry in mine):
            cells = {e["column"]: e for e in mine if (e["model"], e["row"]) == (model, label)}
            table.add_row(escape(model), escape(label), *(_cell(cells.get(column)) for column in columns))
        yield table


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    if entry["measured"] is None:
        return f"{entry['reported']:g}"
    over = "" if entry["n"] is None else f" (n {entry['n']}, K {entry['k']})"
    return f"{entry['reported']:g} | {'! ' if entry['differs'] else ''}{entry['measured']:.4g} measured{over}"


def reported_notes(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What is not as the recipe says in the numbers that are marked."""
    for entry in entries:
        if entry["differs"]:
            place = f"{entry['experiment']}, {entry['row']}, {entry['column']} ({entry['checkpoint']})"
            yield escape(f"! {place}: not under the recipe's settings: {'; '.join(entry['differs'])}")
