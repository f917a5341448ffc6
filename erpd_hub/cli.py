"""The `erpd-hub` command. Parses arguments and prints; everything else is imported inside the command that needs it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from erpd_hub.errors import ErpdError

if TYPE_CHECKING:
    from erpd_hub.plan import Plan
    from erpd_hub.recipe import Recipe

app = typer.Typer(
    name="erpd-hub",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Extreme Region Policy Distillation with every artifact on the Hugging Face Hub.",
)

Endpoint = Annotated[str, typer.Option(help="Hub endpoint: local (the embedded Hub) or a URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan; make and push nothing.")]

STAGE_HELP = {
    "base": "Build the tiny policy, or import a folder, a GGUF or a Hub model.",
    "prompts": "Draw prompts: filtered, disjoint, decontaminated, answers self-checked.",
    "rollout": "Sample K graded responses to each prompt.",
    "score": "Token log-probs of a checkpoint on rollouts.",
    "teacher": "Stage 1: train an extreme-region teacher on a fixed batch.",
    "unlearned": "Publish an early step of an MSE run as a checkpoint.",
    "signal": "Token log-ratios of two checkpoints on rollouts.",
    "distill": "Stage 2: distil a signal into the policy under a trust region.",
    "probe": "KL and entropy of checkpoints on their own samples.",
    "evaluate": "AVG@K of checkpoints on benchmarks.",
}


def main() -> None:
    """Entry point: errors for people are one line on stderr and an exit code, without a traceback."""
    try:
        app()  # typer reports mistakes in the arguments by itself, with exit code 2
    except ErpdError as error:
        print(f"erpd-hub: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"erpd-hub: {place}{error.strerror or error}; the same command goes on from here", file=sys.stderr)
        sys.exit(1)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False) -> None:
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "httpcore", "huggingface_hub", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `recipes`) or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    dry_run: DryRun = False,
    start: Annotated[str | None, typer.Option("--from", help="This step and what follows; the rest exists.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this step.")] = None,
    as_json: AsJson = False,
    push: Annotated[bool, typer.Option("--push/--no-push", help="--no-push needs the embedded Hub.")] = True,
) -> None:
    """Run a recipe: every stage from the base policy to the leaderboard; what exists already is reused."""
    from erpd_hub.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if not push:
        loaded = _kept_local(loaded)
    _carry_out(loaded, dry_run=dry_run, start=start, until=until, as_json=as_json)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from rich.console import Console
    from rich.table import Table

    from erpd_hub.recipe import load_recipe, shipped_recipes

    table = Table("recipe", "what it does", box=None)
    for name in sorted(shipped_recipes()):
        table.add_row(name, load_recipe(name).description)
    Console().print(table)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        name: Annotated[str, typer.Option(help="Name of the run.")] = "manual",
        namespace: Annotated[str, typer.Option(help="User or organisation.")] = "local",
        step: Annotated[str | None, typer.Option(help="Name of the step; default: the stage's.")] = None,
        endpoint: Endpoint = "local",
        public: Annotated[bool, typer.Option("--public/--private")] = False,
        dry_run: DryRun = False,
        as_json: AsJson = False,
    ) -> None:
        from erpd_hub.recipe import build_recipe

        data = _single_step(stage, step or stage, context.args)
        data |= {"run": name, "namespace": namespace, "hub": {"endpoint": endpoint, "private": not public}}
        _carry_out(build_recipe(data, f"erpd-hub {stage}"), dry_run=dry_run, as_json=as_json)

    command.__doc__ = STAGE_HELP[stage] + " Keys as in a recipe: KEY=VALUE or --KEY VALUE, policy=REF for the start."
    return command


for _stage in STAGE_HELP:
    _settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(_stage, context_settings=_settings, rich_help_panel="Single stages")(_stage_command(_stage))


def _single_step(stage: str, step: str, words: list[str]) -> dict[str, Any]:
    """A one-step recipe from `key=value` and `--key value` words; `policy`, `seed`, `threads` belong to the run."""
    from erpd_hub.recipe import apply_override

    data: dict[str, Any] = {"rounds": [{"steps": {step: {"stage": stage}}}]}
    if stage == "probe" and not any(word.removeprefix("--").startswith("base=") or word == "--base" for word in words):
        words = [*words, "base=policy"]
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word.startswith("--") and "=" not in word and pending and not pending[0].startswith("--"):
            word = f"{word}={pending.pop(0)}"
        key, _, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if key == "policy":
            apply_override(data, f"rounds.0.policy={value}")
        elif key in ("seed", "threads"):
            apply_override(data, f"{key}={value}")
        else:
            apply_override(data, f"r1/{step}.{key}={value}" if "=" in word else word)
    return data


# --------------------------------------------------------------------------------------------- lineage


class _ShowByDefault(TyperGroup):
    """`lineage REF` is `lineage show REF`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args.insert(0, "show")
        return super().resolve_command(ctx, args)


