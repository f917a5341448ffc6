"""`reproduce`: an experiment of the paper, its bill first, then measured beside reported; or its tiny twin.
`advise`: a finished run on one page."""

from typing import Annotated, Any

import typer

from erpd_hub.cli.options import AsJson, DryRun, Endpoint, Gpus, stdout_for_json


def register(app: typer.Typer) -> None:
    app.command()(reproduce)
    app.command()(advise)


def reproduce(
    experiment: Annotated[str | None, typer.Argument(help="table1 to table12, fig2b, fig4 to fig10.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    model: Annotated[str | None, typer.Option(help="Qwen3-4B, NBG4-3B, ...; with --tiny: tiny or long.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The twin, which runs on two CPU cores.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start it; without, only the bill is shown.")] = False,
    gpus: Gpus = None,
    gpu: Annotated[str | None, typer.Option(help="h100, h200, a100, b200, l40s: what the bill goes by.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """One of the paper's experiments: GPU-hours and GB first, then measured beside reported. Without one: all."""
    from erpd_hub import display
    from erpd_hub.comparing.reproduction import bill, listing, print_listing, print_report, report, runs

    if experiment is None:
        (display.print_json if as_json else print_listing)(listing())
        return
    name, plan = runs(experiment, model, tiny=tiny, overrides=overrides or [])
    if dry_run or not (tiny or yes):
        bill(plan, gpus=gpus, gpu=gpu, as_json=as_json, dry_run=dry_run)
        return
    found: dict[str, Any]
    with stdout_for_json(as_json):
        found = report(experiment, name, plan, tiny=tiny, gpus=gpus)
    (display.print_json if as_json else print_report)(found)


def advise(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run of this machine.")],
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """What a run says on one page: gate, noise, gain per KL, controls, drift; and which strategy to try next."""
    from erpd_hub.comparing.advice_sources import as_data, print_page, read_page
    from erpd_hub.display import print_json
    from erpd_hub.hub.client import connect

    page = read_page(connect(endpoint), run)
    if as_json:
        print_json(as_data(run, page))
    else:
        print_page(run, page)
