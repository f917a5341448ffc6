"""`plot`: the paper's figures of a run."""

from pathlib import Path
from typing import Annotated

import typer

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json


def register(app: typer.Typer) -> None:
    app.command()(plot)


def plot(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run of this machine.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder that the figures go into.")],
    format: Annotated[str, typer.Option(help="png, svg or both.")] = "png,svg",
    figures: Annotated[
        str | None, typer.Option(metavar="2b,4,...", help="Only these, by number; default all that there is data for.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Scores on this one; default the one with most checkpoints.")
    ] = None,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Figures 2b, 4, 5, 6, 7, 8 and 10 of the paper for a run, with captions; says of the others why there is none."""
    from erpd_hub.display import print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.plotting.figures import CAPTIONS, chosen, formats, write_figures
    from erpd_hub.plotting.reading import read_run

    names, kinds = chosen(figures), formats(format)
    with stdout_for_json(as_json):
        report = write_figures(read_run(connect(endpoint), run, benchmark=benchmark), output, kinds=kinds, names=names)
    if as_json:
        print_json(report)
        return
    for item in report["figures"]:
        typer.echo(f"{item['title']}: {', '.join(str(output / name) for name in item['files'])}")
        for why in item["missing"]:
            typer.echo(f"  missing: {why}")
    for item in report["skipped"]:
        typer.echo(f"Fig. {item['figure']}: skipped, {item['why']}")
    typer.echo(f"captions: {output / CAPTIONS}")
