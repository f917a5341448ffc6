"""`reproduce`: an experiment of the paper, its bill first, then measured beside reported; or its tiny twin.
`advise`: a finished run on one page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from erpd_hub.cli.options import AsJson, DryRun, Endpoint, Gpus, read_seeds, stdout_for_json
from erpd_hub.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command()(reproduce)
    app.command()(advise)


def reproduce(
    experiment: Annotated[
        str | None, typer.Argument(help="table1 to table12, fig2b, fig4 to fig10, ...; without, all are listed.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    model: Annotated[
        str | None, typer.Option(help="Qwen3-4B, NBG4-3B, ...; with --tiny: a recipe over the twin.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The twin, which runs on two CPU cores.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start it; without, only the bill is shown.")] = False,
    row: Annotated[
        list[str] | None, typer.Option(help="This row of the paper and what it needs; may be given several times.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="With --tiny: several, such as 10,11,12; each a run. --dry-run is of one.")
    ] = None,
    gpus: Gpus = None,
    gpu: Annotated[str | None, typer.Option(help="h100, h200, a100, b200, l40s: what the bill goes by.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="With --seeds: a folder for EXPERIMENT.json, .md and their overview. Seeds of a report there are kept."
        ),
    ] = None,
) -> None:
    """One of the paper's experiments: GPU-hours and GB first, then measured beside reported. Without one: all."""
    from erpd_hub import display
    from erpd_hub.comparing import report_tables, reproduction

    if tiny:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # a twin's files are small and many; a line for each artifact is the progress
    if experiment is None:
        if row:
            raise ConfigError("--row: expected the experiment that it is a row of before it, such as table1")
        (display.print_json if as_json else report_tables.print_listing)(reproduction.listing())
        return
    if seeds is not None:
        if not tiny:
            raise ConfigError("--seeds: expected --tiny beside it; of a run without, the seed is a key: seed=1")
        if row:
            raise ConfigError(
                "--row: expected no --seeds beside it, whose claims compare rows with each other; give seed=1"
            )
        name, plans = reproduction.seed_plans(experiment, model, read_seeds(seeds), overrides or [])
        if dry_run:
            reproduction.bill(experiment, name, plans[0], gpus=gpus, gpu=gpu, as_json=as_json, dry_run=True)
        else:
            found: dict[str, Any]
            with stdout_for_json(as_json):
                found = reproduction.report_over_seeds(
                    experiment, name, plans, overrides=overrides or [], folder=output, gpus=gpus
                )
            (display.print_json if as_json else report_tables.print_report)(found)
        return
    if output is not None:
        raise ConfigError("--output: expected --seeds beside it; a single run prints its report, --json for programs")
    name, plan = reproduction.runs(experiment, model, tiny=tiny, overrides=overrides or [], rows=row or [])
    if dry_run or not (tiny or yes):
        reproduction.bill(experiment, name, plan, rows=row or [], gpus=gpus, gpu=gpu, as_json=as_json, dry_run=dry_run)
        return
    with stdout_for_json(as_json):
        found = reproduction.report(experiment, name, plan, rows=row or [], tiny=tiny, gpus=gpus)
    (display.print_json if as_json else report_tables.print_report)(found)


def advise(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run of this machine.")],
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """What a run says on one page: gate, noise, gain per KL, controls, drift; and which strategy to try next."""
    from erpd_hub.comparing.advice_sources import as_data, print_page, read_page
    from erpd_hub.display import print_json
    from erpd_hub.hub.connecting import connect

    page = read_page(connect(endpoint), run)
    if as_json:
        print_json(as_data(run, page))
    else:
        print_page(run, page)
