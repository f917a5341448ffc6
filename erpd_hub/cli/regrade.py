"""`regrade`: stored samples under other graders. `backends`: the harnesses that some of those are from."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json

if TYPE_CHECKING:
    from rich.table import Table

    from erpd_hub.evaluation.backends.environments import Harness
    from erpd_hub.evaluation.backends.opinions import GraderName

app = typer.Typer(no_args_is_help=True, help="Other evaluation harnesses, each in an environment of its own.")


class GraderChoice(StrEnum):
    OURS = "ours"
    MATH_VERIFY = "math-verify"
    EXACT = "exact"
    EVALSCOPE = "evalscope"
    LIGHTEVAL = "lighteval"


class HarnessChoice(StrEnum):
    LIGHTEVAL = "lighteval"
    EVALSCOPE = "evalscope"


HarnessName = Annotated[HarnessChoice, typer.Argument(help="lighteval or evalscope.")]


def register(parent: typer.Typer) -> None:
    parent.command("regrade")(_regrade)
    parent.add_typer(app, name="backends")


def _regrade(
    reference: Annotated[
        str, typer.Argument(metavar="REF|FOLDER", help="Details: namespace/name/folder[@revision], or ./path.")
    ],
    grader: Annotated[
        list[GraderChoice] | None,
        typer.Option(help="A grader to ask; again for more. Default: ours, math-verify, exact."),
    ] = None,
    backend: Annotated[
        list[HarnessChoice] | None, typer.Option(help="Run this harness whole on the samples too, for its own AVG@K.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Wall time of one sample in another harness.")] = 60.0,
    show: Annotated[int, typer.Option(min=0, help="Disagreements to print; --json has all.")] = 20,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Grade stored samples again with other graders and list where they disagree. Writes nothing into the artifact."""
    from erpd_hub.evaluation.backends.regrade import regrade
    from erpd_hub.evaluation.backends.sources import open_details

    with stdout_for_json(as_json):
        stored = open_details(endpoint, reference)
        names = [
            cast("GraderName", choice.value)
            for choice in grader or (GraderChoice.OURS, GraderChoice.MATH_VERIFY, GraderChoice.EXACT)
        ]
        result = regrade(stored.rows(), list(dict.fromkeys(names)), extract=stored.extract, seconds=seconds)
        report: dict[str, Any] = {"benchmark": stored.name, "fingerprint": stored.fingerprint, **result.report()}
        report["backends"] = [_run_backend(stored, choice.value, seconds) for choice in backend or ()]
    if as_json:
        from erpd_hub.display import print_json

        print_json(report)
        return
    _print(report, show)


def _run_backend(stored: Any, harness: Any, seconds: float) -> dict[str, Any]:
    from erpd_hub.evaluation.backends.replay import run_backend

    return run_backend(harness, stored, seconds=seconds)


def _print(report: dict[str, Any], show: int) -> None:
    from rich.table import Table

    from erpd_hub.display import make_console

    console = make_console()
    table = Table(
        title=f"{report['benchmark']}: {report['n']} problems, {report['samples']} samples", title_justify="left"
    )
    for name in ("grader", "AVG@K", "± problems", "correct", "wrong", "no verdict", "differs", "why"):
        table.add_column(name, justify="left" if name in ("grader", "why") else "right")
    for item in report["graders"]:
        _add(table, item)
    for item in report["backends"]:
        table.add_row(f"{item['version']}, its own run", _percent(item["avg"]), _percent(item["stderr"]), *("",) * 5)
    console.print(table)
    for item in report["disagreements"][:show]:
        console.print(_line(item), markup=False, highlight=False)
    if (left := len(report["disagreements"]) - show) > 0:
        console.print(f"{left} more disagreements; --show N or --json has them", style="dim")


