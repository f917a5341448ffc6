"""`evaluate`: checkpoints of any kind on benchmarks, as one command."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from erpd_hub.cli.backends import Backends
from erpd_hub.cli.options import AsJson, DryRun, Endpoint, Gpus, LaunchHow, Namespace, Public, check_name
from erpd_hub.cli.recipes import carry_out
from erpd_hub.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from erpd_hub.evaluation.backends.environments import Harness
    from erpd_hub.recipe_model import Recipe

_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def register(app: typer.Typer) -> None:
    app.command(context_settings=_SETTINGS, rich_help_panel="Single stages")(evaluate)


def evaluate(
    context: typer.Context,
    benchmarks: Annotated[str | None, typer.Option("--benchmarks", "-b", help="Names, with commas between.")] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", min=1, help="Samples a problem.")] = None,
    engine: Annotated[Literal["transformers", "vllm", "server"] | None, typer.Option(help="What draws them.")] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="Base URL ending in /v1 of a server; several if given again.")
    ] = None,
    max_sequence_tokens: Annotated[int | None, typer.Option(help="Of prompt and response together.")] = None,
    on_error: Annotated[
        Literal["stop", "record"] | None, typer.Option(help="What becomes of samples that keep failing.")
    ] = None,
    benchmark_file: Annotated[
        list[Path] | None, typer.Option(help="YAML with benchmarks of your own; several if given again.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Model that is asked about what the rule turns down.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="Base URL of its endpoint.")] = None,
    backend: Backends = None,
    progress: Annotated[Path | None, typer.Option(help="File that says as JSON how far it is.")] = None,
    name: Annotated[
        str, typer.Option(help="Name of the run: K can be raised later under the same one.", callback=check_name)
    ] = "manual",
    namespace: Namespace = "local",
    step: Annotated[str, typer.Option(help="Name of the step.")] = "evaluate",
    endpoint: Endpoint = "local",
    public: Public = False,
    dry_run: DryRun = False,
    gpus: Gpus = None,
    launch: LaunchHow = None,
    as_json: AsJson = False,
) -> None:
    """AVG@K of checkpoints on benchmarks: CHECKPOINT... -b NAMES -k K.

    CHECKPOINT is namespace/name or namespace/name@revision, a ./folder, or endpoint:MODEL with --url (its key in
    ERPD_SERVER_KEY). Other keys as in a recipe: KEY=VALUE or --KEY VALUE, such as limit=10 decoding.temperature=0.6.
    """
    from erpd_hub.cli.stages import single_command, single_step
    from erpd_hub.recipe import build_recipe

    given: dict[str, Any] = {
        "benchmarks": benchmarks, "k": k, "max_sequence_tokens": max_sequence_tokens, "on_error": on_error,
        "engine.type": engine or ("server" if url else None), "engine.urls": url or None,
        "judge.model": judge, "judge.url": judge_url,
    }  # fmt: skip
    words = _words(context.args, given)
    data = single_step("evaluate", step, words)
    data |= {"run": name, "namespace": namespace, "hub": {"endpoint": endpoint, "private": not public}}
    if benchmark_file:
        data["benchmark_files"] = [str(file) for file in benchmark_file]
    if progress is not None:
        os.environ["ERPD_PROGRESS"] = str(progress.expanduser().absolute())
    _show_progress()
    command = "" if benchmark_file else single_command("evaluate", words, name, namespace, step)
    recipe = build_recipe(data, "erpd-hub evaluate", command=command)
    harnesses = [cast("Harness", choice.value) for choice in dict.fromkeys(backend or ())]
    after = _beside(recipe, harnesses, endpoint, tuple(benchmark_file or ()), as_json) if harnesses else None
    carry_out(recipe, dry_run=dry_run, as_json=as_json, gpus=gpus, launch=launch, after=after)


def _words(arguments: list[str], given: dict[str, Any]) -> list[str]:
    """All that is asked for as `KEY=VALUE`: what stands free on the command line, and its options."""
    checkpoints, words = split_words(arguments)
    if checkpoints:
        given = {**given, "checkpoints": checkpoints}
    words = words + [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    if not any(word.startswith("benchmarks=") for word in words):
        raise ConfigError("evaluate: expected a benchmark, got none; -b NAME (`erpd-hub benchmarks list`)")
    return words


def _beside(
    recipe: "Recipe", harnesses: "list[Harness]", endpoint: str, files: tuple[Path, ...], as_json: bool
) -> "Callable[[dict[str, Any]], dict[str, Any]]":
    """What runs the harnesses after the evaluation, whose summary it gets. Raises ErpdError: see `_check_backends`."""
    _check_backends(recipe, harnesses)
    return lambda summary: {"backends": _run_backends(summary, harnesses, endpoint, files, as_json)}


def _check_backends(recipe: "Recipe", harnesses: "list[Harness]") -> None:
    """Before anything is sampled. Raises ErpdError: a harness is not built or cannot run one of the benchmarks."""
    from erpd_hub.config import EvaluateConfig
    from erpd_hub.evaluation.backends.second import check_backends
    from erpd_hub.evaluation.benchmarks import get_benchmark

    configs = (config for part in recipe.rounds for config in part.steps.values())
    asked = [config for config in configs if isinstance(config, EvaluateConfig)]
    check_backends(harnesses, [get_benchmark(name, c.definitions) for c in asked for name in c.benchmarks])


def _run_backends(
    summary: dict[str, Any], harnesses: "list[Harness]", endpoint: str, files: tuple[Path, ...], as_json: bool
) -> list[dict[str, Any]]:
    """Each harness's verdicts on the samples of each evaluation, beside ours."""
    from erpd_hub.cli.regrade import print_report
    from erpd_hub.evaluation.backends.opinions import opened
    from erpd_hub.evaluation.backends.second import second_opinions
    from erpd_hub.evaluation.backends.sources import open_details

    reports = []
    with opened(harnesses) as graders:
        for row in summary["checkpoints"]:
            stored = open_details(endpoint, row["details"], benchmark_files=files)
            report = second_opinions(stored, () if stored.is_programs else harnesses, harnesses, harnesses=graders)
            if not as_json:
                print_report(report, title=f"{row['ref']} on {row['benchmark']}")
            reports.append({"ref": row["ref"], "details": row["details"], **report})
    return reports


def split_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Checkpoints, and `KEY=VALUE` or `--KEY VALUE` words as one word each."""
    checkpoints: list[str] = []
    words: list[str] = []
    pending = list(arguments)
    while pending:
        word = pending.pop(0)
        if word.startswith("--") and "=" not in word and pending and not pending[0].startswith("--"):
            words.append(f"{word}={pending.pop(0)}")
        elif word.startswith("-") or ("=" in word and not word.startswith((".", "/", "~"))):
            words.append(word)
        else:
            checkpoints.append(word)
    return checkpoints, words


def _show_progress() -> None:
    """Let sampling say how far it is, also without --verbose."""
    import logging

    for name in ("erpd_hub.sampling.progress", "erpd_hub.launching.processes"):
        logging.getLogger(name).setLevel(logging.INFO)
