"""What training did, step by step: log-probs of right and wrong responses, entropy, KL, explained variance."""

from collections.abc import Sequence

import gradio as gr
import plotly.graph_objects as go
from markupsafe import Markup

import charts
from data import Source
from leaderboard import ALL, by_lineage, incomparable, name_of
from markup import notice
from places import Place, Query, Row, checkpoint_place

CURVES = "dynamics.jsonl"
LEGEND = (
    "Solid: of right responses, or of all; dotted: of wrong responses. Here are the trainings with a checkpoint on the "
    "leaderboard; the curves of others are in their cards."
)
PANELS = (
    ("log-prob, nats per token", ("logprob_positive", "logprob_negative")),
    ("V", ("value_positive", "value_negative")),
    ("entropy, nats per token", ("entropy",)),
    ("KL(old || student), k3, nats per token", ("kl_old_to_student_k3",)),
    ("KL(sampler || teacher), k3, nats per token", ("kl_sampler_to_teacher_k3",)),
    ("KL(old || teacher), k3, nats per token", ("kl_old_to_teacher_k3",)),
    ("KL(policy || start), k3, nats per token", ("kl_policy_to_start_k3",)),
    ("share of right answers while training", ("reward",)),
    ("probability of tokens", ("probability_positive", "probability_negative")),
    ("explained variance", ("explained_variance",)),
    ("loss", ("loss",)),
    ("clip fraction", ("clip_fraction",)),
)
"""Title and keys of each, in the order and with the keys of the pictures in cards."""
MOST = 8


def trained(rows: Sequence[Row]) -> dict[str, Place]:
    """`run: step` to the artifact at its last commit, for every checkpoint on the leaderboard that was trained."""
    found: dict[str, tuple[int, Place]] = {}
    for row in rows:
        place = checkpoint_place(row)
        if place is None or row.get("role") in ("base", "endpoint"):
            continue
        name = f"{row.get('run')}: {str(row.get('checkpoint')).partition('@')[0]}"
        step = row["step"] if row.get("step") is not None else 1 << 30
        if name not in found or step >= found[name][0]:
            found[name] = (step, place)
    return {name: place for name, (_, place) in found.items()}


class Tab:
    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        with gr.Row():
            self.runs = gr.Dropdown(
                [], label=f"up to {MOST} training runs, overlaid", multiselect=True, max_choices=MOST, scale=4
            )
        gr.HTML(Markup("<p class='small'>{}</p>").format(LEGEND), apply_default_css=False)
        self.notice = gr.HTML(apply_default_css=False)
        self.plot = gr.Plot(show_label=False)
        self.runs.change(self.show, [scores, self.runs], [self.notice, self.plot], api_visibility="private")
        self.outputs = [self.runs]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        names = list(trained([row for _, row in by_lineage(rows)]))
        return [gr.update(choices=names, value=names[:2])]

    def show(self, rows: list[Row], names: list[str] | None) -> tuple[str, go.Figure | None]:
        places = trained(rows)
        read = {name: self.source.lines(places[name], CURVES) for name in names or () if name in places}
        missing = [f"{name}: no readable {CURVES} in its repository" for name, lines in read.items() if not lines]
        there = {name: lines for name, lines in read.items() if lines}
        panels = [
            (title, keys)
            for title, keys in PANELS
            if any(charts.has_point(line, key) for lines in there.values() for key in keys for line in lines)
        ]
        return notice(missing), charts.curves(there, panels) if panels else None


class EfficiencyTab:
    """AVG@K against KL to base."""

    def __init__(self, scores: gr.State) -> None:
        with gr.Row():
            self.run = gr.Dropdown([ALL], value=ALL, label="run")
            self.benchmark = gr.Dropdown([], label="benchmark")
        self.notice = gr.HTML(apply_default_css=False)
        self.plot = gr.Plot(show_label=False)
        for menu in (self.run, self.benchmark):
            menu.change(
                self.show, [scores, self.run, self.benchmark], [self.notice, self.plot], api_visibility="private"
            )
        self.outputs = [self.run, self.benchmark]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        runs = list(dict.fromkeys(str(row.get("run")) for row in rows))
        benchmarks = list(dict.fromkeys(str(row.get("benchmark")) for row in rows))
        return [gr.update(choices=[ALL, *runs], value=runs[0] if runs else ALL),
                gr.update(choices=benchmarks, value=benchmarks[0] if benchmarks else None)]  # fmt: skip

    def show(self, rows: list[Row], run: str, benchmark: str | None) -> tuple[str, go.Figure | None]:
        found = [row for row in rows if row.get("benchmark") == benchmark and run in (ALL, row.get("run"))]
        if not found:
            return notice(["no checkpoint of this run was measured on this benchmark"]), None
        placed = [row for row in found if row.get("role") != "base"]
        left_out = {
            "no measured KL to base": [row for row in placed if row.get("kl_checkpoint_to_base") is None],
            "a KL of 0 to base, which has no place on a logarithm": [
                row for row in placed if row.get("kl_checkpoint_to_base") is not None and not charts.on_logarithm(row)
            ],
            "no graded sample": [row for row in found if row.get("avg") is None],
        }
        missing = [
            f"not drawn, for {why}: {', '.join(map(name_of, rows[:MOST]))}"
            + (f" and {len(rows) - MOST} more" if len(rows) > MOST else "")
            for why, rows in left_out.items()
            if rows
        ]
        return notice(incomparable(found) + missing), charts.efficiency(found)
