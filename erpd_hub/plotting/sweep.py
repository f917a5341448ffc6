"""The picture of a sweep: AVG@K against KL to the base, over points and seeds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from erpd_hub.plotting.efficiency import KL
from erpd_hub.plotting.style import COLOURS, MARKERS, legend_below, panels, plain, styled, write

if TYPE_CHECKING:
    from erpd_hub.comparing.comparison import Row


def plot_sweep(rows: Sequence["Row"], path: Path, *, title: str) -> None:
    """Write a PNG: a colour for each point, a marker for each line of checkpoints. Means over seeds are large, joined
    over the saved steps of a training; the seeds themselves are small. What points share is grey, with its settings."""
    drawn = [row for row in rows if _places(row)]
    points = list(dict.fromkeys(row.settings for row in drawn if len(row.points) == 1))
    names = list(dict.fromkeys(_name(row) for row in drawn))
    with styled():
        colours = dict(zip(points, _colours(len(points)), strict=True))
        figure, (axes,) = panels(1, height=4.2)
        for (settings, name, _), line in _lines(drawn).items():
            shared = len(line[0].points) > 1
            colour = "#555555" if shared else colours[settings]
            _draw_line(axes, line, colour, MARKERS[names.index(name) % len(MARKERS)])
            if shared and settings:
                text = plain(_point_label(settings))
                axes.annotate(text, _mean_place(_places(line[-1])), (7, 5), textcoords="offset points", fontsize=6)
        for settings in points if len(points) > 1 else ():
            axes.plot([], [], color=colours[settings], linewidth=5, label=plain(_point_label(settings)))
        for at, name in enumerate(names):
            axes.plot([], [], color="grey", linestyle="", marker=MARKERS[at % len(MARKERS)], label=plain(name))
        _label(axes, drawn, title)
        legend_below(figure, columns=3)
        write(figure, path.with_suffix(""), ["png"], title=title, description=KL)


def _draw_line(axes: Any, line: Sequence["Row"], colour: Any, marker: str) -> None:
    means = [_mean_place(_places(row)) for row in line]
    axes.plot(*zip(*means, strict=True), color=colour, marker=marker, markersize=8, linewidth=1.2)
    seeds = [place for row in line for place in _places(row)]
    if len(seeds) > len(line):
        axes.plot(*zip(*seeds, strict=True), color=colour, marker=marker, markersize=3, alpha=0.5, linestyle="")


def _label(axes: Any, drawn: Sequence["Row"], title: str) -> None:
    items = [item for row in drawn for item in row.by_seed.values() if item.kl_to_base is not None]
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(-0.001, 2.5 * max(0.01, *(item.kl_to_base or 0.0 for item in items)))  # room for names on the right
    axes.set_xlabel(KL)
    k = "/".join(str(number) for number in sorted({item.k for item in items}))
    axes.set_ylabel(f"AVG@{k} on {plain(', '.join(sorted({item.benchmark for item in items})))}, %")
    axes.set_title(plain(title))


def _colours(number: int) -> Sequence[Any]:
    """Colours that colour-blind readers tell apart; of many, a scale that grows darker evenly."""
    if number <= len(COLOURS):
        return COLOURS[:number]
    from matplotlib import colormaps

    return [colormaps["cividis"](index / (number - 1)) for index in range(number)]


def _point_label(settings: Sequence[Any]) -> str:
    return ", ".join(f"{setting.key}={setting.text}" for setting in settings) or "the recipe itself"


def _name(row: "Row") -> str:
    return row.checkpoint.partition("@")[0]


def _places(row: "Row") -> list[tuple[float, float]]:
    """KL and AVG@K in percent of each seed."""
    items = row.by_seed.values()
    return [(item.kl_to_base, 100 * item.avg) for item in items if item.kl_to_base is not None and item.avg is not None]


def _mean_place(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(x for x, _ in places), fmean(y for _, y in places)


def _lines(rows: Sequence["Row"]) -> dict[tuple[Any, str, str], list["Row"]]:
    """Rows of the same training and point, in order of step."""
    lines: dict[tuple[Any, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.settings, _name(row), row.benchmark), []).append(row)
    return {key: sorted(line, key=lambda row: row.any.step or 0) for key, line in lines.items()}
