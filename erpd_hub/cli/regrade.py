"""`regrade`: stored samples under other graders and harnesses, and where their verdicts differ."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from erpd_hub.cli.backends import Backends
from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json
from erpd_hub.plain import escape

if TYPE_CHECKING:
    from rich.table import Table

    from erpd_hub.evaluation.backends.environments import Harness
    from erpd_hub.evaluation.backends.opinions import GraderName

SHOWN = 20
"""Disagreements that are printed; --json has all."""

_LONGEST = 80


class GraderChoice(StrEnum):
    OURS = "ours"
    MATH_VERIFY = "math-verify"
    EXACT = "exact"
    EVALSCOPE = "evalscope"
    LIGHTEVAL = "lighteval"


def register(parent: typer.Typer) -> None:
    parent.command("regrade")(_regrade)


def _regrade(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF|FOLDER", help="Details: namespace/name/folder or namespace/name/folder@revision, or ./path."
        ),
    ],
    grader: Annotated[
        list[GraderChoice] | None,
        typer.Option(help="A grader to ask; again for more. Default: ours, math-verify, exact."),
    ] = None,
    backend: Backends = None,
    benchmark_file: Annotated[
        list[Path] | None, typer.Option(help="YAML with your own benchmark, where its details leave golds out.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Wall time of one sample in another harness.")] = 60.0,
    show: Annotated[int, typer.Option(min=0, help="Disagreements to print; --json has all.")] = SHOWN,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Grade stored samples again with other graders and list where they disagree. Writes nothing into the artifact."""
    from erpd_hub.evaluation.backends.opinions import opened
    from erpd_hub.evaluation.backends.second import second_opinions
    from erpd_hub.evaluation.backends.sources import open_details

    with stdout_for_json(as_json):
        stored = open_details(endpoint, reference, benchmark_files=tuple(benchmark_file or ()))
        default = () if stored.is_programs else (GraderChoice.OURS, GraderChoice.MATH_VERIFY, GraderChoice.EXACT)
        names = [cast("GraderName", choice.value) for choice in dict.fromkeys(grader or default)]
        backends = [cast("Harness", choice.value) for choice in dict.fromkeys(backend or ())]
        with opened([*names, *backends], seconds=seconds) as harnesses:
            report = second_opinions(stored, names, backends, harnesses=harnesses, seconds=seconds)
    if as_json:
        from erpd_hub.display import print_json

        print_json(report)
    else:
        print_report(report, show=show)


def print_report(report: dict[str, Any], *, title: str | None = None, show: int = SHOWN) -> None:
    """The scores side by side, then a line for each verdict that differs."""
    from rich.table import Table

    from erpd_hub.display import make_console

    console = make_console()
    counted = f"{report['n']} problems, {report['samples']} samples"
    scores = Table(title=escape(f"{title or report['benchmark']}: {counted}"), title_justify="left", box=None)
    for name in ("grader", "AVG@K", "± problems", "correct", "wrong", "no verdict", "differs", "why"):
        scores.add_column(name, justify="left" if name in ("grader", "why") else "right", no_wrap=True)
    for item in report["graders"]:
        _add(scores, item)
    for item in report["backends"]:
        scores.add_row(f"{item['version']}, its own run", _percent(item["avg"]), _percent(item["stderr"]), *("",) * 4,
                       _left_out(item))  # fmt: skip
    console.print(scores)
    _print_differences(console, report["disagreements"], show)


def _add(table: "Table", item: dict[str, Any]) -> None:
    causes = ", ".join(f"{count} {cause}" for cause, count in item["causes"].items())
    counts = [str(item[name]) for name in ("correct", "wrong", "no_verdict", "differs")]
    name = item["version"]
    if item["grader"] == "stored":
        name, counts[-1] = "as stored", ""
    table.add_row(name, _percent(item["avg"]), _percent(item["stderr"]), *counts, causes)


def _left_out(run: dict[str, Any]) -> str:
    """What a harness's own run could not be handed."""
    parts = {"left out": run["left_out"], "withheld": run["withheld"], "excluded": run.get("excluded", 0)}
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count)


def _print_differences(console: Any, disagreements: list[dict[str, Any]], show: int) -> None:
    from rich.table import Table

    from erpd_hub.evaluation.backends.regrade import CAUSES

    rows = [(item, difference) for item in disagreements for difference in item["differences"]]
    if not rows:
        console.print("every grader agrees with the stored verdict on every sample")
        return
    table = Table(title="\nwhere they differ from the stored verdict", title_justify="left", box=None)
    for name in (
        "problem",
        "sample",
        "gold",
        "our answer",
        "our verdict",
        "grader",
        "its answer",
        "its verdict",
        "why",
    ):
        table.add_column(name, no_wrap=True)
    for item, other in rows[:show]:
        texts = (_quoted(item["gold"]), _quoted(item["answer"]), escape(item["verdict"]))
        table.add_row(
            escape(item["problem_id"]), str(item["k"]), *texts, other["grader"], *_theirs(other), other["cause"]
        )
    if show:
        console.print(table)
    for cause in dict.fromkeys(other["cause"] for _, other in rows):
        console.print(f"{cause}: {CAUSES[cause]}", style="dim")
    if len(rows) > show:
        console.print(f"{len(rows) - show} more differences; --show N or --json has them", style="dim")


def _theirs(difference: dict[str, Any]) -> tuple[str, str]:
    """What it compared and what it said; why, where it said nothing."""
    verdict = {1: "correct", 0: "wrong", None: f"none: {difference['reason']}"}[difference["label"]]
    return _quoted(difference["answer"]), escape(verdict)


def _quoted(text: str | None) -> str:
    """Golds and answers are text from others: quoted, cut, on one line, and nothing but ASCII."""
    if text is None:
        return "none"
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return escape("'" + "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in cut) + "'")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
