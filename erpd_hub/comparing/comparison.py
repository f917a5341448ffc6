"""What a sweep found: every checkpoint at every point and seed, means over seeds, and paired differences.

All numbers come from the records of `evaluate` and `probe` artifacts. A difference is taken seed by seed, and its
interval says what other seeds may show; a single seed has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from erpd_hub import config as c
from erpd_hub.comparing.grid import Settings, point_name
from erpd_hub.comparing.sweep import Point, Sweep
from erpd_hub.evaluation.intervals import t_interval
from erpd_hub.finished import Finished
from erpd_hub.recipe_model import Recipe
from erpd_hub.summary import Checkpoint, artifact_entry, checkpoints

SCHEMA = "erpd-hub/sweep/v1"
FIGURES = ("kl_to_base", "entropy", "mean_length", "truncated")
PLACE = ("repo", "revision", "digest", "details")


class Row(NamedTuple):
    """One checkpoint on one benchmark, at the points at which it is the same artifact."""

    points: tuple[Settings, ...]
    settings: Settings
    """What those points have in common."""
    checkpoint: str
    benchmark: str
    by_seed: dict[int, Checkpoint]
    """In the sweep's order; a seed that failed is missing."""

    @property
    def any(self) -> Checkpoint:
        return next(iter(self.by_seed.values()))

    @property
    def averages(self) -> dict[int, float]:
        return {seed: item.avg for seed, item in self.by_seed.items() if item.avg is not None}


class Difference(NamedTuple):
    """AVG@K of a row minus that of another, seed by seed."""

    to: str
    """`base`, `first point`, or a control as the recipe has it: `no-teacher`, `tuned-1e-5`."""
    checkpoint: str
    by_seed: dict[int, float]
    mean: float
    low: float | None
    """Of the 95 % t-interval over seeds; None for a single seed."""
    high: float | None


def sweep_rows(sweep: Sweep, finished: Mapping[str, Finished]) -> list[Row]:
    """A row for each evaluated checkpoint that is another one, first those that all points share.

    Args:
        finished: By the name of the node in the sweep's plan.
    """
    found: dict[tuple[str, str], dict[Settings, dict[int, Checkpoint]]] = {}
    for point in sweep.points:
        for item in checkpoints(point.plan, [finished[n.name] for n in point.plan.nodes if n.name in finished]):
            points = found.setdefault((item.ref, item.benchmark), {})
            points.setdefault(point.settings, {})[point.seed] = item
    rows = [row for (ref, benchmark), points in found.items() for row in _grouped(ref, benchmark, points)]
    everywhere = len({point.settings for point in sweep.points})
    return sorted(rows, key=lambda row: len(row.points) < everywhere)


def _grouped(ref: str, benchmark: str, points: Mapping[Settings, dict[int, Checkpoint]]) -> Iterable[Row]:
    groups: dict[tuple[str, ...], list[Settings]] = {}
    for settings, by_seed in points.items():
        groups.setdefault(tuple(item.details for item in by_seed.values()), []).append(settings)
    for group in groups.values():
        common = tuple(setting for setting in group[0] if all(setting in other for other in group))
        yield Row(tuple(group), common, ref, benchmark, points[group[0]])


def differences(row: Row, rows: Sequence[Row], recipe: Recipe) -> list[Difference]:
    """To the base, to the first point, and to each of the checkpoint's controls at the same point.

    Args:
        recipe: That of the row's point, which may have controls that the first point's has not.
    """
    same = [other for other in rows if other.benchmark == row.benchmark]
    here = [other for other in same if row.points[0] in other.points]
    first = next(other for other in same if other.checkpoint == row.checkpoint)
    found = [("base", other) for other in here if other.any.role == "base" and row.any.role != "base"]
    if first is not row:
        found.append(("first point", first))
    controls = controls_of(row.checkpoint, recipe)
    found += [(controls[other.checkpoint], other) for other in here if other.checkpoint in controls]
    return [difference for to, other in found if (difference := _difference(to, row, other)) is not None]


