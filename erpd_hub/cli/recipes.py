"""`run` and `recipes`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erpd_hub.cli.options import AsJson, DryRun, Gpus, LaunchHow, stdout_for_json

if TYPE_CHECKING:
    from erpd_hub.nodes import Plan
    from erpd_hub.recipe_model import Recipe


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(recipes)


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `recipes`) or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    dry_run: DryRun = False,
    start: Annotated[str | None, typer.Option("--from", help="This step and what follows; the rest exists.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this step.")] = None,
    gpus: Gpus = None,
    launch: LaunchHow = None,
    as_json: AsJson = False,
    push: Annotated[bool, typer.Option("--push/--no-push", help="--no-push needs the embedded Hub.")] = True,
) -> None:
    """Run a recipe: every stage from the base policy to the leaderboard; what exists already is reused."""
    from erpd_hub.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if not push:
        loaded = _kept_local(loaded)
    if launch == "slurm":
        from erpd_hub.launching.cluster import job_script
        from erpd_hub.plan import make_plan

        typer.echo(job_script(make_plan(loaded), recipe, overrides or [], gpus or 8), nl=False)
        return
    carry_out(loaded, dry_run=dry_run, start=start, until=until, as_json=as_json, gpus=gpus, launch=launch)


def recipes() -> None:
    """List the shipped recipes."""
    from rich.console import Console
    from rich.table import Table

    from erpd_hub.recipe import load_recipe
    from erpd_hub.recipe_files import shipped_recipes

    table = Table("recipe", "what it does", box=None)
    for name in sorted(shipped_recipes()):
        table.add_row(name, load_recipe(name).description)
    Console().print(table)


def _kept_local(recipe: "Recipe") -> "Recipe":
    """The same recipe on the embedded Hub; what it names elsewhere is read from there."""
    from erpd_hub.recipe_model import HubSettings

    above = recipe.hub.upstream if recipe.hub.endpoint == "local" else recipe.hub.endpoint
    return recipe.model_copy(update={"hub": HubSettings(endpoint="local", upstream=above)})


def carry_out(
    recipe: "Recipe",
    *,
    dry_run: bool,
    as_json: bool,
    start: str | None = None,
    until: str | None = None,
    gpus: int | None = None,
    launch: str | None = None,
    after: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> None:
    """Plan the recipe and run it, or show the plan; `after` gets the summary, and says what to add to it."""
    from erpd_hub import display
    from erpd_hub.launching.options import Launch
    from erpd_hub.pipeline import run_plan
    from erpd_hub.plan import make_plan
    from erpd_hub.planning.preview import Machine, preview
    from erpd_hub.tables import print_preview

    plan: Plan = make_plan(recipe)
    if dry_run:
        report = preview(plan, start=start, until=until, machine=Machine(gpus=gpus))
        (display.print_json if as_json else print_preview)(report)
        return
    how = Launch.from_options(gpus, launch)
    with stdout_for_json(as_json):
        outcome = run_plan(plan, start=start, until=until, watch=display.ProgressWatch(plan), launch=how)
        if not as_json:
            display.print_outcome(outcome)
        more = after(outcome.summary) if after else {}
    if as_json:
        display.print_json({**outcome.summary, **more})
