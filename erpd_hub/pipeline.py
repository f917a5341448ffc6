"""A run from a plan to what it has to show: artifacts, repository cards, leaderboard rows, summary, picture."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub import config as c
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.fields import identity
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub, connect
from erpd_hub.plan import Node, Plan
from erpd_hub.publish import publish_leaderboard, publish_repository_cards
from erpd_hub.runner import Finished, Runner, Watch
from erpd_hub.summary import checkpoints, summarise_run, write_summary


@dataclass(frozen=True)
class Outcome:
    """What a run made."""

    plan: Plan
    finished: list[Finished]
    summary: dict[str, Any]
    summary_path: Path
    picture: Path | None
    """None when nothing was both evaluated and probed, or matplotlib is not installed."""
    endpoint: str
    leaderboard: str | None


def run_plan(plan: Plan, *, start: str | None = None, until: str | None = None, watch: Watch | None = None) -> Outcome:
    """Carry out a plan on the recipe's endpoint."""
    started = time.monotonic()
    hub = open_hub(plan)
    finished = Runner(plan, hub, watch).run(until=until, start=start)
    publish_repository_cards(hub, finished)
    leaderboard = publish_leaderboard(hub, plan, finished)
    summary = summarise_run(plan, finished, time.monotonic() - started)
    folder = run_folder(plan.recipe.run)
    path = write_summary(folder, summary)
    picture = _draw(plan, finished, folder / "kl-against-avg.png")
    return Outcome(plan, finished, summary, path, picture, hub.identity, leaderboard)


def open_hub(plan: Plan) -> Hub:
    settings = plan.recipe.hub
    return connect(settings.endpoint, upstream=settings.upstream, private=settings.private)


def _draw(plan: Plan, finished: list[Finished], path: Path) -> Path | None:
    shown = [item for item in checkpoints(plan, finished) if item.kl_to_base is not None]
    if not shown:
        return None
    try:
        from erpd_hub.plot import plot_frontier

        plot_frontier(shown, path, title=f"{plan.recipe.run}, seed {plan.recipe.seed}")
    except ModuleNotFoundError:
        return None
    return path


# --------------------------------------------------------------------------------------------- dry run


def preview(plan: Plan, *, start: str | None = None, until: str | None = None) -> dict[str, Any]:
    """The resolved plan: for every artifact its inputs, repository, estimated tokens and what would happen to it."""
    nodes, _ = plan.select(until=until, start=start)
    hub = open_hub(plan)
    verdicts = Runner(plan, hub).preview(nodes)
    return {
        "schema": "erpd-hub/plan/v1",
        "run": plan.recipe.run,
        "seed": plan.recipe.seed,
        "endpoint": hub.identity,
        "nodes": [_describe(plan, node, verdicts[node.name]) for node in nodes],
    }


def _describe(plan: Plan, node: Node, verdict: str) -> dict[str, Any]:
    inputs: dict[str, list[str]] = {}
    for edge in node.inputs:
        at = f"@step-{edge.saved_step}" if edge.saved_step is not None else ""
        inputs.setdefault(edge.role, []).append(f"{edge.source}{at}")
    return {
        "step": node.name,
        "stage": node.config.stage,
        "inputs": inputs,
        "repo": node.repo_id,
        "repo_type": node.stage.repo_type,
        "folder": node.folder,
        "pushed_steps": list(node.pushed_steps),
        "tokens": estimate_tokens(plan, node),
        "will": verdict,
        "config": identity(node.config),
    }


def estimate_tokens(plan: Plan, node: Node) -> int | None:
    """Response tokens a node samples, scores or trains on, at most; None where the recipe alone does not say."""
    config = node.config
    if isinstance(config, c.RolloutConfig):
        count = config.limit or _prompt_count(plan, node)
        return count and count * config.k * config.decoding.max_new_tokens
    if isinstance(config, c.ProbeConfig):
        return config.num_prompts * config.k * config.max_new_tokens
    if isinstance(config, c.EvaluateConfig):
        benchmark = get_benchmark(config.benchmarks[0])
        count = config.limit or benchmark.num_problems
        decoding = config.decoding or benchmark.decoding
        return count and count * (config.k or benchmark.k) * decoding.max_new_tokens
    rollouts = next((e.source for e in node.inputs if e.role == "rollouts" and isinstance(e.source, str)), None)
    if rollouts is None:
        return None
    whole = estimate_tokens(plan, plan.node(rollouts))
    if isinstance(config, c.TrainingConfig):
        count = _prompt_count(plan, plan.node(rollouts))
        return whole and count and whole // count * config.prompts_per_step * config.steps
    return whole if isinstance(config, c.ScoreConfig) else None


def _prompt_count(plan: Plan, node: Node) -> int | None:
    source = next((e.source for e in node.inputs if e.role == "prompts"), None)
    if not isinstance(source, str):
        return None
    config = plan.node(source).config
    return config.count if isinstance(config, c.PromptSelection) else None
