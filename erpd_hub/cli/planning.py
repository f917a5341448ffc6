"""`plan`, `cost`, `doctor`: what a run takes, what it took, and whether this machine is ready for it."""

from typing import Annotated

import typer

from erpd_hub.cli.options import AsJson, Endpoint
from erpd_hub.errors import ConfigError


def register(app: typer.Typer) -> None:
    panel = "Before and after a run"
    app.command(rich_help_panel=panel)(plan)
    app.command(rich_help_panel=panel)(cost)
    app.command(rich_help_panel=panel)(doctor)


def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `recipes`) or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of the machine; default 8 (one CPU for a tiny model).")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="h100, h200, a100, b200, l40s or cpu; default h100.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="GB of a GPU, where the data sheet's is not yours.")] = None,
    mean_length: Annotated[int | None, typer.Option(min=1, help="Tokens of a mean response.")] = None,
    measured: Annotated[str | None, typer.Option(help="A run whose measured rates replace the time model.")] = None,
    assume: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Another assumption; repeatable.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="This step and what follows.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Up to this step.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="The arithmetic behind each GB.")] = False,
    as_json: AsJson = False,
) -> None:
    """The bill of a recipe before it runs: tokens, memory, time and storage of every stage. Needs no GPU, no Hub."""
    from erpd_hub.display import print_json
    from erpd_hub.plan import make_plan
    from erpd_hub.planning.preview import Machine, preview
    from erpd_hub.recipe import load_recipe
    from erpd_hub.tables import print_plan

    machine = Machine(gpus, gpu, gpu_memory, mean_length, measured, _numbers(assume or []))
    report = preview(make_plan(load_recipe(recipe, overrides or [])), start=start, until=until, machine=machine)
    if as_json:
        print_json(report)
    else:
        print_plan(report, explain=explain)


def _numbers(words: list[str]) -> dict[str, float]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--assume: expected NAME=NUMBER, got {word!r}; such as --assume training_mfu=0.35")
    return found


def cost(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of this machine, or namespace/name of an artifact.")],
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """GPU-seconds and tokens of a run and of everything it inherited, and the figures of the paper's Table 4."""
    from erpd_hub.display import print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.planning.cost import cost as cost_of
    from erpd_hub.tables import print_cost

    (print_json if as_json else print_cost)(cost_of(connect(endpoint), run))


def doctor(
    endpoint: Endpoint = "local",
    live: Annotated[bool, typer.Option("--live", help="Push to a private repository, pull, compare, delete.")] = False,
    size: Annotated[float, typer.Option(min=0.000001, help="GB that --live pushes.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Is this machine ready? Versions, devices, memory, disk, kernels, the Hub; exit code 1 when it is not."""
    from erpd_hub.display import print_json
    from erpd_hub.doctor import diagnose
    from erpd_hub.tables import print_doctor

    report = diagnose(endpoint, live=live, size=size)
    (print_json if as_json else print_doctor)(report)
    if not report["ok"]:
        raise typer.Exit(1)