def _add(table: "Table", item: dict[str, Any]) -> None:
    causes = ", ".join(f"{count} {cause}" for cause, count in item["causes"].items())
    counts = [str(item[name]) for name in ("correct", "wrong", "no_verdict", "differs")]
    name = "stored" if item["grader"] == "stored" else item["version"]
    table.add_row(name, _percent(item["avg"]), _percent(item["stderr"]), *counts, causes)


def _line(item: dict[str, Any]) -> str:
    """One disagreement; golds and answers are quoted, since they are text from others."""
    compared = f"gold {_quoted(item['gold'])}, answer {_quoted(item['answer'])}"
    others = [f"{d['grader']} {_verdict(d)} ({d['cause']})" for d in item["differences"]]
    return f"{item['problem_id']}#{item['k']}: {compared}: {item['verdict']}; {'; '.join(others)}"


def _verdict(difference: dict[str, Any]) -> str:
    word = {1: "correct", 0: "wrong", None: f"no verdict, {difference['reason']}"}[difference["label"]]
    return word if difference["answer"] is None else f"{word} for {_quoted(difference['answer'])}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "none"
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


@app.command("list")
def list_backends() -> None:
    """The harnesses with their pinned versions, and whether they are built here."""
    from erpd_hub.evaluation.backends.environments import HARNESSES, find_python, pinned_version

    for harness in HARNESSES:
        state = "built" if find_python(harness) else f"not built: erpd-hub backends build {harness}"
        typer.echo(f"{harness} {pinned_version(harness)}: {state}")


@app.command()
def build(harness: HarnessName) -> None:
    """Make a harness's environment from its pins, under ERPD_HOME: some minutes, about 2 GB."""
    from erpd_hub.evaluation.backends.environments import build as build_environment

    build_environment(cast("Harness", harness.value), note=lambda line: print(line, file=sys.stderr))


@app.command()
def tasks(
    output: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    benchmark: Annotated[list[str], typer.Option(help="A registered benchmark; again for more.")],
    endpoint: Endpoint = "local",
) -> None:
    """Write benchmarks as a custom-tasks file for lighteval, with their problems beside it."""
    from erpd_hub.evaluation.backends.tasks import write_tasks

    names = write_tasks(endpoint, benchmark, output)
    typer.echo(f"lighteval ... '{','.join(f'{name}|0' for name in names)}' --custom-tasks {output}/lighteval_tasks.py")


@app.command()
def run(
    output: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="A registered benchmark.")],
    model: Annotated[str, typer.Option(help="The model's name at its server.")],
    url: Annotated[str, typer.Option(help="Base URL ending in /v1; its key in ERPD_SERVER_KEY.")],
    k: Annotated[
        int | None, typer.Option("--k", "-k", min=1, help="Samples a problem; default: the benchmark's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first problems.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Have evalscope sample and grade a benchmark of ours from a server; its samples become a details folder."""
    from erpd_hub.evaluation.backends.live import Server, run_evalscope

    with stdout_for_json(as_json):
        report = run_evalscope(Server(model, url, concurrency), benchmark, output, endpoint=endpoint, k=k, limit=limit)
    if as_json:
        from erpd_hub.display import print_json

        print_json(report)
        return
    typer.echo(f"{report['version']}: {_percent(report['avg'])} on {report['samples']} samples, in {output}/details")


@app.command("import")
def import_samples(
    harness: HarnessName,
    source: Annotated[Path, typer.Argument(help="Its output folder, or one of lighteval's details files.")],
    output: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    benchmark: Annotated[str, typer.Option(help="Which benchmark the samples are of.")],
    tool_version: Annotated[str, typer.Option(help="The version that wrote them.")] = "unknown",
) -> None:
    """Bring in the samples of another harness as a details folder, ungraded by us until `regrade`."""
    from erpd_hub.evaluation.backends.imports import import_details

    count = import_details(
        cast("Harness", harness.value), source, output, benchmark=benchmark, tool_version=tool_version
    )
    typer.echo(f"{count} samples in {output}; `erpd-hub regrade` grades them")
