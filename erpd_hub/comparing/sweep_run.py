"""A sweep carried out: one plan, then the leaderboard rows and summary of each of its runs, one table, one picture."""

import json
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from erpd_hub.comparing.comparison import report, sweep_rows
from erpd_hub.comparing.sweep import Sweep
from erpd_hub.finished import Finished, Watch
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub
from erpd_hub.launching.options import Launch
from erpd_hub.names import slug
from erpd_hub.nodes import Plan
from erpd_hub.pipeline import open_hub
from erpd_hub.publish import publish_leaderboard, publish_repository_cards
from erpd_hub.runner import Runner
from erpd_hub.summary import selection_benchmarks, summarise_run, write_summary


@dataclass(frozen=True)
class SweepOutcome:
    sweep: Sweep
    report: dict[str, Any]
    report_path: Path
    picture: Path | None
    """None when nothing was both evaluated and probed, or matplotlib is not installed."""
    endpoint: str


def run_sweep(sweep: Sweep, *, watch: Watch | None = None, launch: Launch | None = None) -> SweepOutcome:
    """Make, or find, every artifact of a sweep; a point that cannot go on leaves the others alone."""
    started = time.monotonic()
    hub = open_hub(sweep.plan)
    runner = Runner(sweep.plan, hub, watch, launch)
    done = runner.run(keep_going=True)
    publish_repository_cards(hub, done)
    _publish_runs(hub, sweep, runner.finished)
    found = report(sweep, runner.finished, runner.failed, seconds=time.monotonic() - started)
    folder = run_folder(sweep.plan.recipe.run)
    name = f"sweep-{slug('-'.join(sweep.keys))[:80] or 'seeds'}"
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    return SweepOutcome(sweep, found, path, _draw(sweep, runner.finished, folder / f"{name}.png"), hub.identity)


def _publish_runs(hub: Hub, sweep: Sweep, finished: dict[str, Finished]) -> None:
    """Leaderboard rows under the run that each artifact is named for, and a summary of each point, as of any run."""
    # A point's part of the plan need not hold what decided something: that lies in the run which the points share.
    recipe = sweep.plan.recipe.model_copy(update={"selection": tuple(sorted(selection_benchmarks(sweep.plan)))})
    for run, items in groupby(sorted(finished.values(), key=lambda item: item.node.run), lambda item: item.node.run):
        at = recipe.model_copy(update={"run": run})
        own = list(items)
        publish_leaderboard(hub, Plan(at, tuple(item.node for item in own)), own)
    for point in sweep.points:
        own = [finished[node.name] for node in point.plan.nodes if node.name in finished]
        seconds = sum(item.seconds for item in own)
        write_summary(run_folder(point.run), summarise_run(point.plan, own, seconds))


def _draw(sweep: Sweep, finished: dict[str, Finished], path: Path) -> Path | None:
    from erpd_hub.plotting.style import available
    from erpd_hub.plotting.sweep import plot_sweep

    rows = [row for row in sweep_rows(sweep, finished) if row.any.kl_to_base is not None]
    if not rows or not available():
        return None
    plot_sweep(rows, path, title=sweep.plan.recipe.run)
    return path
