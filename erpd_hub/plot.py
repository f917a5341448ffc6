"""The pictures of a run and of a sweep: AVG@K against KL to base, a path per line of checkpoints over its steps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from erpd_hub.summary import Checkpoint

if TYPE_CHECKING:
    from erpd_hub.comparing.comparison import Row

# Okabe-Ito colours: told apart by colour-blind readers; markers differ as well, for print.
STYLE = {
    "base": ("black", "*"),
    "teacher": ("#D55E00", "s"),
    "unlearned": ("#999999", "v"),
    "student": ("#0072B2", "o"),
    "control": ("#009E73", "D"),
    "online": ("#CC79A7", "^"),
}

MOST_INSIDE = 8
"""Entries of a legend that find room between the marks."""


def plot_frontier(checkpoints: Sequence[Checkpoint], path: Path, *, title: str) -> None:
    """Write a PNG: x KL(checkpoint || base) in nats per token (symmetric log), y AVG@K with one standard error."""
    drawn = [item for item in checkpoints if item.kl_to_base is not None and item.avg is not None]
    labelled: set[str] = set()
    with _canvas(path, drawn, title) as axes:
        for name, line in _lines(drawn).items():
            role = line[0].role
            colour, marker = STYLE[role]
            axes.errorbar(
                [item.kl_to_base or 0.0 for item in line],
                [item.avg for item in line],
                yerr=[item.stderr or 0.0 for item in line],
                color=colour,
                marker=marker,
                markersize=11 if role == "base" else 6,
                linestyle="-" if len(line) > 1 else "none",
                capsize=2,
                label=None if role in labelled else role,
            )
            labelled.add(role)
            for item in line:
                text = f"{name} {item.step}" if item is line[-1] and len(line) > 1 else str(item.step)
                place = (item.kl_to_base or 0.0, item.avg or 0.0)
                axes.annotate(name if len(line) == 1 else text, place, (6, 5), textcoords="offset points", fontsize=7)


def plot_sweep(rows: Sequence["Row"], path: Path, *, title: str) -> None:
    """Write a PNG: a colour for each point, a marker for each line of checkpoints. Means over seeds are large, joined
    over the saved steps of a training; the seeds themselves are small. What points share is grey, with its settings."""
    drawn = [row for row in rows if _places(row)]
    points = list(dict.fromkeys(row.settings for row in drawn if len(row.points) == 1))
    names = list(dict.fromkeys(_name(row) for row in drawn))
    colours = dict(zip(points, _colours(len(points)), strict=True))
    everything = [item for row in drawn for item in row.by_seed.values() if item.kl_to_base is not None]
    with _canvas(path, everything, title) as axes:
        for (settings, name, _), line in _sweep_lines(drawn).items():
            shared = len(line[0].points) > 1
            colour = "#555555" if shared else colours[settings] if len(points) > 1 else STYLE[line[0].any.role][0]
            marker = _MARKERS[names.index(name) % len(_MARKERS)]
            means = [_mean_place(_places(row)) for row in line]
            axes.plot(*zip(*means, strict=True), color=colour, marker=marker, markersize=9, linewidth=1.2)
            if shared and settings:
                axes.annotate(_point_label(settings), means[-1], (7, 5), textcoords="offset points", fontsize=6)
            seeds = [place for row in line for place in _places(row)]
            if len(seeds) > len(line):
                axes.plot(*zip(*seeds, strict=True), color=colour, marker=marker, markersize=3, alpha=0.5, linestyle="")
        for settings in points if len(points) > 1 else ():
            axes.plot([], [], color=colours[settings], linewidth=5, label=_point_label(settings))
        for name in names:
            axes.plot(
                [], [], color="grey", linestyle="", marker=_MARKERS[names.index(name) % len(_MARKERS)], label=name
            )


_MARKERS = "osD^vP*X<>hp"
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A900")


def _colours(number: int) -> Sequence[Any]:
    """Colours that colour-blind readers tell apart; of many, a scale that grows darker evenly."""
    if number <= len(_OKABE_ITO):
        return _OKABE_ITO[:number]
    from matplotlib import colormaps

    return [colormaps["cividis"](index / (number - 1)) for index in range(number)]


def _point_label(settings: Sequence[Any]) -> str:
    return ", ".join(f"{setting.key}={setting.text}" for setting in settings) or "the recipe itself"


def _name(row: "Row") -> str:
    return row.checkpoint.partition("@")[0]


def _places(row: "Row") -> list[tuple[float, float]]:
    """KL and AVG@K of each seed."""
    items = row.by_seed.values()
    return [(item.kl_to_base, item.avg) for item in items if item.kl_to_base is not None and item.avg is not None]


def _mean_place(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(x for x, _ in places), fmean(y for _, y in places)


def _sweep_lines(rows: Sequence["Row"]) -> dict[tuple[Any, str, str], list["Row"]]:
    """Rows of the same training and point, in order of step."""
    lines: dict[tuple[Any, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.settings, _name(row), row.benchmark), []).append(row)
    return {key: sorted(line, key=lambda row: row.any.step or 0) for key, line in lines.items()}


@contextmanager
def _canvas(path: Path, drawn: Sequence[Checkpoint], title: str) -> Iterator[Any]:
    """Axes that are labelled and written when everything has been drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    yield axes
    _decorate(axes, drawn, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _lines(checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """Checkpoints of the same training, by name, in order of step; the base is where every path starts."""
    lines: dict[str, list[Checkpoint]] = {}
    for item in checkpoints:
        lines.setdefault(item.ref.partition("@")[0], []).append(item)
    return {name: sorted(line, key=lambda item: item.step or 0) for name, line in lines.items()}


def _decorate(axes, drawn: Sequence[Checkpoint], title: str) -> None:  # type: ignore[no-untyped-def]
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(-0.001, 2.5 * max(0.01, *(item.kl_to_base or 0.0 for item in drawn)))  # room for names on the right
    axes.set_xlabel("KL(checkpoint || base), nats per token, on the checkpoint's own samples at T=1")
    k = sorted({item.k for item in drawn})
    axes.set_ylabel(f"AVG@{'/'.join(map(str, k))} on {', '.join(sorted({item.benchmark for item in drawn}))}")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(axes.get_legend_handles_labels()[0]) > MOST_INSIDE:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.figure.set_size_inches(12, 5)
    else:
        axes.legend(fontsize=8, loc="best")
