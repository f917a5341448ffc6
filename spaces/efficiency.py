"""AVG@K against KL to base: what a checkpoint gains for how far it went, the teacher's path over its steps, students,
and the frontier."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from address import absent, link_to, one
from charts import COLOURS, Figure, escaped, plot_of, titled
from data import Source
from leaderboard import ALL
from markup import notice
from places import Place, Query, Row, is_number
from scores import incomparable, name_of

MARKS = {"base": "star", "teacher": "square", "unlearned": "triangle-down", "student": "circle", "control": "diamond",
         "online": "hexagon", "endpoint": "cross"}  # fmt: skip
MOST_NAMED = 8
MOST_LINES = 40
"""Checkpoints that are drawn, each with all its steps."""
KL_ERROR = "kl_checkpoint_to_base_stderr"
ABOUT = (
    "A mark for each role, a colour for each checkpoint, joined over its saved steps. Bars: the 95 % interval of "
    "AVG@K; 1.96 standard errors of KL, as far as the probe's record has one."
)


def figure_of(rows: Sequence[Row]) -> Figure | None:
    """AVG@K against KL to base, on a logarithm; None with nothing to draw. A base, at a KL of 0, is a line across.

    Args:
        rows: Of one benchmark, with `kl_stderr` where it is known.
    """
    shown = [row for row in rows if _is_drawn(row)]
    if not shown:
        return None
    figure = titled("KL(checkpoint || base), full vocabulary, nats per token", "AVG@K, %")
    figure.update_xaxes(type="log", exponentformat="power", minor={"showgrid": True})
    for base in (row for row in rows if row.get("role") == "base" and row.get("avg") is not None):
        figure.add_hline(
            y=100 * base["avg"],
            line={"color": "#777777", "dash": "dash", "width": 1},
            annotation={"text": escaped(name_of(base)), "font": {"size": 11}},
        )
    lines = list(dict.fromkeys(row.get("checkpoint_repo") for row in shown))
    for number, repo in enumerate(lines[:MOST_LINES]):
        path = sorted((row for row in shown if row.get("checkpoint_repo") == repo), key=_step)
        figure.add_trace(_path(path, COLOURS[number % len(COLOURS)], is_open=number // len(COLOURS) % 2 == 1))
    _add_frontiers(figure, shown)
    return figure


def on_logarithm(row: Row) -> bool:
    """Whether a row's KL to base was measured and has a place on a logarithm."""
    return row.get("kl_checkpoint_to_base") is not None and row["kl_checkpoint_to_base"] > 0.0


def _is_drawn(row: Row) -> bool:
    return row.get("avg") is not None and on_logarithm(row)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats with less or equal x and more or equal y, by x."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


class Tab:
    """The components, and what happens when a menu changes."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        with gr.Row():
            self.run = gr.Dropdown([ALL], value=ALL, label="run", min_width=200)
            self.benchmark = gr.Dropdown([], label="benchmark", min_width=200)
        self.notice = gr.HTML(apply_default_css=False)
        self.plot = gr.Plot(show_label=False, visible=False)
        for menu in (self.run, self.benchmark):
            menu.input(
                self.show, [scores, self.run, self.benchmark], [self.notice, self.plot], api_visibility="private"
            )
        self.outputs = [self.run, self.benchmark, self.notice, self.plot]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        """What the address names; what it leaves open as the first row has it that there is something to draw of."""
        runs = [ALL, *dict.fromkeys(str(row.get("run")) for row in rows)]
        benchmarks = list(dict.fromkeys(str(row.get("benchmark")) for row in rows))
        run, benchmark = one(query, "run", runs), one(query, "benchmark", benchmarks)
        asked = [row for row in rows if run in (None, ALL, str(row.get("run")))
                 and benchmark in (None, str(row.get("benchmark")))]  # fmt: skip
        start = next(filter(_is_drawn, asked), asked[0] if asked else {})
        run = run or str(start.get("run", ALL))
        benchmark = benchmark or (str(start.get("benchmark")) if start else None)
        said, plot = self.show(rows, run, benchmark)
        missing = absent(query, {"run": runs, "benchmark": benchmarks})
        return [gr.update(choices=runs, value=run), gr.update(choices=benchmarks, value=benchmark),
                notice(missing) + said, plot]  # fmt: skip

    def show(self, rows: Sequence[Row], run: str, benchmark: str | None) -> tuple[str, object]:
        found = [row for row in rows if str(row.get("benchmark")) == benchmark and run in (ALL, str(row.get("run")))]
        if not found:
            return notice(["no checkpoint of this run was measured on this benchmark"]), plot_of(None)
        figure = figure_of(self._with_errors(found))
        said = notice([*incomparable(found), *_left_out(found)])
        if figure is None:
            return said + notice(["nothing to draw: no checkpoint has a score and a KL to base above 0"]), plot_of(None)
        about = Markup('<p class="small">{}</p>').format(ABOUT)
        return said + about + link_to("efficiency", run=run, benchmark=benchmark), plot_of(figure)

    def _with_errors(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the standard error of their KL, which the leaderboard has no column for: from the record of
        the probe that it is from."""
        probes = [_probe(row) for row in rows]
        asked = list(dict.fromkeys(place for place in probes if place is not None))[: 4 * MOST_LINES]
        records = dict(zip(asked, self.source.records(asked), strict=True))
        return [
            {**row, "kl_stderr": _error(records.get(place)) if place else None}
            for row, place in zip(rows, probes, strict=True)
        ]


