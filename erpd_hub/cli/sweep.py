"""`sweep`: a recipe at several points and seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erpd_hub.cli.options import AsJson, DryRun, Gpus, LaunchHow, read_seeds, stdout_for_json
from erpd_hub.errors import ConfigError

if TYPE_CHECKING:
    from erpd_hub.comparing.sweep import Sweep

SEEDS = "Comma-separated; each is a run RUN-seed-N."


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `recipes`) or a YAML file.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=A,B,C]...")] = None,
    seeds: Annotated[str | None, typer.Option(help=SEEDS + " Default: the recipe's own.")] = None,
    points: Annotated[Path | None, typer.Option(help="YAML: a list of mappings of keys to values.")] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="The first values, the second, ... not all pairs.")] = False,
    skip_refused: Annotated[bool, typer.Option(help="Leave out points that are no valid recipe.")] = False,
    dry_run: DryRun = False,
    gpus: Gpus = None,
    launch: LaunchHow = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe at several points: KEY=A,B varies a key, KEY=A sets it everywhere, a list as a value is [[...]].

    Whatever points have in common is made once; each point and seed is a run of its own, and the table has them all.
    """
    planned = read_sweep(recipe, words or [], seeds=seeds, points=points, zipped=zipped, skip_refused=skip_refused)
    if dry_run:
        _preview(planned, gpus, as_json)
        return
    from erpd_hub import display
    from erpd_hub.comparing.sweep_run import run_sweep
    from erpd_hub.comparing.sweep_tables import print_sweep
    from erpd_hub.launching.options import Launch

    if launch == "slurm":
        raise ConfigError("--launch: expected accelerate:FILE, got slurm; write a script around `erpd-hub sweep`")
    how = Launch.from_options(gpus, launch)
    with stdout_for_json(as_json):
        outcome = run_sweep(planned, watch=display.ProgressWatch(planned.plan), launch=how)
    if as_json:
        display.print_json(outcome.report)
    else:
        print_sweep(outcome)
    if outcome.report["failures"]:
        raise typer.Exit(1)


def read_sweep(
    recipe: str,
    words: list[str],
    *,
    seeds: str | None = None,
    points: Path | None = None,
    zipped: bool = False,
    skip_refused: bool = False,
) -> "Sweep":
    """What the words of the command line ask for."""
    from erpd_hub.comparing.grid import combine, parse_words, read_points
    from erpd_hub.comparing.sweep import make_sweep
    from erpd_hub.recipe import read_recipe

    fixed, axes = parse_words(words)
    origin, data = read_recipe(recipe, fixed)
    settings = combine(axes, read_points(points) if points else [()], zipped=zipped)
    return make_sweep(origin, data, settings, seeds=read_seeds(seeds) if seeds else [], skip_refused=skip_refused)


def _preview(planned: "Sweep", gpus: int | None, as_json: bool) -> None:
    from erpd_hub.comparing.comparison import describe_points
    from erpd_hub.comparing.sweep_tables import print_sweep_preview
    from erpd_hub.display import print_json
    from erpd_hub.planning.preview import Machine, preview

    report = preview(planned.plan, machine=Machine(gpus=gpus)) | describe_points(planned)
    (print_json if as_json else print_sweep_preview)(report)
