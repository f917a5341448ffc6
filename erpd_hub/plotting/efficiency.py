"""AVG@K against KL to the base: Fig. 6 (paths over saved steps), Fig. 2b (teacher to student), the picture of a run."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import floor, log10
from pathlib import Path
from typing import Any

from erpd_hub.plotting.drawing import Drawn, Skipped, draw_scores, intervals_said, places, score_label
from erpd_hub.plotting.reading import Row, RunData, teachers_of
from erpd_hub.plotting.style import legend_below, looks, panels, plain, styled, write

KL = "KL(checkpoint || base), nats per token"
KL_ESTIMATE = "over the full vocabulary at each token of the checkpoint's own samples at temperature 1"
_SPREAD = 20
"""Largest over smallest KL from which on a linear axis would squeeze most points to its left."""


def paths(run: RunData) -> Drawn | Skipped:
    """Fig. 6: every checkpoint that was evaluated and probed, those of a training joined over its saved steps."""
    rows = measured(run.rows)
    if not [row for row in rows if row["role"] != "base"]:
        return Skipped(_why(run))
    figure, (axes,) = panels(1, width=5.2, height=3.4)
    has_frontier = draw_paths(axes, rows)
    axes.set_ylabel(score_label(rows))
    legend_below(figure, columns=3)
    return Drawn(
        figure,
        f"AVG@K against {KL}, {KL_ESTIMATE}. Points of a training are joined in order of its saved steps"
        + ("; the grey line is what no other point beats at as little KL. " if has_frontier else ". ")
        + f"{intervals_said(rows)} Bars of KL are 1.96 standard errors.",
        places([], rows),
        _unprobed(run),
    )


def pairs(run: RunData) -> Drawn | Skipped:
    """Fig. 2b: a student beside the teacher that it was distilled from."""
    rows = measured(run.rows)
    students = [row for row in rows if row["role"] == "student"]
    found = [(teacher, student) for student in students for teacher in teachers_of(run, student["repo"], rows)]
    last = {(t["ref"].partition("@")[0], s["ref"].partition("@")[0]): (t, s) for t, s in found}
    if not last:
        return Skipped("; ".join(["no student was evaluated and probed together with its teacher", *_unprobed(run)]))
    figure, (axes,) = panels(1, width=4.6, height=3.0)
    shown = list({id(row): row for pair in last.values() for row in pair}.values())
    base = [row for row in rows if row["role"] == "base"][:1]
    drawn = [*base, *shown]
    look = looks([row["ref"] for row in drawn], {row["ref"]: row["role"] for row in drawn})
    for row in drawn:
        _draw_points(axes, [row], look[row["ref"]] | {"linestyle": "none", "markersize": 7}, row["ref"])
    for teacher, student in last.values():
        axes.annotate("", _place(student), _place(teacher),
                      arrowprops={"arrowstyle": "->", "color": "#555555", "shrinkA": 6, "shrinkB": 6})  # fmt: skip
    _scale(axes, drawn)
    axes.set_ylabel(score_label(rows))
    legend_below(figure, columns=3)
    return Drawn(
        figure,
        f"From teachers to the students distilled from them (arrows): AVG@K against {KL}, {KL_ESTIMATE}. "
        f"{intervals_said(drawn)} Bars of KL are 1.96 standard errors.",
        places([], drawn),
        _unprobed(run),
    )


def plot_run(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Write the PNG of a run: a panel for each benchmark."""
    by_benchmark = [list(own) for _, own in groupby(sorted(measured(rows), key=_benchmark), key=_benchmark)]
    with styled():
        figure, axes = panels(len(by_benchmark), columns=2, height=3.4)
        for one, own in zip(axes, by_benchmark, strict=True):
            draw_paths(one, own)
            one.set_ylabel(score_label(own))
        figure.suptitle(plain(title), fontsize=9)
        legend_below(figure, columns=3)
        write(figure, path.with_suffix(""), ["png"], title=title, description=f"{KL}, {KL_ESTIMATE}")


def draw_paths(axes: Any, rows: Sequence[Row], look: Mapping[str, Mapping[str, Any]] | None = None) -> bool:
    """Every line of checkpoints in its own look; returns whether there is a frontier, which needs three points.

    Args:
        look: By line, where several panels share them.
    """
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(line_of(row), []).append(row)
    look = look or line_looks(rows)
    best = frontier([_place(row) for row in rows])
    if len(best) > 2:
        wide = {"color": "#BBBBBB", "linewidth": 3.5, "alpha": 0.6, "zorder": 1}  # to be seen on both sides of bars
        axes.plot(*zip(*best, strict=True), drawstyle="steps-post", label="frontier", **wide)
    for name, line in lines.items():
        ordered = sorted(line, key=lambda row: (row["step"] is None, row["step"]))
        _draw_points(axes, ordered, look[name], f"{name} ({line[0]['role']})" if name != line[0]["role"] else name)
        if len(ordered) > 1:
            for row in (row for row in ordered if row["step"] is not None):
                axes.annotate(str(row["step"]), _place(row), (3, 3), textcoords="offset points", fontsize=5.5,
                              color=look[name]["color"])  # fmt: skip
    _scale(axes, rows)
    return len(best) > 2


def line_looks(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How each line of checkpoints is drawn, by its name."""
    roles: dict[str, str] = {}
    for row in rows:
        roles.setdefault(line_of(row), row["role"])
    return looks(list(roles), roles)


def line_of(row: Row) -> str:
    """The training whose saved steps are joined."""
    return str(row["ref"]).partition("@")[0]


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats with less or equal x and more or equal y, by x."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _draw_points(axes: Any, rows: Sequence[Row], look: Mapping[str, Any], label: str) -> None:
    draw_scores(axes, [row["kl_to_base"] for row in rows], rows, look, label)
    errors = [1.96 * (row.get("kl_stderr") or 0.0) for row in rows]
    points = [_place(row) for row in rows]
    if any(errors):
        left = [min(error, max(kl, 0.0)) for error, (kl, _) in zip(errors, points, strict=True)]  # no KL is below 0
        axes.errorbar(*zip(*points, strict=True), xerr=[left, errors], fmt="none", ecolor=look["color"], elinewidth=0.6,
                      alpha=0.5)  # fmt: skip


def _scale(axes: Any, rows: Sequence[Row]) -> None:
    """A linear axis, or one that is linear only up to the smallest KL; both have a place for the base's 0."""
    positive = sorted(row["kl_to_base"] for row in rows if row["kl_to_base"] > 0)
    if positive and positive[-1] / positive[0] > _SPREAD:
        threshold = 10.0 ** floor(log10(max(positive[0], positive[-1] / 1e4)))
        axes.set_xscale("symlog", linthresh=threshold, linscale=0.5)
        axes.set_xlim(-threshold / 3, 2 * positive[-1])
    axes.set_xlabel(KL)


def _place(row: Row) -> tuple[float, float]:
    return row["kl_to_base"], 100 * row["avg"]


def _benchmark(row: Row) -> str:
    return str(row["benchmark"])


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those that have both a score and a KL to the base."""
    return [row for row in rows if row["kl_to_base"] is not None and row["avg"] is not None]


def _unprobed(run: RunData) -> tuple[str, ...]:
    names = [row["ref"] for row in run.rows if row["kl_to_base"] is None]
    return (f"no KL was measured of {', '.join(names)}; list them under the recipe's probe",) if names else ()


def _why(run: RunData) -> str:
    if not run.rows:
        return "nothing was evaluated"
    return "a `probe` step gives the KL to the base, and no checkpoint but the base has one"
