"""Two to four checkpoints on the same problems: a paired summary, the problems where they differ most, all samples."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import gradio as gr
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from address import absent, link_to, one, several, whole_number
from data import Source
from markup import notice, table
from paired import Pair, holm, paired
from places import Query, Row, details_place
from questions import beginning, questions
from samples import MOST_K, question_line, sample_columns
from scores import incomparable, name_of, percent
from shards import Index

MOST = 4
MOST_LISTED = 50
"""Problems in the menu, those that differ most; another one is asked for by its id."""
HEADERS = ("checkpoint", "AVG@K %", "problems", "difference, points", "95 %", "± s.e.", "p", "p (Holm)", "better on",
           "worse on", "of")  # fmt: skip
ABOUT = (
    "Differences are to the first, over the problems that both were graded on, as erpd-hub compare has them. The "
    "interval is for problems like these; p, by flipping the signs of the problems' differences, asks whether the two "
    "are alike on these very problems."
)
_GRADES = pa.array([0, 1], pa.int8())

Means = Mapping[str, Fraction]


def means(index: Index) -> dict[str, Fraction]:
    """Mean label of each problem with a graded sample; a label that is neither 0 nor 1 is no grade."""
    graded = index.table.filter(pc.is_in(index.table["label"], _GRADES))
    grouped = graded.group_by("problem_id").aggregate([("label", "sum"), ("label", "count")])
    found = zip(*(grouped[name].to_pylist() for name in ("problem_id", "label_sum", "label_count")), strict=True)
    return {problem: Fraction(right, count) for problem, right, count in found if problem is not None}


def by_difference(sides: Sequence[Means]) -> list[tuple[str, list[Fraction]]]:
    """(problem, mean of each side) of the problems that all sides have, the widest spread first."""
    common = [problem for problem in sides[0] if all(problem in side for side in sides)] if sides else []
    rows = [(problem, [side[problem] for side in sides]) for problem in common]
    return sorted(rows, key=lambda row: (min(row[1]) - max(row[1]), row[0]))


def summary(names: Sequence[str], sides: Sequence[Means]) -> Markup:
    """The paired summary: the first checkpoint as it is, each other one against it."""
    pairs = [None, *(paired(sides[0], side) for side in sides[1:])]
    chances = [pair.p for pair in pairs if pair is not None and pair.p is not None]
    adjusted = iter(holm(chances))
    rows = [
        [name, percent(float(sum(side.values()) / len(side)) if side else None), len(side),
         *_pair_cells(pair, next(adjusted) if pair is not None and pair.p is not None else None)]
        for name, side, pair in zip(names, sides, pairs, strict=True)
    ]  # fmt: skip
    shown = [number for number, name in enumerate(HEADERS) if name != "p (Holm)" or len(chances) > 1]
    cells = ([row[number] for number in shown] for row in rows)
    return table([HEADERS[number] for number in shown], cells) + Markup('<p class="small">{}</p>').format(ABOUT)


class Tab:
    """The components; a problem is addressed by ?benchmark=..&checkpoint=..&checkpoint=..&problem=..&k=.."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source, self.scores = source, scores
        with gr.Row():
            self.benchmark = gr.Dropdown([], label="benchmark", min_width=220)
            self.checkpoints = gr.Dropdown(
                [], label=f"two to {MOST} checkpoints", multiselect=True, max_choices=MOST, scale=3, min_width=300
            )
        self.summary = gr.HTML(apply_default_css=False)
        with gr.Row():
            label = f"problem: the {MOST_LISTED} that differ most, or the id of another one"
            self.problem = gr.Dropdown([], label=label, scale=3, allow_custom_value=True, min_width=300)
            self.k = gr.Slider(0, 1, value=0, step=1, label="sample k", min_width=160)
        self.address = gr.HTML(apply_default_css=False)
        self.samples = gr.HTML(apply_default_css=False)
        self.asked = gr.State({})
        self.outputs = [self.benchmark, self.checkpoints, self.summary, self.problem, self.asked, self.samples, self.k,
                        self.address]  # fmt: skip
        self._listen()

    def _listen(self) -> None:
        chosen = [self.scores, self.benchmark, self.checkpoints]
        shown = {
            "inputs": [*chosen, self.problem, self.k, self.asked],
            "outputs": [self.samples, self.k, self.address],
            "api_visibility": "private",
        }
        pair = {"inputs": chosen, "outputs": [self.summary, self.problem, self.asked], "api_visibility": "private"}
        self.benchmark.input(
            self.choose_benchmark, [self.scores, self.benchmark], self.checkpoints, api_visibility="private"
        ).then(self.choose, **pair).then(self.show, **shown)
        self.checkpoints.input(self.choose, **pair).then(self.show, **shown)
        self.problem.input(self.show, **shown)
        self.k.release(self.show, **shown)

    def load(self, rows: list[Row], query: Query) -> list[Any]:
        """What a link names, or of the first benchmark a base and a student."""
        benchmarks = list(dict.fromkeys(str(row.get("benchmark")) for row in rows))
        benchmark = one(query, "benchmark", benchmarks) or next(iter(benchmarks), None)
        names = _names(rows, benchmark)
        wanted = several(query, "checkpoint", names, MOST) or _first_and_student(rows, benchmark)
        overview, problem, asked = self.choose(rows, benchmark, wanted)
        problems = self._problems(rows, benchmark, wanted)
        named = one(query, "problem", problems) or problem["value"]
        shown, slider, address = self.show(rows, benchmark, wanted, named, whole_number(query, "k") or 0, asked)
        samples = range(slider["maximum"] + 1) if slider["interactive"] else (0,)
        missing = absent(query, {"benchmark": benchmarks, "checkpoint": names, "problem": problems,
                                 "k": [str(k) for k in samples]})  # fmt: skip
        return [gr.update(choices=benchmarks, value=benchmark), gr.update(choices=names, value=wanted),
                notice(missing) + Markup(overview), gr.update(choices=problem["choices"], value=named), asked,
                shown, slider, address]  # fmt: skip

    def choose_benchmark(self, rows: list[Row], benchmark: str | None) -> Any:
        return gr.update(choices=_names(rows, benchmark), value=_first_and_student(rows, benchmark))

    def choose(
        self, rows: list[Row], benchmark: str | None, names: list[str] | None
    ) -> tuple[str, Any, dict[str, str]]:
        """The paired summary, the menu of problems, and what each of those asks."""
        scores = _scores(rows, benchmark, names)
        places = [place for score in scores if (place := details_place(score)) is not None]
        indices = [self.source.index(place) for place in places]
        sides = [means(index) for index in indices]
        missing = [*(sentence for index in indices for sentence in index.missing), *incomparable(scores)]
        if not scores:
            missing.append("no checkpoint was chosen, or none is there")
        elif len(sides) < len(scores):
            missing.append("of some of these checkpoints no samples are published")
        ordered = by_difference(sides)
        if scores and not ordered:
            missing.append("no graded problem in common")
        listed = ordered[:MOST_LISTED]
        asked = questions(self.source, scores[0], [problem for problem, _ in listed]) if listed else {}
        menu = [(_menu_line(problem, values, asked.get(problem)), problem) for problem, values in listed]
        overview = summary([name_of(score) for score in scores], sides) if 0 < len(scores) == len(sides) else ""
        return notice(missing) + Markup(overview), gr.update(choices=menu, value=menu[0][1] if menu else None), asked

    def show(
        self, rows: list[Row], benchmark: str | None, names: list[str] | None, problem: str | None, k: float,
        asked: dict[str, str],
    ) -> tuple[str, Any, Markup]:  # fmt: skip
        """All samples of the problem below what it asks, the range of k, the link."""
        scores = _scores(rows, benchmark, names)
        if problem is None or not scores:
            return "", gr.update(maximum=1, value=0, interactive=False), Markup("")
        problem = str(problem)
        last = min(max(int(score.get("k") or 1) for score in scores), MOST_K) - 1
        at = min(int(k), max(last, 0))
        question = asked.get(problem) or questions(self.source, scores[0], [*asked, problem]).get(problem)
        shown = question_line(problem, question) + sample_columns(self.source, scores, problem, at)
        address = link_to("compare", "link to this problem and sample", benchmark=benchmark, checkpoint=names,
                          problem=problem, k=at)  # fmt: skip
        return shown, gr.update(maximum=max(last, 1), value=at, interactive=last > 0), address

    def _problems(self, rows: Sequence[Row], benchmark: str | None, names: Sequence[str]) -> set[str]:
        """All problems that these checkpoints have samples of."""
        places = [place for score in _scores(rows, benchmark, names) if (place := details_place(score)) is not None]
        columns = (self.source.index(place).table["problem_id"] for place in places)
        return {problem for column in columns for problem in pc.unique(column).to_pylist()}


