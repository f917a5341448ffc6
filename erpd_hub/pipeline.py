"""A run from a plan to what it has to show: artifacts, repository cards, leaderboard rows, summary, picture."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub, connect
from erpd_hub.launching.launch import Launch
from erpd_hub.nodes import Plan
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


def run_plan(
    plan: Plan,
    *,
    start: str | None = None,
    until: str | None = None,
    watch: Watch | None = None,
    launch: Launch | None = None,
) -> Outcome:
    """Carry out a plan on the recipe's endpoint."""
    started = time.monotonic()
    hub = open_hub(plan)
    finished = Runner(plan, hub, watch, launch).run(until=until, start=start)
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
