"""Carrying out an experiment of the paper: its plan and bill, its run, and what was measured, for `reproduce`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erpd_hub import config as c
from erpd_hub.artifacts import write_json
from erpd_hub.comparing.claims import Measured, judge, judge_over_seeds
from erpd_hub.comparing.joining import join, plan_identity
from erpd_hub.comparing.over_seeds import checkpoints_over_seeds, fingerprints_over_seeds, machine
from erpd_hub.comparing.paper import Experiment, experiments, get_experiment, recipe_of
from erpd_hub.comparing.paper_rows import of_rows, paper_rows, print_paper_rows, twin_refs
from erpd_hub.comparing.reproduce import HOW, Beside, beside
from erpd_hub.comparing.result_pages import add_to_report, renew_report
from erpd_hub.display import ProgressWatch, make_console, print_json
from erpd_hub.errors import ConfigError
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub
from erpd_hub.launching.options import Launch
from erpd_hub.pipeline import Outcome, open_hub, run_plan
from erpd_hub.plan import Plan, make_plan
from erpd_hub.planning.preview import Machine, preview
from erpd_hub.recipe import load_recipe
from erpd_hub.samples import read_light
from erpd_hub.summary import evaluations, reference_of
from erpd_hub.tables import print_plan, print_preview

SCHEMA = "erpd-hub/reproduce/v1"


def listing() -> list[dict[str, Any]]:
    """Every experiment with its models, recipes, twin and claim."""
    return [
        {"experiment": name, **item.model_dump(mode="json", include={"title", "claim", "models", "tiny", "notes"})}
        for name, item in experiments().items()
    ]


def runs(
    experiment: str, model: str | None, *, tiny: bool, overrides: Sequence[str], rows: Sequence[str] = ()
) -> tuple[str, Plan]:
    """The model and the plan of an experiment, or of some of its rows.

    Raises:
        ConfigError: no such experiment, model or row, an override that does not fit, or a twin on several benchmarks.
    """
    chosen, recipe = recipe_of(experiment, model, tiny=tiny)
    plan = make_plan(load_recipe(recipe, overrides))
    if tiny:
        _require_one_benchmark(plan)
    return chosen, of_rows(plan, get_experiment(experiment), chosen, rows) if rows else plan


def seed_plans(
    experiment: str, model: str | None, seeds: Sequence[int], overrides: Sequence[str]
) -> tuple[str, list[Plan]]:
    """The model and a plan for each seed, in the places where a sweep over seeds puts them.

    Raises:
        ConfigError: no such experiment, an override that does not fit, or a twin on several benchmarks.
    """
    chosen, recipe = recipe_of(experiment, model, tiny=True)
    run = load_recipe(recipe, overrides).run
    plans = [make_plan(load_recipe(recipe, [*overrides, f"seed={seed}", f"run={run}-seed-{seed}"])) for seed in seeds]
    _require_one_benchmark(plans[0])
    return chosen, plans


def _require_one_benchmark(plan: Plan) -> None:
    """A claim compares checkpoints and says of no benchmark."""
    names = sorted(
        {name for node in plan.nodes if isinstance(node.config, c.EvaluateConfig) for name in node.config.benchmarks}
    )
    if len(names) > 1:
        raise ConfigError(f"evaluate.benchmarks: a twin's claims are about one, got {', '.join(names)}; leave one")


def bill(
    experiment: str,
    model: str,
    plan: Plan,
    *,
    rows: Sequence[str] = (),
    gpus: int | None,
    gpu: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Print what it would take, and for which rows of the paper; nothing starts."""
    found = preview(plan, machine=Machine(gpus=gpus, gpu=gpu))
    about = paper_rows(experiment, model, rows)
    if as_json:
        print_json(found | {"paper": about})
        return
    (print_preview if dry_run else print_plan)(found)
    print_paper_rows(about)
    make_console().print("nothing has started; --yes starts it, --tiny runs its twin on this machine's CPU")