def _menu_line(problem: str, values: Sequence[Fraction], question: str | None) -> str:
    shares = " / ".join(f"{100 * float(value):.0f}" for value in values)
    return f"{beginning(question) if question else problem} ({shares} %)" + (f" · {problem[:8]}" if question else "")


def _pair_cells(pair: Pair | None, adjusted: float | None) -> list[object]:
    if pair is None:
        return ["-"] * 8
    low, high = (100 * bound for bound in pair.interval)
    error = "-" if pair.stderr is None else f"{100 * pair.stderr:.1f}"
    return [f"{100 * pair.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", error, _chance(pair.p), _chance(adjusted),
            pair.better, pair.worse, pair.problems]  # fmt: skip


def _chance(value: float | None) -> str:
    if value is None:
        return "not computed for so many"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _names(rows: Sequence[Row], benchmark: str | None) -> list[str]:
    return list(dict.fromkeys(name_of(row) for row in rows if str(row.get("benchmark")) == benchmark))


def _scores(rows: Sequence[Row], benchmark: str | None, names: Sequence[str] | None) -> list[Row]:
    known = {name_of(row): row for row in rows if str(row.get("benchmark")) == benchmark}
    return [known[name] for name in names or () if name in known]


def _first_and_student(rows: Sequence[Row], benchmark: str | None) -> list[str]:
    """A base and a student of the same lineage, or whatever else there are two of."""
    there = [row for row in rows if str(row.get("benchmark")) == benchmark]
    best = [row for row in there if row.get("role") == "student"] or there[-1:]
    student: Row = max(best, key=lambda row: row.get("avg") or 0.0, default={})
    bases = [
        row for row in there if row.get("role") == "base" and row.get("checkpoint_repo") == student.get("base_repo")
    ]
    return list(dict.fromkeys(name_of(row) for row in [*(bases or there)[:1], *([student] if student else [])]))
