"""The signal, token by token: a response coloured by log-ratio, its outliers, and how the whole dataset is spread."""

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import pyarrow.compute as pc
from markupsafe import Markup

import charts
from address import absent, link_to, one, whole_number
from data import Source
from markup import badge, link, notice, table
from places import Place, Query, Row, input_of
from questions import beginning, framed
from reading import UNREADABLE, reason
from samples import MOST_K
from spread import histogram
from tokens import pieces, tokenizer_of

QUANTITIES = {"signal": "log-ratio", "numerator": "numerator", "denominator": "denominator", "old": "old policy"}
MOST_LISTED = 50
"""Datasets, and problems of one, in the menus."""
SHOWN_TOKENS = 6_000
OUTLIERS = 20
OUTCOMES = {1: "right", 0: "wrong"}
"""A label that is neither was not graded."""
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
    there = [position for position, value in enumerate(values) if value is not None and not math.isnan(value)]
    return sorted(there, key=lambda position: -abs(values[position] or 0.0))[:count]


class Tab:
    """One response coloured by a quantity, its outliers, and how the whole dataset is spread."""

    def __init__(self, source: Source) -> None:
        self.source = source
        with gr.Row():
            self.dataset = gr.Dropdown([], label="signal dataset", scale=3, min_width=260)
            label = f"problem: the first {MOST_LISTED}, or the id of another one"
            self.problem = gr.Dropdown([], label=label, scale=2, allow_custom_value=True, min_width=260)
            self.k = gr.Slider(0, 1, value=0, step=1, label="sample k", min_width=160)
        self.quantity = gr.Radio(
            [(text, name) for name, text in QUANTITIES.items()], value="signal", label="coloured by", container=False
        )
        gr.HTML(Markup("<p class='small'>{}</p>").format(LEGEND), apply_default_css=False)
        self.text = gr.HTML(apply_default_css=False)
        self.about = gr.HTML(apply_default_css=False)
        self.plot = gr.Plot(show_label=False, visible=False)
        shown = {
            "inputs": [self.dataset, self.problem, self.k, self.quantity],
            "outputs": self.text,
            "api_visibility": "private",
        }
        self.dataset.input(
            self.choose, self.dataset, [self.problem, self.k, self.about, self.plot], api_visibility="private"
        ).then(self.show, **shown)
        for component in (self.problem, self.quantity):
            component.input(self.show, **shown)
        self.k.release(self.show, **shown)
        self.outputs = [self.dataset, self.problem, self.k, self.text, self.about, self.plot]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        """The newest signal, or what the address names."""
        try:
            found, more = self._datasets()
        except UNREADABLE as error:
            return [gr.update(choices=[], value=None), gr.skip(), gr.skip(),
                    notice([f"the signals cannot be listed: {reason(error)}"]), "", charts.plot_of(None)]  # fmt: skip
        names = [repo for repo, _ in found]
        values = dict(found)
        repo = one(query, "signal", names) or next(iter(names), None)
        dataset = f"{repo}@{values[repo]}" if repo else None
        problem, slider, about, plot = self.choose(dataset)
        named = next(iter(query.get("problem", [])), None) or problem["value"]
        k = min(whole_number(query, "k") or 0, slider["maximum"])
        missing = more + absent(query, {"signal": names})
        menu = [(repo.partition("/")[2], f"{repo}@{sha}") for repo, sha in found]
        return [gr.update(choices=menu, value=dataset), {**problem, "value": named}, {**slider, "value": k},
                notice(missing) + self.show(dataset, named, k, "signal"), about, plot]  # fmt: skip

    def _datasets(self) -> tuple[list[tuple[str, str]], list[str]]:
        """(repository, commit) of the signals of the namespace or the run, and what was left out."""
        found = self.source.published("dataset", MOST_LISTED + 1, run=self.source.run, stage="signal")
        more = [f"only the {MOST_LISTED} signals that changed last are listed"] * (len(found) > MOST_LISTED)
        return [(each.place.repo_id, str(each.place.revision)) for each in found[:MOST_LISTED]], more

    def choose(self, dataset: str | None) -> tuple[Any, Any, str, Any]:
        """The dataset's first problems, its samples per problem, and how it is spread."""
        place = _place(dataset)
        if place is None:
            return gr.update(choices=[], value=None), gr.update(maximum=1, value=0), "", charts.plot_of(None)
        index = self.source.index(place).table
        problems = [each for each in pc.unique(index["problem_id"])[: MOST_LISTED + 1].to_pylist() if each is not None]
        menu = self._menu(place, problems[:MOST_LISTED])
        last = min(pc.max(index["k"]).as_py() or 0, MOST_K - 1)
        problem = gr.update(choices=menu, value=problems[0] if problems else None)
        about, figure = histogram(self.source, place)
        return problem, gr.update(maximum=max(last, 1), value=0), about, charts.plot_of(figure)

    def _menu(self, place: Place, problems: Sequence[str]) -> list[tuple[str, str]]:
        """Problems by the beginning of what they ask, as far as their rollouts can be read."""
        record = self.source.record(place)
        rollouts = input_of(record, "rollouts")
        prompts = self.source.prompts(rollouts, tuple(problems)) if rollouts and problems else {}
        asked = framed(tokenizer_of(self.source, self._scored(record)), prompts)
        return [(f"{beginning(asked[each])} · {each[:8]}" if asked.get(each) else each, each) for each in problems]

    def show(self, dataset: str | None, problem: str | None, k: float, quantity: str) -> str:
        """One response, coloured; its outliers; where numerator and denominator come from."""
        place = _place(dataset)
        if place is None or problem is None:
            return notice(["no signal dataset to show"])
        problem = str(problem)
        found = self.source.signal_row(place, problem, int(k))
        if not found.rows:
            return notice([*found.missing, f"no sample {int(k)} of {problem[:200]} in it"])
        row = found.rows[0]
        values = row[quantity]
        if values is None:
            return notice([f"this signal has no {QUANTITIES[quantity]}: it was computed without one"])
        if any(row[name] is not None and len(row[name]) != len(values) for name in QUANTITIES):
            return notice(["its numbers are not one for each token: nothing to show"])
        return notice(found.missing) + self._coloured(place, row, quantity)

    def _coloured(self, place: Place, row: Row, quantity: str) -> Markup:
        record, values = self.source.record(place), row[quantity]
        texts, note = self._texts(record, row["problem_id"], row["k"], len(values))
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
        link = link_to("signal", signal=place.repo_id, problem=row["problem_id"], k=row["k"])
        return (notice([*note, *cut]) + head + coloured(texts[shown], values[shown], hover[shown])
                + Markup("<h4 class='small-head'>the largest of this response</h4>") + listing + link)  # fmt: skip

    def _texts(self, record: Row | None, problem: str, k: int, length: int) -> tuple[list[str], list[str]]:
        """The response's tokens as texts; their positions where rollouts or tokenizer cannot be read."""
        rollouts = input_of(record, "rollouts")
        ids = self.source.tokens(rollouts, problem, k) if rollouts else None
        if ids is None or len(ids) != length or not all(each is not None and each >= 0 for each in ids):
            return [f"[{position}] " for position in range(length)], [
                "the rollouts it was computed on cannot be read: positions instead of tokens"
            ]
        tokenizer = tokenizer_of(self.source, self._scored(record))
        return pieces(tokenizer, ids), [] if tokenizer else ["no readable tokenizer.json: token ids instead of text"]

    def _scored(self, record: Row | None) -> Place | None:
        """The checkpoint whose log-probs went in: the old policy, or the numerator."""
        scored = input_of(record, "old") or input_of(record, "numerator")
        return input_of(self.source.record(scored), "checkpoint") if scored else None


def _place(dataset: str | None) -> Place | None:
    repo, _, sha = (dataset or "").rpartition("@")
    return Place("dataset", repo, sha) if repo else None


def _ground(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    strength = min(abs(value) / FULL_COLOUR, 1.0) ** 0.5 * 0.75
    return f"background:rgba({'213,94,0' if value < 0 else '0,114,178'},{strength:.2f})"


def _hover(row: Row, position: int) -> str:
    return ", ".join(
        f"{text} {row[name][position]:+.4g}"
        for name, text in QUANTITIES.items()
        if row.get(name) is not None and row[name][position] is not None
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
