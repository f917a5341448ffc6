"""The signal, token by token: a response coloured by log-ratio, its outliers, and how the whole dataset is spread."""

import math
from collections.abc import Iterable, Mapping, Sequence

import gradio as gr
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

import charts
from data import UNREADABLE, Source
from markup import badge, link, notice, table
from places import Place, Query, Row, input_of
from tokens import pieces, tokenizer_of

QUANTITIES = {"signal": "log-ratio", "numerator": "numerator", "denominator": "denominator", "old": "old policy"}
SHOWN_TOKENS = 6_000
OUTLIERS = 20
HISTOGRAM_TOKENS = 200_000
OUTCOMES = {1: "right", 0: "wrong"}
"""A label that is neither was not graded."""
GROUPS = ("right responses", "wrong responses", "first tokens", "first half", "second half")
COLUMNS = ("label", "signal")
FULL_COLOUR = 5.0
"""nats at which a token has its full colour; log-probs too are coloured from 0 down to it."""
LEGEND = f"Blue tokens are above 0, red ones below; the colour is full from {FULL_COLOUR:.0f} nats on."


def coloured(texts: Sequence[str], values: Sequence[float | None], hover: Sequence[str]) -> Markup:
    """Each token on a ground between red (below 0) and blue (above), its numbers in its title."""
    spans = (
        Markup('<span class="t" style="{}" title="{}">{}</span>').format(_ground(value), about, text)
        for text, value, about in zip(texts, values, hover, strict=True)
    )
    return Markup('<div class="tokens">{}</div>').format(Markup("").join(spans))


def outliers(values: Sequence[float | None], count: int = OUTLIERS) -> list[int]:
    """Positions of the largest absolute values, largest first."""
    there = [position for position, value in enumerate(values) if value is not None]
    return sorted(there, key=lambda position: -abs(values[position] or 0.0))[:count]


def beginning(groups: Iterable[pa.Table], most: int) -> tuple[list[pa.Table], int, bool]:
    """The first samples of an artifact up to `most` tokens: their row groups, their tokens, and whether that is all."""
    found: list[pa.Table] = []
    tokens = 0
    for group in groups:
        lengths = pc.fill_null(pc.list_value_length(group["signal"]), 0)
        reached = pc.add(pc.cumulative_sum(pc.cast(lengths, pa.int64())), tokens)
        fitting = pc.sum(pc.less_equal(reached, most)).as_py() or 0
        if fitting:
            found.append(group.slice(0, fitting))
            tokens = reached[fitting - 1].as_py()
        if fitting < group.num_rows:
            return found, tokens, False
    return found, tokens, True


def spread(groups: Sequence[pa.Table]) -> dict[str, list[float]]:
    """Finite signal values of right and of wrong responses, of first tokens, and of the two halves of the responses."""
    found: dict[str, list[float]] = {name: [] for name in GROUPS}
    for label, signal in (row for group in groups for row in zip(*(group[name] for name in COLUMNS), strict=True)):
        values = [value for value in signal.as_py() or [] if value is not None and math.isfinite(value)]
        half = len(values) // 2
        parts = (
            values if label.as_py() == 1 else [],
            values if label.as_py() == 0 else [],
            values[:1],
            values[:half],
            values[half:],
        )
        for name, part in zip(GROUPS, parts, strict=True):
            found[name] += part
    return {name: values for name, values in found.items() if values}