def _probe(row: Row) -> Place | None:
    if not row.get("probe_repo") or not on_logarithm(row):
        return None
    return Place("dataset", row["probe_repo"], row.get("probe_revision"), row.get("probe_folder") or "")


def _error(record: Row | None) -> float | None:
    metrics = (record or {}).get("metrics")
    found: Any = metrics.get(KL_ERROR) if isinstance(metrics, dict) else None
    return float(found) if is_number(found) and found >= 0 else None


def _left_out(found: Sequence[Row]) -> list[str]:
    placed = [row for row in found if row.get("role") != "base"]
    why = {
        "no measured KL to base": [row for row in placed if row.get("kl_checkpoint_to_base") is None],
        "a KL of 0 to base, which has no place on a logarithm": [
            row for row in placed if row.get("kl_checkpoint_to_base") is not None and not on_logarithm(row)
        ],
        "no graded sample": [row for row in found if row.get("avg") is None],
    }
    sentences = [
        f"not drawn, for {reason}: {', '.join(map(name_of, rows[:MOST_NAMED]))}"
        + (f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else "")
        for reason, rows in why.items()
        if rows
    ]
    lines = len({row.get("checkpoint_repo") for row in placed if on_logarithm(row)})
    return sentences + [f"the first {MOST_LINES} of {lines} checkpoints are drawn"] * (lines > MOST_LINES)


def _path(path: Sequence[Row], colour: str, *, is_open: bool) -> dict[str, object]:
    """One checkpoint over its saved steps."""
    mark = MARKS.get(str(path[0].get("role")), "circle") + ("-open" if is_open else "")
    return {
        "type": "scatter",
        "x": [row["kl_checkpoint_to_base"] for row in path],
        "y": [100 * row["avg"] for row in path],
        "name": escaped(_line_name(path)),
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1},
        "error_x": _kl_errors(path),
        "error_y": _errors(path),
        "marker": {"symbol": mark, "size": 9, "color": colour},
        "text": [
            escaped(f"{name_of(row)}\n{row.get('checkpoint_repo')}@{(row.get('checkpoint_revision') or '')[:10]}")
            .replace("\n", "<br>")
            for row in path
        ],
        "hovertemplate": "%{text}<br>KL %{x:.4g}, AVG@K %{y:.1f} %<extra></extra>",
    }  # fmt: skip


def _line_name(path: Sequence[Row]) -> str:
    name = name_of(path[0]).partition("@")[0] if len(path) > 1 else name_of(path[0])
    return name if str(path[0].get("role")) in name else f"{name} ({path[0].get('role')})"


def _errors(path: Sequence[Row]) -> dict[str, object]:
    intervals = [row.get("interval") or (row["avg"], row["avg"]) for row in path]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 0,
        "array": [100 * (high - row["avg"]) for (_, high), row in zip(intervals, path, strict=True)],
        "arrayminus": [100 * (row["avg"] - low) for (low, _), row in zip(intervals, path, strict=True)],
    }  # fmt: skip


def _kl_errors(path: Sequence[Row]) -> dict[str, object]:
    """1.96 standard errors; one that reaches 0 ends a decade below, since a logarithm does not."""
    errors = [1.96 * (row.get("kl_stderr") or 0.0) for row in path]
    below = [min(error, 0.9 * row["kl_checkpoint_to_base"]) for error, row in zip(errors, path, strict=True)]
    return {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "array": errors, "arrayminus": below}


def _add_frontiers(figure: Figure, shown: Sequence[Row]) -> None:
    """One for each base: KL to different bases are different distances."""
    roots = list(dict.fromkeys(map(_base, shown)))
    for root in roots[:MOST_LINES]:
        best = frontier([(row["kl_checkpoint_to_base"], 100 * row["avg"]) for row in shown if _base(row) == root])
        if len(best) > 1:
            figure.add_scatter(
                x=[x for x, _ in best],
                y=[y for _, y in best],
                name="frontier" if len(roots) == 1 else f"frontier, {escaped(root)}",
                mode="lines",
                hoverinfo="skip",
                line={"color": "rgba(119,119,119,0.4)", "shape": "hv", "width": 5},
            )


def _base(row: Row) -> str:
    return f"{row.get('base_repo')}@{str(row.get('base_revision'))[:10]}"


def _step(row: Row) -> float:
    return row["step"] if row.get("step") is not None else float("inf")
