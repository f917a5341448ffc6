"""The single stages as commands, generated from the configs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from erpd_hub.cli.options import AsJson, DryRun, Endpoint, Gpus, LaunchHow, Namespace, Public, RunName, stdout_for_json
from erpd_hub.cli.recipes import carry_out

STAGE_HELP = {
    "base": "Build the tiny policy, or import a folder, a GGUF or a Hub model.",
    "prompts": "Draw prompts: filtered, disjoint, decontaminated, answers self-checked.",
    "rollout": "Sample K graded responses to each prompt.",
    "score": "Token log-probs of a checkpoint on rollouts.",
    "critic": "Fit a value model to rollouts, for a PPO teacher.",
    "teacher": "Stage 1: train an extreme-region teacher on a fixed batch.",
    "unlearned": "Publish an early step of an MSE run as a checkpoint.",
    "signal": "Token log-ratios of two checkpoints on rollouts.",
    "distill": "Stage 2: distil a signal into the policy under a trust region.",
    "online": "On-policy training: each step samples from the policy as it is.",
    "probe": "KL and entropy of checkpoints on their own samples.",
    "gate": "Whether a teacher is better than the policy: a paired test on a benchmark.",
    "select": "The best of several checkpoints by a race on a benchmark.",
}


_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
_PANEL = "Single stages"


class _MakeByDefault(TyperGroup):
    """`signal KEY=VALUE...` is `signal make KEY=VALUE...`: a stage that has other commands beside it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["make", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    beside: dict[str, tuple[str, Callable[..., None]]] = {
        "rollout": ("import", _import_rollouts),
        "signal": ("export", _export_signal),
    }
    for stage, line in STAGE_HELP.items():
        if stage not in beside:
            app.command(stage, context_settings=_SETTINGS, rich_help_panel=_PANEL)(_stage_command(stage))
            continue
        group = typer.Typer(cls=_MakeByDefault, no_args_is_help=True, help=f"{line} `make` may be left out.")
        group.command("make", context_settings=_SETTINGS)(_stage_command(stage))
        name, command = beside[stage]
        group.command(name, context_settings=_SETTINGS if stage == "rollout" else None)(command)
        app.add_typer(group, name=stage, rich_help_panel=_PANEL)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        name: RunName = "manual",
        namespace: Namespace = "local",
        step: Annotated[str | None, typer.Option(help="Name of the step; default: the stage's.")] = None,
        endpoint: Endpoint = "local",
        public: Public = False,
        dry_run: DryRun = False,
        gpus: Gpus = None,
        launch: LaunchHow = None,
        as_json: AsJson = False,
    ) -> None:
        from erpd_hub.recipe import build_recipe

        data = single_step(stage, step or stage, context.args)
        data |= {"run": name, "namespace": namespace, "hub": {"endpoint": endpoint, "private": not public}}
        if stage == "distill":
            from erpd_hub.implicit import with_own_signal

            data = with_own_signal(data, step or stage)
        command = single_command(stage, context.args, name, namespace, step)
        recipe = build_recipe(data, f"erpd-hub {stage}", command=command)
        carry_out(recipe, dry_run=dry_run, as_json=as_json, gpus=gpus, launch=launch)

    command.__doc__ = STAGE_HELP[stage] + " Keys as in a recipe: KEY=VALUE or --KEY VALUE, policy=REF for the start."
    return command


def _import_rollouts(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file of JSON lines or parquet, or a folder of such files.")],
    format: Annotated[Literal["jsonl", "trl", "verl"], typer.Option("--from", help="Whose rows they are.")],
    name: RunName = "manual",
    namespace: Namespace = "local",
    step: Annotated[str, typer.Option(help="Name of the step.")] = "rollout",
    endpoint: Endpoint = "local",
    public: Public = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring in rollouts that another program drew. Keys as in a recipe: KEY=VALUE; policy=REF is who drew them."""
    from erpd_hub.recipe import build_recipe

    words = ["type=import", f"format={format}", f"source={json.dumps(str(file.expanduser().absolute()))}"]
    data = single_step("rollout", step, [*words, *context.args])
    data |= {"run": name, "namespace": namespace, "hub": {"endpoint": endpoint, "private": not public}}
    carry_out(build_recipe(data, "erpd-hub rollout import"), dry_run=dry_run, as_json=as_json)


def _export_signal(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A signal: namespace/name\\[@revision].")],
    format: Annotated[Literal["trl", "verl"], typer.Option(help="The trainer it is for.")],
    output: Annotated[Path, typer.Option(help="A folder that is empty or not there.")],
    whiten: Annotated[bool, typer.Option(help="Whiten over all response tokens.")] = True,
    shift_mean: Annotated[bool, typer.Option(help="Subtract the mean when whitening.")] = True,
    keep_on_right: Annotated[Literal["all", "positive", "negative"], typer.Option(help="Signs kept there.")] = "all",
    keep_on_wrong: Annotated[Literal["all", "positive", "negative"], typer.Option(help="Signs kept there.")] = "all",
    whiten_order: Annotated[Literal["after_mask", "before_mask"], typer.Option()] = "after_mask",
    truncated: Annotated[
        Literal["negative", "masked", "dropped"], typer.Option(help="Responses that ended by length.")
    ] = "negative",
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Write the advantages of a signal, and a loader, for TRL's GRPOTrainer or for verl. Masks as in distill."""
    from erpd_hub.export.fetch import export_reference

    with stdout_for_json(as_json):
        report = export_reference(
            endpoint, reference, output, format=format, whiten=whiten, shift_mean=shift_mean,
            keep_on_right=keep_on_right, keep_on_wrong=keep_on_wrong, whiten_order=whiten_order, truncated=truncated,
        )  # fmt: skip
    if as_json:
        from erpd_hub.display import print_json

        print_json(report)
    else:
        typer.echo(f"{report['samples']} samples of {report['prompts']} prompts in {output}; its README.md says how on")


def single_command(stage: str, words: list[str], name: str, namespace: str, step: str | None) -> str:
    """The command of a single stage as its card tells it; empty where it names something of this machine."""
    from erpd_hub.public import public_command

    own = [*words, "--name", name]
    own += [] if namespace == "local" else ["--namespace", namespace]
    return public_command(stage, [*own, *([] if step in (None, stage) else ["--step", step])])


def single_step(stage: str, step: str, words: list[str]) -> dict[str, Any]:
    """A one-step recipe from `key=value` and `--key value` words; `policy`, `seed`, `threads` belong to the run."""
    from erpd_hub.overrides import apply_override
    from erpd_hub.recipe_model import SHARED_NUMERICS

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
        elif key in SHARED_NUMERICS:  # how the step computes, and how what it is compared with is scored
            apply_override(data, f"scoring.{key}={value}")
        else:
            apply_override(data, f"r1/{step}.{key}={value}" if "=" in word else word)
    return data
