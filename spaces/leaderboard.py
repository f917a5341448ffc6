"""The leaderboard: every published score, students under their teachers under their base, the paper's numbers beside.

The rows come from the leaderboard dataset as they are; `board` is what the page's menus do to them.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from address import absent, one
from data import Source
from families import MOST_ASKED, by_lineage, started_from
from markup import badge, link, notice, table
from places import Place, Query, Row, checkpoint_place, details_place
from reported import reported_rows
from scores import ROLES, incomparable, judged, loss_of, marks, measured_on, number, percent, score_text

ALL = "all"
SORTS = {
    "lineage": None,
    "AVG@K": lambda row: -(row.get("avg") or 0.0),
    "KL to base": lambda row: _or_last(row.get("kl_checkpoint_to_base")),
    "mean length": lambda row: _or_last(row.get("mean_length")),
    "truncated": lambda row: -(row.get("truncated") or 0.0),
}
HEADERS = ("checkpoint", "AVG@K % (95 %)", "KL to base", "entropy", "role", "loss", "strategy", "benchmark",
           "K x problems", "tokens", "cut off %", "no answer %", "samples", "judge")  # fmt: skip
"""What a narrow window shows first; the last only where somebody judged. KL and entropy are in nats a token."""
MENUS = ("run", "benchmark", "role", "loss", "strategy")
DEEPEST = 6
"""Levels that are indented further; the style has as many."""
MOST_SHOWN = 1_000


def chosen(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values; `all` leaves a column open. A reported row is of no run."""
    return [
        row
        for row in rows
        if all(
            value in (ALL, str(row.get(name))) or (name == "run" and row.get("reported"))
            for name, value in wanted.items()
        )
    ]


def board(source: Source, rows: Sequence[Row], sort: str) -> Markup:
    """The table, below what keeps its rows from being compared."""
    if not rows:
        return notice(["no score has these values"])
    key = SORTS.get(sort)
    measured = [row for row in rows if not row.get("reported")]
    said = incomparable(measured)
    if key is None:
        above, unread = started_from(source, measured)
        ordered = by_lineage(rows, above)
        said += [f"{unread} checkpoints stand below their base: the lineage of {MOST_ASKED} was read"] * (unread > 0)
    else:
        ordered = [(0, row) for row in sorted(rows, key=key)]
    said += [f"the first {MOST_SHOWN:,} of {len(ordered):,} scores"] * (len(ordered) > MOST_SHOWN)
    shown = len(HEADERS) if any(row.get("avg_judged") is not None for row in rows) else len(HEADERS) - 1
    cells = (_cells(source, depth, row)[:shown] for depth, row in ordered[:MOST_SHOWN])
    return notice(said) + table(HEADERS[:shown], cells, kind="board")


class Tab:
    """The components, and what happens when a menu changes."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        with gr.Row():
            self.menus = {name: gr.Dropdown([ALL], value=ALL, label=name, min_width=140) for name in MENUS}
            self.sort = gr.Dropdown(list(SORTS), value="lineage", label="sort by", min_width=140)
            self.paper = gr.Checkbox(False, label="the paper's numbers too")
        self.table = gr.HTML(apply_default_css=False)
        inputs = [scores, *self.menus.values(), self.sort, self.paper]
        for component in (*self.menus.values(), self.sort, self.paper):
            component.input(self.show, inputs, self.table, api_visibility="private")
        self.outputs = [*self.menus.values(), self.table]

    def load(self, rows: Sequence[Row], query: Query) -> list[Any]:
        """The menus' choices, and what the address asks for of the table, or all of it."""
        values = {name: [ALL, *_values(rows, name)] for name in MENUS}
        picked = {name: one(query, name, values[name]) or ALL for name in MENUS}
        menus = [gr.update(choices=values[name], value=picked[name]) for name in MENUS]
        shown = board(self.source, chosen(rows, **picked), "lineage") if rows else ""
        return [*menus, notice(absent(query, values)) + shown]

    def show(
        self, rows: list[Row], run: str, benchmark: str, role: str, loss: str, strategy: str, sort: str, paper: bool
    ) -> str:
        wanted = {"run": run, "benchmark": benchmark, "role": role, "loss": loss, "strategy": strategy}
        found = chosen([*rows, *(reported_rows() if paper else ())], **wanted)
        none = [] if not paper or any(row.get("reported") for row in found) else ["the paper reports nothing of this"]
        return notice(none) + board(self.source, found, sort)


def _cells(source: Source, depth: int, row: Row) -> list[object]:
    place = checkpoint_place(row)
    name = str(row.get("checkpoint"))
    title = link(source.link(place), name) if place else Markup("{}").format(name)
    return [
        Markup('<div class="depth-{}{}"><span class="run">{}</span>{}<div>{}</div></div>').format(
            min(depth, DEEPEST), " reported" if row.get("reported") else "", row.get("run"), title, marks(row)
        ),
        _bar(row),
        number(row.get("kl_checkpoint_to_base")),
        number(row.get("entropy")),
        badge(str(row["role"])) if row.get("role") else "-",
        loss_of(row),
        "-" if row.get("strategy") is None else row["strategy"],
        row.get("benchmark"),
        measured_on(row),
        number(row.get("mean_length"), ".0f"),
        percent(row.get("truncated")),
        percent(row.get("no_answer")),
        _samples(source, details_place(row)),
        judged(row),
    ]


def _bar(row: Row) -> Markup:
    """The score in figures, and drawn: a dot on a line from 0 to 100 %, its interval as a band."""
    low, high = row.get("interval") or (row.get("avg"), row.get("avg"))
    if row.get("avg") is None or low is None or high is None:
        return Markup("{}").format(score_text(row))
    return Markup(
        '<div class="score">{}</div><div class="bar"><i style="left:{:.1f}%;width:{:.1f}%"></i>'
        '<b style="left:{:.1f}%"></b></div>'
    ).format(score_text(row), 100 * float(low), 100 * float(high - low), 100 * float(row["avg"]))


def _samples(source: Source, place: Place | None) -> object:
    return link(source.link(place), "details") if place else "-"


def _values(rows: Sequence[Row], column: str) -> list[str]:
    values = {str(row[column]) for row in rows if row.get(column) is not None}
    return sorted(values, key=lambda value: (ROLES.index(value) if value in ROLES else len(ROLES), value))


def _or_last(value: float | None) -> float:
    return float("inf") if value is None else value
