"""`backends`: other harnesses, their environments, and what goes to them and comes back."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json

if TYPE_CHECKING:
    from erpd_hub.evaluation.backends.environments import Harness

app = typer.Typer(no_args_is_help=True, help="Other evaluation harnesses, each in an environment of its own.")


class HarnessChoice(StrEnum):
    LIGHTEVAL = "lighteval"
    EVALSCOPE = "evalscope"


HarnessName = Annotated[HarnessChoice, typer.Argument(help="lighteval or evalscope.")]
Backends = Annotated[
    list[HarnessChoice] | None,
    typer.Option("--backend", help="Run this harness whole on the samples too, for its own AVG@K; again for more."),
]


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
    typer.echo(f"{report['version']}: {100 * report['avg']:.2f} on {report['samples']} samples, in {output}/details")


@app.command("import")
def import_samples(
    harness: HarnessName,
    source: Annotated[Path, typer.Argument(help="Its output folder, or one of lighteval's details files.")],
    output: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    benchmark: Annotated[str, typer.Option(help="Which benchmark the samples are of.")],
    tool_version: Annotated[str, typer.Option(help="The version that wrote them.")] = "unknown",
    thinking: Annotated[
        bool, typer.Option("--thinking", help="The prompts opened a think block: without </think> there is no answer.")
    ] = False,
) -> None:
    """Bring in the samples of another harness as a details folder, ungraded by us until `regrade`."""
    from erpd_hub.evaluation.backends.imports import import_details

    name = cast("Harness", harness.value)
    count = import_details(name, source, output, benchmark=benchmark, tool_version=tool_version, thinking=thinking)
    typer.echo(f"{count} samples in {output}; `erpd-hub regrade` grades them")