def controls_of(checkpoint: str, recipe: Recipe) -> dict[str, str]:
    """The controls of a checkpoint at the same saved step: reference and short name."""
    name, at, step = checkpoint.partition("@")
    round_, slash, bare = name.rpartition("/")
    return {
        f"{round_}{slash}{other}{at}{step}": other.removeprefix(f"{bare}-")
        for steps in (item.steps for item in recipe.rounds)
        for other, config in steps.items()
        if isinstance(config, c.TrainingConfig) and config.control_of == bare
    }


def _difference(to: str, row: Row, other: Row) -> Difference | None:
    theirs = other.averages
    by_seed = {seed: value - theirs[seed] for seed, value in row.averages.items() if seed in theirs}
    if not by_seed:
        return None
    interval = t_interval(list(by_seed.values()))
    return Difference(to, other.checkpoint, by_seed, interval.mean, interval.low, interval.high)


# --------------------------------------------------------------------------------------------- the report


def report(
    sweep: Sweep, finished: Mapping[str, Finished], failed: Mapping[str, str], *, seconds: float
) -> dict[str, Any]:
    """The `--json` object: every point, every seed, nothing left out."""
    rows = sweep_rows(sweep, finished)
    recipes = {point.settings: point.plan.recipe for point in sweep.points}
    artifacts = [artifact_entry(item) for item in finished.values()]
    return {
        "schema": SCHEMA,
        "recipe": sweep.origin,
        "run": sweep.plan.recipe.run,
        "seeds": list(dict.fromkeys(point.seed for point in sweep.points)),
        "seconds": round(seconds, 2),
        **describe_points(sweep),
        "rows": [_row(row, rows, recipes[row.points[0]]) for row in rows],
        "failures": [{"step": name, "reason": reason} for name, reason in failed.items()],
        "artifacts": artifacts,
        "made": sum(not item["reused"] for item in artifacts),
        "reused": sum(item["reused"] for item in artifacts),
    }


def describe_points(sweep: Sweep) -> dict[str, Any]:
    """The points that a sweep has, and those that it left out."""
    return {
        "keys": list(sweep.keys),
        "points": _points(sweep.points),
        "refused": [{"settings": _values(settings), "reason": reason} for settings, reason in sweep.refused],
    }


def _points(points: Iterable[Point]) -> list[dict[str, Any]]:
    found: dict[Settings, dict[str, Any]] = {}
    for point in points:
        entry = found.setdefault(
            point.settings, {"point": point_name(point.settings), "settings": _values(point.settings), "runs": {}}
        )
        entry["runs"][str(point.seed)] = point.run
    return list(found.values())


def _row(row: Row, rows: Sequence[Row], recipe: Recipe) -> dict[str, Any]:
    averages = list(row.averages.values())
    over_seeds = t_interval(averages) if averages else None
    several = len(row.by_seed) > 1
    return {
        "points": [point_name(settings) for settings in row.points],
        "settings": _values(row.settings),
        "checkpoint": row.checkpoint,
        "role": row.any.role,
        "step": row.any.step,
        "benchmark": row.benchmark,
        "k": row.any.k,
        "n": row.any.n,
        "avg": over_seeds and over_seeds.mean,
        "stderr": over_seeds and (over_seeds.stderr if several else row.any.stderr),
        "stderr_over": "seeds" if several else "problems",
        **{name: _mean(getattr(item, name) for item in row.by_seed.values()) for name in FIGURES},
        "seeds": [_seed(seed, item) for seed, item in row.by_seed.items()],
        "differences": [_described(item) for item in differences(row, rows, recipe)],
    }


def _described(difference: Difference) -> dict[str, Any]:
    return difference._asdict() | {"by_seed": {str(seed): value for seed, value in difference.by_seed.items()}}


def _seed(seed: int, item: Checkpoint) -> dict[str, Any]:
    return {"seed": seed} | {name: getattr(item, name) for name in ("avg", "stderr", *FIGURES, *PLACE)}


def _values(settings: Settings) -> dict[str, Any]:
    return {setting.key: setting.value for setting in settings}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
