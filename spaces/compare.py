"""Two to four checkpoints on the same problems: a paired summary, the problems where they differ most, all samples."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from markupsafe import Markup

from data import Index, Source
from leaderboard import incomparable, name_of, percent
from markup import badge, link, notice, prose, response, table
from places import Place, Query, Row, checkpoint_place, details_place
from tokens import decoded, tokenizer_of

MOST = 4


@dataclass(frozen=True)
class Pair:
    """One checkpoint against the first on the problems that both were graded on; difference and error in [-1, 1]."""

    problems: int
    difference: float
    stderr: float | None
    better: int
    worse: int


def means(index: Index) -> dict[str, float]:
    """Mean label of each problem with a graded sample."""
    grouped = index.table.select(["problem_id", "label"]).group_by("problem_id").aggregate([("label", "mean")])
    values = zip(grouped["problem_id"].to_pylist(), grouped["label_mean"].to_pylist(), strict=True)
    return {problem: value for problem, value in values if value is not None}


def paired(first: dict[str, float], other: dict[str, float]) -> Pair | None:
    """`other` minus `first`, problem by problem; None without a common problem."""
    differences = [other[problem] - first[problem] for problem in first if problem in other]
    n = len(differences)
    if not n:
        return None
    mean = sum(differences) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in differences) / (n - 1) / n) if n > 1 else None
    return Pair(n, mean, spread, sum(value > 0 for value in differences), sum(value < 0 for value in differences))


def by_difference(sides: Sequence[dict[str, float]]) -> list[tuple[str, list[float]]]:
    """(problem, mean of each side) of the problems that all sides have, the widest spread first."""
    common = [problem for problem in sides[0] if all(problem in side for side in sides)] if sides else []
    rows = [(problem, [side[problem] for side in sides]) for problem in common]
    return sorted(rows, key=lambda row: (min(row[1]) - max(row[1]), row[0]))


def summary(names: Sequence[str], sides: Sequence[dict[str, float]]) -> Markup:
    """The paired summary: the first checkpoint as it is, each other one against it."""
    rows: list[list[object]] = []
    for name, side in zip(names, sides, strict=True):
        average = sum(side.values()) / len(side) if side else None
        pair = paired(sides[0], side) if name != names[0] else None
        rows.append([name, percent(average), len(side), *_pair_cells(pair)])
    return table(
        ("checkpoint", "AVG@K %", "problems", "difference, points (± s.e.)", "better on", "worse on", "of"), rows
    )


def sample_columns(source: Source, scores: Sequence[Row], problem: str, k: int) -> Markup:
    """A column for each checkpoint: all its samples of the problem, and the text of sample k."""
    columns = [_column(source, score, problem, k) for score in scores]
    return Markup('<div class="columns">{}</div>').format(Markup("").join(columns))


class Tab:
    """The components; a problem is addressed by ?benchmark=..&checkpoint=..&checkpoint=..&problem=..&k=.."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source, self.scores = source, scores
        with gr.Row():
            self.benchmark = gr.Dropdown([], label="benchmark")
            self.checkpoints = gr.Dropdown(
                [], label=f"two to {MOST} checkpoints", multiselect=True, max_choices=MOST, scale=3
            )
        self.summary = gr.HTML(apply_default_css=False)
        with gr.Row():
            self.problem = gr.Dropdown([], label="problem, where they differ most first", scale=3)
            self.k = gr.Slider(0, 1, value=0, step=1, label="sample k")
        self.address = gr.HTML(apply_default_css=False)
        self.samples = gr.HTML(apply_default_css=False)
        chosen = [scores, self.benchmark, self.checkpoints]
        shown = {
            "inputs": [*chosen, self.problem, self.k],
            "outputs": [self.samples, self.k, self.address],
            "api_visibility": "private",
        }
        pair = {"inputs": chosen, "outputs": [self.summary, self.problem], "api_visibility": "private"}
        self.benchmark.input(
            self.choose_benchmark, [scores, self.benchmark], self.checkpoints, api_visibility="private"
        ).then(self.choose, **pair).then(self.show, **shown)
        self.checkpoints.input(self.choose, **pair).then(self.show, **shown)
        self.problem.input(self.show, **shown)
        self.k.release(self.show, **shown)
        self.outputs = [
            self.benchmark,
            self.checkpoints,
            self.summary,
            self.problem,
            self.samples,
            self.k,
            self.address,
        ]

    def load(self, rows: list[Row], query: Query) -> list[Any]:
        """What a link names, or of the first benchmark a base and a student."""
        benchmarks = list(dict.fromkeys(str(row.get("benchmark")) for row in rows))
        benchmark = _one(query, "benchmark", benchmarks)
        names = [name_of(row) for row in rows if row.get("benchmark") == benchmark]
        wanted = [name for name in query.get("checkpoint", []) if name in names][:MOST] or _first_and_student(
            rows, benchmark
        )
        overview, problem = self.choose(rows, benchmark, wanted)
        problems = [value for _, value in problem["choices"]]
        asked = next(iter(query.get("problem", [])), None)
        named = asked if asked in problems else problem["value"]
        k = next((int(text) for text in query.get("k", []) if text.isdecimal() and len(text) < 7), 0)
        shown, slider, address = self.show(rows, benchmark, wanted, named, k)
        absent = _absent(query, {"benchmark": benchmarks, "checkpoint": names, "problem": problems})
        return [gr.update(choices=benchmarks, value=benchmark), gr.update(choices=names, value=wanted),
                notice(absent) + Markup(overview), gr.update(choices=problem["choices"], value=named),
                shown, slider, address]  # fmt: skip

    def choose_benchmark(self, rows: list[Row], benchmark: str | None) -> Any:
        names = [name_of(row) for row in rows if row.get("benchmark") == benchmark]
        return gr.update(choices=names, value=_first_and_student(rows, benchmark))

    def choose(self, rows: list[Row], benchmark: str | None, names: list[str] | None) -> tuple[str, Any]:
        """The paired summary, and the menu of problems."""
        scores = _scores(rows, benchmark, names)
        indices = [self.source.index(place) for score in scores if (place := details_place(score))]
        sides = [means(index) for index in indices]
        missing = incomparable(scores) + [sentence for index in indices for sentence in index.missing]
        missing += [
            f"{name_of(score)}: the leaderboard names no samples" for score in scores if not details_place(score)
        ]
        found = by_difference(sides)
        if len(sides) > 1 and not found:
            missing.append("these checkpoints have no graded problem in common")
        menu = [
            (f"{problem}  ({' / '.join(percent(value, 0) for value in values)} %)", problem)
            for problem, values in found
        ]
        overview = summary([name_of(score) for score in scores], sides) if 0 < len(scores) == len(sides) else ""
        return notice(missing) + Markup(overview), gr.update(choices=menu, value=menu[0][1] if menu else None)

    def show(
        self, rows: list[Row], benchmark: str | None, names: list[str] | None, problem: str | None, k: float
    ) -> tuple[str, Any, Markup]:
        """All samples of the problem, the range of k, the link."""
        scores = _scores(rows, benchmark, names)
        if problem is None or not scores:
            return "", gr.update(value=0), Markup("")
        last = max((int(score.get("k") or 1) for score in scores), default=1) - 1
        query = urlencode({"benchmark": benchmark, "checkpoint": names, "problem": problem, "k": int(k)}, doseq=True)
        shown = sample_columns(self.source, scores, problem, int(k))
        address = Markup('<div class="erpd">{}</div>').format(link(f"?{query}", "link to this problem and sample"))
        return shown, gr.update(maximum=max(last, 1), value=min(int(k), last), interactive=last > 0), address