lineage_app = typer.Typer(cls=_ShowByDefault, no_args_is_help=True, help="Where an artifact comes from.")
app.add_typer(lineage_app, name="lineage")
LineageRef = Annotated[str, typer.Argument(help="namespace/name[@revision], or namespace/name/folder[@revision].")]


@lineage_app.command()
def show(reference: LineageRef, endpoint: Endpoint = "local") -> None:
    """Draw the lineage graph of an artifact."""
    from rich.console import Console

    from erpd_hub.display import lineage_tree
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import ancestry, locate

    hub = connect(endpoint)
    Console(soft_wrap=True).print(lineage_tree(ancestry(hub, locate(hub, reference))))


@lineage_app.command()
def verify(reference: LineageRef, endpoint: Endpoint = "local") -> None:
    """Download an artifact and all its ancestors afresh, re-hash everything, and say what is missing or altered."""
    from erpd_hub.display import print_findings
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import locate
    from erpd_hub.lineage import verify as verify_place

    hub = connect(endpoint)
    if print_findings(verify_place(hub, locate(hub, reference))):
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------- hub

hub_app = typer.Typer(no_args_is_help=True, help="The embedded Hub.")
app.add_typer(hub_app, name="hub")


@hub_app.command()
def serve(
    root: Annotated[Path | None, typer.Option(help="Where it keeps its data; default: below ERPD_HOME.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8899,
) -> None:
    """Serve the embedded Hub until interrupted. With the default root, runs join it."""
    from erpd_hub.home import hub_folder
    from erpd_hub.hub.server.__main__ import main as serve_main

    folder = root or hub_folder()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"erpd-hub: serving {folder} on {host}; its URL stands in {folder / 'server.json'}", file=sys.stderr)
    arguments = ["--root", str(folder), "--host", host, "--port", str(port)]
    raise typer.Exit(serve_main([*arguments, "--ready-file", str(folder / "server.json")]))


# ----------------------------------------------------------------------------------------------- bench

bench_app = typer.Typer(no_args_is_help=True, help="Measurements that anyone can repeat.")
app.add_typer(bench_app, name="bench")


@bench_app.command()
def seeds(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")] = "quickstart",
    seed: Annotated[str, typer.Option("--seeds", help="Comma-separated; each is a run RUN-seed-N.")] = "3,4,5",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe over several seeds and report every one of them, the bad ones too."""
    from erpd_hub.bench import run_seeds
    from erpd_hub.display import print_json, print_seeds

    report = run_seeds(recipe, [int(item) for item in seed.split(",")], overrides or [])
    (print_json if as_json else print_seeds)(report)


# ---------------------------------------------------------------------------------------------- shared


def _kept_local(recipe: "Recipe") -> "Recipe":
    """The same recipe on the embedded Hub; what it names elsewhere is read from there."""
    from erpd_hub.recipe import HubSettings

    above = recipe.hub.upstream if recipe.hub.endpoint == "local" else recipe.hub.endpoint
    return recipe.model_copy(update={"hub": HubSettings(endpoint="local", upstream=above)})


def _carry_out(
    recipe: "Recipe", *, dry_run: bool, as_json: bool, start: str | None = None, until: str | None = None
) -> None:
    from erpd_hub import display
    from erpd_hub.pipeline import preview, run_plan
    from erpd_hub.plan import make_plan

    plan: Plan = make_plan(recipe)
    if dry_run:
        report = preview(plan, start=start, until=until)
        (display.print_json if as_json else display.print_preview)(report)
        return
    watch = display.ProgressWatch(plan)
    outcome = run_plan(plan, start=start, until=until, watch=watch)
    if as_json:
        display.print_json(outcome.summary)
    else:
        display.print_outcome(outcome)


if __name__ == "__main__":
    main()
