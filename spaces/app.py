"""The Space: a leaderboard grouped by run, and two checkpoints side by side on the same problem.

Model text is hostile. It only ever reaches a Textbox or a Dataframe of type `str`, which show it as text; no component
here renders Markdown or HTML from data.
"""

from typing import Any, NamedTuple

import gradio as gr

import data

ALL = "all"


class Side(NamedTuple):
    """The components of one of the two checkpoints."""

    checkpoint: gr.Dropdown
    samples: gr.Dataframe
    text: gr.Textbox


class App:
    """The handlers. Scores are read once per page load, samples when a checkpoint is chosen."""

    def __init__(self, source: data.Source) -> None:
        self.source = source

    def load(self) -> tuple[Any, ...]:
        """Everything that depends on the leaderboard alone."""
        found = self.source.leaderboard()
        runs = _unique(found.rows, "run")
        benchmarks = _unique(found.rows, "benchmark")
        return (
            found.rows,
            _notice(found.missing),
            gr.update(choices=[ALL, *runs], value=ALL),
            gr.update(choices=[ALL, *benchmarks], value=ALL),
            data.score_table(found.rows),
            gr.update(choices=benchmarks, value=benchmarks[0] if benchmarks else None),
        )

    def filter_scores(self, scores: list[data.Row], run: str, benchmark: str) -> list[list[Any]]:
        chosen = [s for s in scores if run in (ALL, s["run"]) and benchmark in (ALL, s["benchmark"])]
        return data.score_table(chosen)

    def choose_benchmark(self, scores: list[data.Row], benchmark: str | None) -> tuple[Any, Any]:
        """Both menus of checkpoints: the first one against the last one."""
        labels = [data.label(score) for score in scores if score["benchmark"] == benchmark]
        ends = (labels[0], labels[-1]) if labels else (None, None)
        return gr.update(choices=labels, value=ends[0]), gr.update(choices=labels, value=ends[1])

    def choose_pair(self, scores: list[data.Row], benchmark: str | None, left: str | None, right: str | None) -> Any:
        """Samples of both sides, and the problems that both answered."""
        sides = [self._samples(scores, benchmark, name) for name in (left, right)]
        problems = data.common_problems(sides[0].rows, sides[1].rows)
        missing = sides[0].missing + [item for item in sides[1].missing if item not in sides[0].missing]
        if all(side.rows for side in sides) and not problems:
            missing.append("these two have no problem in common")
        menu = gr.update(choices=problems, value=problems[0] if problems else None)
        return sides[0].rows, sides[1].rows, _notice(missing), menu

    def show_problem(self, left: list[data.Row], right: list[data.Row], problem: str | None) -> tuple[Any, ...]:
        """Gold answer, range of k, and for each side the table of samples and the text of the first."""
        pair = [data.of_problem(rows, problem) for rows in (left, right)]
        last = max((row["k"] or 0 for rows in pair for row in rows), default=0)
        gold = next((data.gold_text(row) for rows in pair for row in rows), "")
        slider = gr.update(maximum=max(last, 1), value=0, interactive=last > 0)
        return gold, slider, *(data.sample_table(rows) for rows in pair), *self.show_sample(left, right, problem, 0)

    def show_sample(
        self, left: list[data.Row], right: list[data.Row], problem: str | None, k: float
    ) -> tuple[str, str]:
        return _text(left, problem, k), _text(right, problem, k)

    def _samples(self, scores: list[data.Row], benchmark: str | None, name: str | None) -> data.Rows:
        for score in scores:
            if score["benchmark"] == benchmark and data.label(score) == name:
                return self.source.samples(score)
        return data.Rows()


def build(source: data.Source) -> gr.Blocks:
    """The whole page; nothing is read before it is opened."""
    app = App(source)
    with gr.Blocks(title="ERPD checkpoints compared", analytics_enabled=False) as blocks:
        gr.Markdown("# ERPD checkpoints compared")
        scores = gr.State([])
        notice = _notice_box()
        with gr.Tab("Leaderboard"):
            with gr.Row():
                run = gr.Dropdown([ALL], value=ALL, label="run")
                benchmark = gr.Dropdown([ALL], value=ALL, label="benchmark")
            table = gr.Dataframe(headers=data.SCORE_HEADERS, datatype="str", interactive=False, wrap=True, type="array")
        for menu in (run, benchmark):
            menu.input(app.filter_scores, [scores, run, benchmark], table, api_visibility="private")
        with gr.Tab("Compare"):
            compared = _compare_tab(app, scores)
        blocks.load(app.load, None, [scores, notice, run, benchmark, table, compared], api_name="load")
    return blocks


def _compare_tab(app: App, scores: gr.State) -> gr.Dropdown:
    """Lay the tab out and connect it; returns the menu of benchmarks, which the page fills."""
    with gr.Row():
        benchmark = gr.Dropdown([], label="benchmark")
        problem = gr.Dropdown([], label="problem")
        gold = gr.Textbox(label="right answer", interactive=False)
    notice = _notice_box()
    k = gr.Slider(0, 1, value=0, step=1, label="sample k")
    with gr.Row():
        sides = [_side(name) for name in ("left", "right")]
    rows = [gr.State([]), gr.State([])]
    menus = [side.checkpoint for side in sides]
    texts = [side.text for side in sides]
    pair = {"inputs": [scores, benchmark, *menus], "outputs": [*rows, notice, problem], "api_visibility": "private"}
    shown = {
        "inputs": [*rows, problem],
        "outputs": [gold, k, *(side.samples for side in sides), *texts],
        "api_visibility": "private",
    }
    chosen = benchmark.change(app.choose_benchmark, [scores, benchmark], menus, api_visibility="private")
    chosen.then(app.choose_pair, **pair).then(app.show_problem, **shown)
    for menu in menus:
        menu.input(app.choose_pair, **pair).then(app.show_problem, **shown)
    problem.input(app.show_problem, **shown)
    k.input(app.show_sample, [*rows, problem, k], texts, api_visibility="private")
    return benchmark


def _side(name: str) -> Side:
    with gr.Column():
        return Side(
            gr.Dropdown([], label=f"checkpoint {name}"),
            gr.Dataframe(headers=data.SAMPLE_HEADERS, datatype="str", interactive=False, wrap=True, type="array"),
            gr.Textbox(label="response", lines=12, max_lines=40, interactive=False, buttons=["copy"]),
        )


def _notice_box() -> gr.Textbox:
    return gr.Textbox(label="not available", visible=False, interactive=False)


def _notice(missing: list[str]) -> Any:
    return gr.update(value="\n".join(missing), visible=bool(missing))


def _text(samples: list[data.Row], problem: str | None, k: float) -> str:
    return next((str(row["text"]) for row in data.of_problem(samples, problem) if row["k"] == int(k)), "")


def _unique(rows: list[data.Row], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for row in rows))


if __name__ == "__main__":
    build(data.Source.from_environment()).launch()