def _column(source: Source, score: Row, problem: str, k: int) -> Markup:
    place = details_place(score)
    found = source.samples(place, problem) if place else None
    rows = found.rows if found else []
    shown = next((row for row in rows if row["k"] == k), None)
    head = Markup("<h4>{}</h4>{}").format(
        name_of(score), notice(found.missing if found else ["no samples are published"])
    )
    listing = table(
        ("k", "verdict", "answer seen", "tokens", "finish", "judge"), [_sample_cells(row, k) for row in rows]
    )
    text = _sample_text(source, checkpoint_place(score), shown) if shown else notice([f"no sample {k} of this problem"])
    return Markup("<section>{}{}{}</section>").format(head, listing, text)


def _sample_cells(row: Row, k: int) -> list[object]:
    here = badge(str(row["k"]), "here") if row["k"] == k else row["k"]
    answer = Markup("{}").format("-" if row["extracted"] is None else str(row["extracted"])[:200])
    return [here, badge(str(row["verdict"])), answer, _length(row), row["finish_reason"], _ruling(row["judge"])]


def _sample_text(source: Source, checkpoint: Place | None, row: Row) -> Markup:
    gold = "(left out, as the benchmark's licence asks)" if row["gold"] is None else str(row["gold"])
    prompt = decoded(tokenizer_of(source, checkpoint), row.get("prompt_ids"))
    asked = (
        Markup("<details><summary>prompt</summary><div>{}</div></details>").format(prose(prompt))
        if prompt
        else Markup("")
    )
    return Markup('<p class="gold">right answer: {}</p>{}{}').format(
        prose(gold), asked, response(str(row["text"] or ""))
    )


