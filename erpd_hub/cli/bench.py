"""`bench`: measurements that anyone can repeat."""

from typing import Annotated

import typer

from erpd_hub.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Measurements that anyone can repeat.")


@app.command()
def seeds(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")] = "quickstart",
    seed: Annotated[str, typer.Option("--seeds", help="Comma-separated; each is a run RUN-seed-N.")] = "3,4,5",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe over several seeds and report every one of them, the bad ones too."""
    from erpd_hub.benchmarks.seeds import run_seeds
    from erpd_hub.display import print_json, print_seeds

    report = run_seeds(recipe, [int(item) for item in seed.split(",")], overrides or [])
    (print_json if as_json else print_seeds)(report)
