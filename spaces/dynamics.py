"""What training did, step by step: log-probs of right and wrong responses, entropy, KL, explained variance."""

from collections.abc import Sequence

import gradio as gr
from markupsafe import Markup

import charts
from address import absent, link_to, several
from data import Source
from markup import notice
from places import Query, Row
from runs import CURVES, trainings
from scores import name_of

LEGEND = "Solid: of right responses, or of all; dotted: of wrong responses."
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
SHOWN = ("teacher", "student")
"""Roles that are drawn before anything is chosen."""
MOST_STEPS = 20_000
"""Steps of a training that are drawn."""


class Tab:
    """A plot for each panel, side by side as far as the window is wide."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        self.runs = gr.Dropdown([], label=f"up to {MOST} trainings, overlaid", multiselect=True, max_choices=MOST)
        self.notice = gr.HTML(apply_default_css=False)
        with gr.Row(elem_classes="panels"):
            self.plots = [gr.Plot(show_label=False, visible=False, min_width=300) for _ in PANELS]
        self.runs.input(self.show, [scores, self.runs], [self.notice, *self.plots], api_visibility="private")
        self.outputs = [self.runs, self.notice, *self.plots]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        names = list(trainings(self.source, rows).places)
        wanted = several(query, "training", names, MOST) or _first(rows, names)
        said, *plots = self.show(rows, wanted)
        return [gr.update(choices=names, value=wanted), notice(absent(query, {"training": names})) + said, *plots]

    def show(self, rows: Sequence[Row], names: Sequence[str] | None) -> list[object]:
        """What is missing and the legend; the panels, of which those that nothing was recorded for are not shown."""
        found = trainings(self.source, rows)
        read = {name: self.source.lines(found.places[name], CURVES) for name in names or () if name in found.places}
        missing = [*found.missing, *(f"{name}: {each}" for name, lines in read.items() for each in lines.missing)]
        there = {name: lines.rows[:MOST_STEPS] for name, lines in read.items() if lines.rows}
        missing += [] if found.places else [f"no training of these runs has a {CURVES}"]
        missing += [
            f"{name}: the first {MOST_STEPS:,} steps" for name, lines in read.items() if len(lines.rows) > MOST_STEPS
        ]
        said = notice(missing) + (_legend(there) if there else Markup(""))
        return [said, *(self._panel(there, title, keys) for title, keys in PANELS)]

    def _panel(self, there: dict[str, list[Row]], title: str, keys: Sequence[str]) -> object:
        recorded = any(charts.has_point(line, key) for lines in there.values() for key in keys for line in lines)
        return charts.plot_of(charts.curves(there, title, keys) if recorded else None)


def _first(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """A teacher and a student on the leaderboard, or whatever there is."""
    evaluated = {role: [name_of(row).partition("@")[0] for row in rows if row.get("role") == role] for role in SHOWN}
    found = [next((name for name in those if name in names), None) for those in evaluated.values()]
    return [name for name in found if name is not None] or list(names[:2])


def _legend(names: Sequence[str] | dict[str, list[Row]]) -> Markup:
    lines = (
        Markup('<span class="key"><i style="background:{}"></i>{}</span>').format(colour, name)
        for colour, name in zip(charts.cycled(charts.COLOURS), names, strict=False)
    )
    return Markup('<div class="keys">{} <span class="small">{}</span></div>{}').format(
        Markup("").join(lines), LEGEND, link_to("dynamics", training=list(names))
    )
