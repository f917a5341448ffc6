"""A run from a plan to what it has to show: artifacts, repository cards, leaderboard rows, summary, picture."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub.finished import Finished, Watch
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.launching.options import Launch
from erpd_hub.nodes import Plan
from erpd_hub.planning.cautions import cautions
from erpd_hub.publish import publish_leaderboard, publish_repository_cards
from erpd_hub.runner import Runner
from erpd_hub.summary import summarise_run, write_summary

logger = logging.getLogger(__name__)


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
    for caution in cautions(plan):
        logger.warning("%s", caution)
    hub = open_hub(plan)
    finished = Runner(plan, hub, watch, launch).run(until=until, start=start)
    publish_repository_cards(hub, finished, command=plan.recipe.command)
    leaderboard = publish_leaderboard(hub, plan, finished)
    summary = summarise_run(plan, finished, time.monotonic() - started)
    folder = run_folder(plan.recipe.run)
    path = write_summary(folder, summary)
    picture = _draw(summary, folder / "kl-against-avg.png")
    return Outcome(plan, finished, summary, path, picture, hub.identity, leaderboard)


def open_hub(plan: Plan) -> Hub:
    settings = plan.recipe.hub
    return connect(settings.endpoint, upstream=settings.upstream, private=settings.private)


def _draw(summary: dict[str, Any], path: Path) -> Path | None:
    from erpd_hub.plotting.efficiency import measured, plot_run
    from erpd_hub.plotting.style import available

    if not available() or not measured(summary["checkpoints"]):
        return None
    plot_run(summary["checkpoints"], path, title=f"{summary['run']}, seed {summary['seed']}")
    return path
