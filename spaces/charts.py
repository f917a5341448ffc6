"""Figures, from rows to plotly. Colours are Okabe and Ito's, told apart by shape and dash as well."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from places import Row, is_number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#A6761D")
DASHES = ("solid", "dash", "dot", "dashdot")
FEW_STEPS = 8
"""Up to here an axis has a tick for every step; left alone it would mark halves as well."""


class Figure(go.Figure):
    """A figure without a link to plotly's makers, and with the one button that is not in the way of a narrow page."""

    def to_json(self, *args: Any, **options: Any) -> str:
        told = json.loads(super().to_json(*args, **options))
        return json.dumps({**told, "config": {"displaylogo": False}})


def curves(runs: Mapping[str, Sequence[Row]], title: str, keys: Sequence[str]) -> Figure:
    """One panel: a colour for each training, a dash for each key. A line of the record is what a step saw before its
    own update, so it stands at the steps that had been taken by then."""
    figure = Figure()
    for colour, (name, rows) in zip(cycled(COLOURS), runs.items(), strict=False):
        for dash, key in zip(("solid", "dot"), keys, strict=False):
            points = [(row["step"] - 1, row[key]) for row in rows if has_point(row, key)]
            if points:
                figure.add_scatter(
                    x=[x for x, _ in points],
                    y=[y for _, y in points],
                    mode="lines" if len(points) > 1 else "markers",
                    name=escaped(name),
                    showlegend=False,
                    line={"color": colour, "dash": dash, "width": 1.5},
                    hovertemplate=f"{key}, %{{x}} steps taken: %{{y:.4g}}<extra></extra>",
                )
    few = max((x for trace in figure.data for x in trace.x), default=0) <= FEW_STEPS
    figure.update_layout(layout(), height=250, margin={"l": 52, "r": 12, "t": 34, "b": 40})
    figure.update_layout(title={"text": title, "font": {"size": 12}, "x": 0.02, "y": 0.97, "yanchor": "top"})
    figure.update_xaxes(
        title={"text": "optimizer steps taken", "standoff": 4, "font": {"size": 11}},
        tickformat="d",
        **({"dtick": 1} if few else {"nticks": 6}),
    )
    figure.update_yaxes(nticks=6)
    return figure


def has_point(row: Row, key: str) -> bool:
    """Whether a line of a training's record has this quantity."""
    return all(is_number(row.get(name)) for name in ("step", key))


def signal_histogram(groups: Mapping[str, Sequence[float]], floor: float | None = None) -> Figure:
    """Share of tokens by log-ratio, a line for each group, in the same bins; the outermost hold what is beyond. The
    noise floor is a band around 0."""
    figure = titled("log-ratio, nats", "share of tokens")
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    if floor:
        label = {"text": "noise floor", "font": {"size": 11}}
        figure.add_vrect(x0=-floor, x1=floor, fillcolor="#777777", opacity=0.25, line_width=0, annotation=label)
    edge = max((abs(value) for values in groups.values() for value in _inner(values)), default=1.0) or 1.0
    for (name, values), colour, dash in zip(groups.items(), cycled(COLOURS), cycled(DASHES), strict=False):
        shares = binned(values, edge)
        width = 2 * edge / len(shares)
        figure.add_scatter(x=[-edge + (number + 0.5) * width for number in range(len(shares))],
                           y=[share or None for share in shares], name=escaped(name), mode="lines",
                           line={"shape": "hvh", "color": colour, "dash": dash, "width": 1.5})  # fmt: skip
    return figure


def binned(values: Sequence[float], edge: float, count: int = 81) -> list[float]:
    """Shares of the values in `count` equal bins over [-edge, edge]."""
    bins = [0] * count
    for value in values:
        bins[min(max(int((value + edge) / (2 * edge) * count), 0), count - 1)] += 1
    return [held / len(values) for held in bins]


def _inner(values: Sequence[float]) -> Sequence[float]:
    """Without the outermost thousandth at either end, so that one outlier does not squeeze all others into one bin."""
    ordered = sorted(values)
    cut = len(ordered) // 1000
    return ordered[cut : len(ordered) - cut]


def titled(x: str, y: str) -> Figure:
    """A wide figure with the names of its axes."""
    figure = Figure()
    figure.update_layout(layout(), height=520)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def plot_of(figure: Figure | None) -> Any:
    """What a page's plot becomes; without a figure it is not there, and leaves no empty axes."""
    return gr.update(value=figure, visible=figure is not None)


def layout() -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "y": -0.18, "yanchor": "top"},
        "modebar": {"remove": ["zoom", "pan", "select", "lasso", "zoomIn", "zoomOut", "autoScale", "resetScale"]},
    }


def escaped(text: str) -> str:
    """Plotly reads a few HTML tags in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cycled(values: tuple[str, ...]) -> tuple[str, ...]:
    return values * 64
