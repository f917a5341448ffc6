"""The single stages as commands, generated from the configs."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from erpd_hub.cli.options import AsJson, DryRun, Endpoint, Gpus, LaunchHow
from erpd_hub.cli.recipes import carry_out

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


def register(app: typer.Typer) -> None:
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    for stage in STAGE_HELP:
        app.command(stage, context_settings=settings, rich_help_panel="Single stages")(_stage_command(stage))


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        name: Annotated[str, typer.Option(help="Name of the run.")] = "manual",
        namespace: Annotated[str, typer.Option(help="User or organisation.")] = "local",
        step: Annotated[str | None, typer.Option(help="Name of the step; default: the stage's.")] = None,
        endpoint: Endpoint = "local",
        public: Annotated[bool, typer.Option("--public/--private")] = False,
        dry_run: DryRun = False,
        gpus: Gpus = None,
        launch: LaunchHow = None,
        as_json: AsJson = False,
    ) -> None:
        from erpd_hub.recipe import build_recipe

        data = _single_step(stage, step or stage, context.args)
        data |= {"run": name, "namespace": namespace, "hub": {"endpoint": endpoint, "private": not public}}
        recipe = build_recipe(data, f"erpd-hub {stage}")
        carry_out(recipe, dry_run=dry_run, as_json=as_json, gpus=gpus, launch=launch)

    command.__doc__ = STAGE_HELP[stage] + " Keys as in a recipe: KEY=VALUE or --KEY VALUE, policy=REF for the start."
    return command


def _single_step(stage: str, step: str, words: list[str]) -> dict[str, Any]:
    """A one-step recipe from `key=value` and `--key value` words; `policy`, `seed`, `threads` belong to the run."""
    from erpd_hub.recipe import SHARED_NUMERICS, apply_override

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
