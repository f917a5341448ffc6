"""What figures share: scores with their intervals, a training's curves, the base's line, lettered panels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from erpd_hub.plotting.reading import Made, Row, RunData, interval, place_of
from erpd_hub.plotting.style import plain

RIGHT, WRONG = "right responses", "wrong responses"
STEPS = "optimizer steps taken"
MANY = 200
"""Points from which on a line is drawn thin, since it goes up and down within its own width."""


class Drawn(NamedTuple):
    figure: Any
    caption: str
    artifacts: tuple[str, ...]
    """`namespace/name@revision` of everything that is drawn."""
    missing: tuple[str, ...] = ()
    """What belongs into the figure and is not there, with the reason."""


class Skipped(NamedTuple):
    why: str


Figure = Callable[[RunData], Drawn | Skipped]


def score_label(rows: Sequence[Row]) -> str:
    """Of rows on one benchmark."""
    k = "/".join(str(number) for number in sorted({row["k"] for row in rows}))
    return f"AVG@{k} on {plain(str(rows[0]['benchmark']))}, %"


def draw_scores(axes: Any, xs: Sequence[float], rows: Sequence[Row], look: Mapping[str, Any], label: str) -> None:
    """AVG@K in percent with its 95 % interval, where the record has one."""
    averages = [100 * row["avg"] for row in rows]
    intervals = [interval(row) or (float("nan"), float("nan")) for row in rows]
    low = [average - 100 * bounds[0] for average, bounds in zip(averages, intervals, strict=True)]
    high = [100 * bounds[1] - average for average, bounds in zip(averages, intervals, strict=True)]
    axes.errorbar(xs, averages, yerr=[low, high], capsize=2, elinewidth=0.8, label=plain(label), **look)


def draw_base(axes: Any, run: RunData) -> None:
    """The base's score as a line across."""
    if run.base is not None:
        axes.axhline(100 * run.base["avg"], color="black", linestyle="--", linewidth=0.9, label="base")


def draw_curve(axes: Any, training: Made, key: str, **look: Any) -> None:
    """One recorded quantity of a training. A line of the record is what a step saw before its own update, so it stands
    at the steps that had been taken by then."""
    points = [(line["step"] - 1, line[key]) for line in training.curve if line.get(key) is not None]
    width = {"linewidth": 0.8} if len(points) > MANY else {}
    axes.plot(*zip(*points, strict=True), **{"markevery": max(1, len(points) // 8)} | width | look)


def has_curve(training: Made, *keys: str) -> bool:
    return any(line.get(key) is not None for line in training.curve for key in keys)


def count_steps(panels: Sequence[Any], label: str = STEPS) -> None:
    """Optimizer steps along the horizontal axes."""
    from matplotlib.ticker import MaxNLocator

    for axes in panels:
        axes.set_xlabel(label)
        low, high = axes.dataLim.intervalx
        if 0 <= high - low < 1:  # a single step, which would get ticks at its fractions
            axes.set_xlim(low - 1, high + 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def letter(panels: Sequence[Any], titles: Sequence[str]) -> None:
    for axes, title, name in zip(panels, titles, "abcdefghijkl", strict=False):
        axes.set_title(f"({name}) {title}" if len(panels) > 1 else title, loc="left")


def places(made: Sequence[Made], rows: Sequence[Row] = ()) -> tuple[str, ...]:
    """Everything drawn, each once."""
    return tuple(dict.fromkeys([*(item.place for item in made), *(place_of(row) for row in rows)]))


def intervals_said(rows: Sequence[Row]) -> str:
    """What the bars are, for a caption."""
    if not any(interval(row) for row in rows):
        return "No intervals were recorded."
    recorded = all(row.get("interval") for row in rows)
    return "Bars are 95 % intervals over problems" + (
        "." if recorded else ", where none was recorded 1.96 standard errors."
    )