def _ruling(judge: str | None) -> object:
    """What the judge said of this sample, as its column holds it."""
    if judge is None:
        return "-"
    try:
        ruling = json.loads(judge)
        return badge(str(ruling.get("status"))) if isinstance(ruling, dict) else "unreadable"
    except (ValueError, RecursionError):
        return "unreadable"


def _length(row: Row) -> object:
    if row.get("response_ids") is not None:
        return len(row["response_ids"])
    return "-" if row.get("num_tokens") is None else row["num_tokens"]


def _pair_cells(pair: Pair | None) -> list[object]:
    if pair is None:
        return ["-", "-", "-", "-"]
    error = "" if pair.stderr is None else f" ± {100 * pair.stderr:.1f}"
    return [f"{100 * pair.difference:+.1f}{error}", pair.better, pair.worse, pair.problems]


def _scores(rows: Sequence[Row], benchmark: str | None, names: Sequence[str] | None) -> list[Row]:
    known = {name_of(row): row for row in rows if row.get("benchmark") == benchmark}
    return [known[name] for name in names or () if name in known]


def _first_and_student(rows: Sequence[Row], benchmark: str | None) -> list[str]:
    """A base and a student of the same lineage, or whatever else there are two of."""
    there = [row for row in rows if row.get("benchmark") == benchmark]
    best = [row for row in there if row.get("role") == "student"] or there[-1:]
    student: Row = max(best, key=lambda row: row.get("avg") or 0.0, default={})
    bases = [
        row for row in there if row.get("role") == "base" and row.get("checkpoint_repo") == student.get("base_repo")
    ]
    return list(dict.fromkeys(name_of(row) for row in [*(bases or there)[:1], *([student] if student else [])]))


def _one(query: Query, name: str, allowed: Sequence[str]) -> str | None:
    asked = next(iter(query.get(name, [])), None)
    return asked if asked in allowed else (allowed[0] if allowed else None)


def _absent(query: Query, there: Mapping[str, Sequence[str]]) -> list[str]:
    """What the address names and is not there, so that nobody takes what is shown for it."""
    return [
        f"the address names the {name} {asked[:200]}, which is not among these: what follows is not what it meant"
        for name, known in there.items()
        for asked in query.get(name, [])[:MOST]
        if asked not in known
    ]
