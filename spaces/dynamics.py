"""What training did, step by step: log-probs of right and wrong responses, entropy, KL, explained variance."""

from collections.abc import Sequence

import gradio as gr
import plotly.graph_objects as go

import charts
from data import Place, Query, Row, Source, checkpoint_place
from leaderboard import ALL, by_lineage
from markup import notice

CURVES = "dynamics.jsonl"
PANELS = (
    (
        "log-prob of right (solid) and wrong (dotted) responses, nats per token",
        (("logprob_positive",), ("logprob_negative",)),
    ),
    ("entropy, nats per token", (("entropy",),)),
    ("KL(sampler || policy), k3, nats per token", (("kl_sampler_to_teacher_k3", "kl_old_to_student_k3"),)),
    ("explained variance", (("explained_variance",),)),
    ("loss", (("loss",),)),
    ("clip fraction", (("clip_fraction",),)),
)
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
        missing = [f"{name}: no {CURVES} in its repository" for name, lines in read.items() if not lines]
        there = {name: lines for name, lines in read.items() if lines}
        panels = [
            (title, keys)
            for title, keys in PANELS
            if any(key in line for lines in there.values() for either in keys for key in either for line in lines[:1])
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

    def show(self, rows: list[Row], run: str, benchmark: str | None) -> tuple[str, go.Figure]:
        found = [row for row in rows if row.get("benchmark") == benchmark and run in (ALL, row.get("run"))]
        unmeasured = [row for row in found if row.get("kl_checkpoint_to_base") is None]
        missing = (
            [f"{len(unmeasured)} of {len(found)} checkpoints have no measured KL to base, and are not drawn"]
            if unmeasured
            else []
        )
        return notice(missing), charts.efficiency(found)
