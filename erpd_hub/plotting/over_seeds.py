"""The picture of a report over seeds: what each checkpoint has gained on the base, against its KL to the base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from erpd_hub.evaluation.intervals import t_interval
from erpd_hub.plotting.efficiency import KL, draw_paths, line_looks
from erpd_hub.plotting.style import legend_below, panels, plain, png, styled

_MANY = 12
"""Checkpoints from which on each panel has the whole width and more height."""


def plot_over_seeds(checkpoints: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> bool:
    """Write a PNG of the means over seeds, those of a training joined over its saved steps, and of the frontier; where
    some lost, a second panel has the others, larger.

    Gains are taken seed by seed, since each seed has a base of its own; their bars are Student's 95 % intervals over
    seeds, those of KL 1.96 standard errors over them.

    Args:
        checkpoints: Of a report as `comparing.reproduction` makes it.

    Returns:
        Whether there was something to draw beside the base.
    """
    rows = gains(checkpoints)
    if all(row["role"] == "base" for row in rows):
        return False
    above = [row for row in rows if row["avg"] >= 0]
    parts = [rows] if len(above) in (1, len(rows)) else [rows, above]
    with styled():
        many = len(rows) > _MANY
        figure, grid = panels(len(parts), columns=1 if many else 2, height=4.8 if many else 3.4)
        for axes, part in zip(grid, parts, strict=True):
            draw_paths(axes, part, line_looks(rows))
            axes.set_ylabel(f"gain on the base, points of AVG@{rows[0]['k']}")
        figure.suptitle(plain(f"{title} ({rows[0]['benchmark']})"), fontsize=9)
        legend_below(figure, columns=3)
        with path.open("wb") as stream:
            png(figure, stream, title=title, description=KL)
    return True


def gains(checkpoints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a checkpoint that was evaluated, on the base's first benchmark, and probed at some seed, as
    `efficiency.draw_paths` takes them: `avg`, `interval` and `kl_to_base` are means over the seeds that have both and
    the base."""
    base = next((entry for entry in checkpoints if entry["role"] == "base"), None)
    if base is None:
        return []
    rows = []
    for entry in (entry for entry in checkpoints if entry["benchmark"] == base["benchmark"]):
        measured = [
            (avg - start, kl)
            for avg, start, kl in zip(entry["avg"], base["avg"], entry["kl_to_base"], strict=True)
            if None not in (avg, start, kl)
        ]
        if not measured:
            continue
        gained, kls = zip(*measured, strict=True)
        gain, kl = t_interval(gained), t_interval(kls)
        rows.append({
            **{name: entry[name] for name in ("ref", "role", "benchmark", "k")},
            "step": int(step) if (step := entry["ref"].partition("@step-")[2]) else None,  # the last one
            "avg": gain.mean,
            "interval": None if gain.low is None else (gain.low, gain.high),
            "kl_to_base": fmean(kls),
            "kl_stderr": kl.stderr,
        })  # fmt: skip
    return rows