def report(
    experiment: str, model: str, plan: Plan, *, rows: Sequence[str] = (), tiny: bool, gpus: int | None = None
) -> dict[str, Any]:
    """Run the plan (what exists is reused) and lay what it measured beside the paper; also kept in the run's folder.

    Args:
        rows: Those that the plan is of, where not of all: nothing is said of others, nor of claims about them.
    """
    about = get_experiment(experiment)
    outcome = run_plan(plan, watch=ProgressWatch(plan), launch=Launch.from_options(gpus, None))
    hub = open_hub(plan)
    compared = [] if tiny else beside(about, model, outcome.summary["checkpoints"])
    measured = _measured(outcome, hub) if tiny else {}
    claims = [judge(claim, measured) for claim in about.claims] if tiny else []
    found = {
        "schema": SCHEMA,
        "experiment": experiment,
        "title": about.title,
        "claim": about.claim,
        "model": model,
        "recipe": plan.recipe.origin,
        "seed": plan.recipe.seed,
        "tolerance": HOW,
        "notes": list(about.notes),
        "rows": [_row(item) for item in compared if item.row in rows or not rows],
        "twin": _twin(about, rows, outcome.summary["checkpoints"]) if tiny else [],
        "claims": [item._asdict() for item in claims if item.difference is not None or not rows],
        "summary": outcome.summary,
    }
    name = f"reproduce-{experiment}-rows.json" if rows else f"reproduce-{experiment}.json"
    write_json(run_folder(plan.recipe.run) / name, json.dumps(found, indent=2) + "\n")
    return found


def report_over_seeds(
    experiment: str,
    model: str,
    plans: Sequence[Plan],
    *,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    gpus: int | None = None,
) -> dict[str, Any]:
    """The twin at several seeds, each a run of its own, and every claim over all of them.

    Args:
        plans: As of `seed_plans`.
        overrides: What they were made with, for the page that says how to repeat them.
        folder: Of reports: each seed is added to the experiment's as soon as it is measured, and one that is there is
            not run again; claims that are new since are answered from what the report has.

    Raises:
        ConfigError: the folder's report is of another plan, or a new claim takes measuring; nothing has run.
        StageError: a seed's run failed; those before it are in the folder.
    """
    about = get_experiment(experiment)
    head = {
        "schema": SCHEMA,
        "experiment": experiment,
        "title": about.title,
        "claim": about.claim,
        "model": model,
        "recipe": plans[0].recipe.origin,
        "overrides": list(overrides),
        "plan": plan_identity(plans[0]),
    }
    found = None if folder is None else renew_report(folder, about, head)
    for plan in plans:
        if found is None or plan.recipe.seed not in found["seeds"]:
            one = head | _one_seed(about, plan, gpus)
            if folder is not None:
                found = add_to_report(folder, about, one)
            else:
                found = one if found is None else join(found, one)
    assert found is not None, "a plan for each seed"
    return found


def _one_seed(about: Experiment, plan: Plan, gpus: int | None) -> dict[str, Any]:
    outcome = run_plan(plan, watch=ProgressWatch(plan), launch=Launch.from_options(gpus, None))
    measured = _measured(outcome, open_hub(plan))
    return {
        "seeds": [plan.recipe.seed],
        "runs": [plan.recipe.run],
        "machines": [machine([item.record for item in outcome.finished])],
        "notes": list(about.notes),
        "rows": [],
        "claims": [judge_over_seeds(claim, [measured])._asdict() for claim in about.claims],
        "checkpoints": checkpoints_over_seeds([outcome.summary]),
        "fingerprints": fingerprints_over_seeds([outcome.summary]),
    }


def _row(item: Beside) -> dict[str, Any]:
    return item._asdict() | {"cells": [cell._asdict() for cell in item.cells]}


def _twin(about: Experiment, rows: Sequence[str], checkpoints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What stands for each row in the twin, as it was measured."""
    wanted = ("ref", "benchmark", "avg", "stderr_sampling", "kl_to_base", "entropy", "mean_length")
    return [
        {"row": label} | {name: item.get(name) for name in wanted}
        for label, refs in twin_refs(about).items()
        if label in rows or not rows
        for item in checkpoints
        if item["ref"] in refs
    ]


def _measured(outcome: Outcome, hub: Hub) -> dict[str, Measured]:
    """Labels, lengths and probe of every checkpoint, and the record of every step, by the recipe's names for them."""
    probes = {}
    for item in outcome.finished:
        if isinstance(item.node.config, c.ProbeConfig):
            probes[reference_of(outcome.plan, item.node)] = item.record.metrics
    single = len(outcome.plan.recipe.rounds) == 1
    records = {item.node.name.removeprefix("r1/" if single else ""): item.record.metrics for item in outcome.finished}
    found = {name: Measured(record=record) for name, record in records.items()}
    for item in evaluations(outcome.finished):
        folder = hub.pull_artifact(item.record, str(item.record.repo_id), item.revision, item.record.folder)
        labels: dict[str, list[int | None]] = {}
        lengths: dict[str, list[int]] = {}
        for row in read_light(folder):
            labels.setdefault(row["problem_id"], []).append(row["label"])
            lengths.setdefault(row["problem_id"], []).extend([] if row["length"] is None else [row["length"]])
        name = reference_of(outcome.plan, item.node)
        found[name] = Measured(labels, lengths, probes.get(name, {}), records.get(name, {}))
    return found