class Tab:
    def __init__(self, source: Source) -> None:
        self.source = source
        with gr.Row():
            self.dataset = gr.Dropdown([], label="signal dataset", scale=3)
            self.problem = gr.Dropdown([], label="problem", scale=2)
            self.k = gr.Slider(0, 1, value=0, step=1, label="sample k")
        self.quantity = gr.Radio(
            [(text, name) for name, text in QUANTITIES.items()], value="signal", label="coloured by", container=False
        )
        gr.HTML(Markup("<p class='small'>{}</p>").format(LEGEND), apply_default_css=False)
        self.text = gr.HTML(apply_default_css=False)
        self.plot = gr.Plot(show_label=False)
        shown = {
            "inputs": [self.dataset, self.problem, self.k, self.quantity],
            "outputs": self.text,
            "api_visibility": "private",
        }
        self.dataset.change(
            self.choose, self.dataset, [self.problem, self.k, self.plot], api_visibility="private"
        ).then(self.show, **shown)
        for component in (self.problem, self.quantity):
            component.input(self.show, **shown)
        self.k.release(self.show, **shown)
        self.outputs = [self.dataset]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        try:
            found = self.source.datasets("signal")
        except UNREADABLE:  # the notice above the tabs says it
            found = []
        menu = [(repo.partition("/")[2], f"{repo}@{sha}") for repo, sha in found]
        return [gr.update(choices=menu, value=menu[0][1] if menu else None)]

    def choose(self, dataset: str | None) -> tuple[object, object, go.Figure | None]:
        """The dataset's problems, its samples per problem, and how it is spread."""
        place = _place(dataset)
        if place is None:
            return gr.update(choices=[], value=None), gr.update(value=0), None
        index = self.source.index(place).table
        problems = pc.unique(index["problem_id"]).to_pylist()
        last = pc.max(index["k"]).as_py() or 0
        problem = gr.update(choices=problems, value=problems[0] if problems else None)
        return problem, gr.update(maximum=max(last, 1), value=0), self._histogram(place)

    def show(self, dataset: str | None, problem: str | None, k: float, quantity: str) -> str:
        """One response, coloured; its outliers; where numerator and denominator come from."""
        place = _place(dataset)
        if place is None or problem is None:
            return notice(["no signal dataset to show"])
        found = self.source.signal_row(place, problem, int(k))
        if not found.rows:
            return notice([*found.missing, f"no sample {int(k)} of {problem} in it"])
        row = found.rows[0]
        record = self.source.record(place)
        rollouts = input_of(record, "rollouts")
        texts, note = self._texts(record, rollouts, problem, int(k), len(row["signal"] or row["old"] or []))
        values = row[quantity]
        if values is None:
            return notice([f"this signal has no {QUANTITIES[quantity]}: it was computed without one"])
        shown = slice(0, SHOWN_TOKENS)
        hover = [_hover(row, position) for position in range(len(values))]
        cut = [f"the first {SHOWN_TOKENS:,} of {len(values):,} tokens"] if len(values) > SHOWN_TOKENS else []
        head = Markup("<p>{} {}</p>").format(
            badge(OUTCOMES.get(row["label"], "ungraded")), _sources(self.source, record)
        )
        largest = [
            [position, _visible(texts[position]), f"{values[position]:+.3f}", hover[position]]
            for position in outliers(values)
        ]
        listing = table(("position", "token", QUANTITIES[quantity], "numbers"), largest)
        return (notice([*found.missing, *note, *cut]) + head + coloured(texts[shown], values[shown], hover[shown])
                + Markup("<h4 class='small-head'>the largest of this response</h4>") + listing)  # fmt: skip

    def _texts(
        self, record: Row | None, rollouts: Place | None, problem: str, k: int, length: int
    ) -> tuple[list[str], list[str]]:
        """The response's tokens as texts; their positions where rollouts or tokenizer cannot be read."""
        rows = self.source.samples(rollouts, problem).rows if rollouts else []
        ids = next((row["response_ids"] for row in rows if row["k"] == k), None)
        if ids is None or len(ids) != length:
            return [f"[{position}] " for position in range(length)], [
                "the rollouts it was computed on cannot be read: positions instead of tokens"
            ]
        scored = input_of(record, "old") or input_of(record, "numerator")
        tokenizer = tokenizer_of(self.source, input_of(self.source.record(scored), "checkpoint") if scored else None)
        return pieces(tokenizer, ids), [] if tokenizer else ["no readable tokenizer.json: token ids instead of text"]

    def _histogram(self, place: Place) -> go.Figure:
        groups, tokens, whole = beginning(self.source.row_groups(place, COLUMNS), HISTOGRAM_TOKENS)
        found = spread(groups)
        described = self.source.json(place, "signal.json")
        noise = (described[0].get("noise") if described else None) or {}
        floor = noise.get("noise_floor")
        counted = f"{tokens:,} tokens" if whole else f"the first {tokens:,} tokens"
        return charts.signal_histogram(found, f"{counted}{_noise_sentence(found, floor)}", floor)


def _noise_sentence(found: Mapping[str, Sequence[float]], floor: float | None) -> str:
    if floor is None:
        return "; no noise floor was measured"
    values = [value for name in GROUPS[3:] for value in found.get(name, ())]
    if not floor:
        return "; a second forward pass gave the same log-probs: a noise floor of 0 nats"
    above = sum(abs(value) > floor for value in values) / max(len(values), 1)
    return f", {100 * above:.1f} % of them beyond the noise floor of {floor:.2g} nats"


def _place(dataset: str | None) -> Place | None:
    repo, _, sha = (dataset or "").rpartition("@")
    return Place("dataset", repo, sha) if repo else None


def _ground(value: float | None) -> str:
    if value is None:
        return ""
    strength = min(abs(value) / FULL_COLOUR, 1.0) ** 0.5 * 0.75
    return f"background:rgba({'213,94,0' if value < 0 else '0,114,178'},{strength:.2f})"


def _hover(row: Row, position: int) -> str:
    return ", ".join(
        f"{text} {row[name][position]:+.4g}" for name, text in QUANTITIES.items() if row.get(name) is not None
    )


def _visible(text: str) -> str:
    return text.replace("\n", "⏎").replace(" ", "·") or "(joined with the next)"


def _sources(source: Source, record: Row | None) -> Markup:
    parts = []
    for role in ("numerator", "denominator", "old"):
        scored = input_of(record, role)
        checkpoint = input_of(source.record(scored), "checkpoint") if scored else None
        parts.append(
            Markup("{}: {}").format(role, link(source.link(checkpoint), str(checkpoint)) if checkpoint else "none")
        )
    return Markup(" · ").join(parts)
