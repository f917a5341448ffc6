"""Figures, from rows to plotly. Colours are Okabe and Ito's, told apart by shape and dash as well."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot")
ROLE_MARKS = {"base": ("#000000", "star"), "teacher": ("#D55E00", "square"), "unlearned": ("#CC79A7", "triangle-down"),
              "student": ("#0072B2", "circle"), "control": ("#009E73", "diamond"), "online": ("#E69F00", "hexagon"),
              "endpoint": ("#56B4E9", "cross")}  # fmt: skip

FEW_STEPS = 8
"""Up to here an axis has a tick for every step; left alone it would mark halves as well."""

Row = dict[str, Any]


def efficiency(rows: Sequence[Row]) -> go.Figure:
    """AVG@K against KL to base, on a logarithm: each checkpoint's path over its steps, and the frontier of each base.

    A base has no KL to itself and is a line across.
    """
    figure = _figure("KL(checkpoint || base), full vocabulary, nats per token", "AVG@K, %")
    figure.update_xaxes(type="log", exponentformat="power", minor={"showgrid": True})
    for base in (row for row in rows if row.get("role") == "base" and row.get("avg") is not None):
        figure.add_hline(
            y=100 * base["avg"],
            line={"color": "#000000", "dash": "dash", "width": 1},
            annotation={"text": f"{_escaped(str(base.get('run')))}: base", "font": {"size": 11}},
        )
    shown = [row for row in rows if row.get("avg") is not None and on_logarithm(row)]
    named: set[str] = set()
    for repo in dict.fromkeys(row.get("checkpoint_repo") for row in shown):
        path = sorted((row for row in shown if row.get("checkpoint_repo") == repo), key=_step)
        role = str(path[0].get("role"))
        figure.add_trace(_path(path, role, first=role not in named))
        named.add(role)
    roots = list(dict.fromkeys(map(_base, shown)))
    for root in roots:
        best = frontier([(row["kl_checkpoint_to_base"], 100 * row["avg"]) for row in shown if _base(row) == root])
        if len(best) > 1:
            figure.add_scatter(
                x=[x for x, _ in best],
                y=[y for _, y in best],
                name="frontier" if len(roots) == 1 else f"frontier, {_escaped(root)}",
                mode="lines",
                hoverinfo="skip",
                line={"color": "#777777", "dash": "dot", "shape": "hv", "width": 1.5},
            )
    return figure


def on_logarithm(row: Row) -> bool:
    """Whether a row's KL to base was measured and has a place on a logarithm."""
    return row.get("kl_checkpoint_to_base") is not None and row["kl_checkpoint_to_base"] > 0.0


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats with less or equal x and more or equal y, by x."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def curves(runs: Mapping[str, Sequence[Row]], panels: Sequence[tuple[str, Sequence[str]]]) -> go.Figure:
    """Small multiples: a panel per (title, keys), a colour per run, a dash per key. A line of the record is what a step
    saw before its own update, so it stands at the steps that had been taken by then."""
    count = (len(panels) + 1) // 2
    figure = make_subplots(
        rows=count, cols=2, subplot_titles=[title for title, _ in panels], vertical_spacing=0.28 / count
    )
    named: set[str] = set()
    for number, (_, keys) in enumerate(panels):
        for colour, (name, rows) in zip(_cycle(COLOURS), runs.items(), strict=False):
            for dash, key in zip(("solid", "dot"), keys, strict=False):
                points = [(row["step"] - 1, row[key]) for row in rows if has_point(row, key)]
                if not points:
                    continue
                figure.add_scatter(
                    x=[x for x, _ in points],
                    y=[y for _, y in points],
                    mode="lines",
                    row=number // 2 + 1,
                    col=number % 2 + 1,
                    name=_escaped(name),
                    legendgroup=name,
                    showlegend=name not in named,
                    line={"color": colour, "dash": dash, "width": 1.5},
                    hovertemplate=f"{key}, %{{x}} steps taken: %{{y:.4g}}<extra></extra>",
                )
                named.add(name)
    figure.update_layout(
        **_layout() | {"legend": {"orientation": "h", "y": 1.04, "yanchor": "bottom"}}, height=260 * count + 80
    )
    figure.update_annotations(font_size=12)
    few = max((x for trace in figure.data for x in trace.x), default=0) <= FEW_STEPS
    figure.update_xaxes(
        title={"text": "optimizer steps taken", "standoff": 4},
        tickformat="d",
        title_font_size=11,
        **({"dtick": 1} if few else {}),
    )
    return figure


def has_point(row: Row, key: str) -> bool:
    """Whether a line of a training's record has this quantity."""
    return all(isinstance(row.get(name), int | float) for name in ("step", key))


def signal_histogram(groups: Mapping[str, Sequence[float]], title: str, floor: float | None = None) -> go.Figure:
    """Share of tokens by log-ratio, a line for each group, in the same bins; the outermost hold what is beyond. The
    noise floor is a band around 0."""
    figure = _figure("log-ratio, nats", "share of tokens")
    figure.update_layout(title={"text": _escaped(title), "font": {"size": 13}})
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    if floor:
        label = {"text": "noise floor", "font": {"size": 11}}
        figure.add_vrect(x0=-floor, x1=floor, fillcolor="#777777", opacity=0.25, line_width=0, annotation=label)
    edge = max((abs(value) for values in groups.values() for value in _inner(values)), default=1.0) or 1.0
    for (name, values), colour, dash in zip(groups.items(), _cycle(COLOURS), _cycle(DASHES), strict=False):
        shares = binned(values, edge)
        width = 2 * edge / len(shares)
        figure.add_scatter(x=[-edge + (number + 0.5) * width for number in range(len(shares))],
                           y=[share or None for share in shares], name=_escaped(name), mode="lines",
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


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(**_layout(), height=520)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def _layout() -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "y": -0.18},
    }


def _path(path: Sequence[Row], role: str, *, first: bool) -> go.Scatter:
    """One checkpoint over its saved steps; `first` of its role is the one in the legend."""
    colour, mark = ROLE_MARKS.get(role, ("#777777", "circle"))
    return go.Scatter(
        x=[row["kl_checkpoint_to_base"] for row in path],
        y=[100 * row["avg"] for row in path],
        name=role,
        legendgroup=role,
        showlegend=first,
        mode="lines+markers",
        line={"color": colour, "width": 1},
        error_y=_errors(path),
        marker={"symbol": mark, "size": 9, "color": colour},
        text=[
            f"{row.get('run')}: {row.get('checkpoint')}<br>"
            f"{row.get('checkpoint_repo')}@{(row.get('checkpoint_revision') or '')[:10]}"
            for row in map(_plain, path)
        ],
        hovertemplate="%{text}<br>KL %{x:.4g}, AVG@K %{y:.1f} %<extra></extra>",
    )


def _errors(path: Sequence[Row]) -> dict[str, Any]:
    intervals = [row.get("interval") or (row["avg"], row["avg"]) for row in path]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 0,
        "array": [100 * (high - row["avg"]) for (_, high), row in zip(intervals, path, strict=True)],
        "arrayminus": [100 * (row["avg"] - low) for (low, _), row in zip(intervals, path, strict=True)],
    }  # fmt: skip


def _plain(row: Row) -> Row:
    return {name: _escaped(str(value)) for name, value in row.items() if isinstance(value, str)}


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _base(row: Row) -> str:
    return f"{row.get('base_repo')}@{str(row.get('base_revision'))[:10]}"


def _step(row: Row) -> int:
    return row["step"] if row.get("step") is not None else 1 << 30


def _cycle(values: tuple[str, ...]) -> tuple[str, ...]:
    return values * 32
