"""The leaderboard: every published score, students under their teachers under their base, the paper's numbers beside.

The rows come from the leaderboard dataset as they are; `board` is what the page's menus do to them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from data import Source
from markup import badge, link, notice, table
from places import Place, Row, checkpoint_place, details_place

ALL = "all"
ROLES = ("base", "teacher", "unlearned", "student", "control", "online", "endpoint")
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


SETTINGS = ("version", "benchmark_definition", "limit", "k", "temperature", "top_p", "max_new_tokens",
            "max_sequence_tokens")  # fmt: skip
GRADED_BY = ("grader", "math-verify", "sandbox", "protection", "numpy")
"""What scores must share to be compared: these columns, and these parts of the `harness`."""

DEEPEST = 6
"""Levels that are indented further; the style has as many."""


def name_of(score: Row) -> str:
    """`run: checkpoint`, the name of a checkpoint in menus."""
    return f"{score.get('run')}: {score.get('checkpoint') or score.get('role')}"


def by_lineage(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """(depth, row): each benchmark's base, its teachers, and under each teacher what its signal went into: students,
    and through them the next round's teachers."""
    ordered: list[tuple[int, Row]] = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row.get("benchmark")), str(row.get("base_repo") or row.get("run"))), []).append(row)
    for _, group in sorted(groups.items()):
        ordered += _walked(group)
    return ordered


def _walked(group: Sequence[Row]) -> list[tuple[int, Row]]:
    """The rows of one benchmark and base, each once, also where a Hub tells of a circle."""
    by_repo: dict[str, list[Row]] = {}
    for row in sorted(group, key=_order):
        by_repo.setdefault(str(row.get("checkpoint_repo")), []).append(row)
    below: dict[str, list[str]] = {}
    for repo, own in by_repo.items():
        above = str(own[0].get("teacher_repo"))
        below.setdefault(above if above in by_repo and above != repo else "", []).append(repo)
    found: list[tuple[int, Row]] = []
    seen: set[str] = set()
    for top in (*below.get("", ()), *by_repo):
        pending = [(0 if by_repo[top][0].get("role") == "base" else 1, top)]
        while pending:
            depth, repo = pending.pop()
            if repo not in seen:
                seen.add(repo)
                found += [(depth, row) for row in by_repo[repo]]
                pending += [(max(depth, 1) + 1, child) for child in reversed(below.get(repo, ()))]
    return found


def chosen(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values; `all` leaves a column open."""
    return [row for row in rows if all(value in (ALL, str(row.get(name))) for name, value in wanted.items())]


def incomparable(rows: Sequence[Row]) -> list[str]:
    """A sentence for each benchmark that these rows did not measure alike."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        measured.setdefault(str(row.get("benchmark")), []).append(_settings(row))
    differing = {
        name: [key for key in found[0] if len({str(each[key]) for each in found}) > 1]
        for name, found in measured.items()
    }
    return [
        f"{name}: scores that differ in {', '.join(keys)} are not comparable"
        for name, keys in differing.items()
        if keys
    ]


def board(source: Source, rows: Sequence[Row], sort: str) -> Markup:
    """The table of measured rows, below what keeps them from being compared."""
    if not rows:
        return notice(["no score has these values"])
    key = SORTS.get(sort)
    ordered = by_lineage(rows) if key is None else [(0, row) for row in sorted(rows, key=key)]
    shown = len(HEADERS) if any(row.get("avg_judged") is not None for row in rows) else len(HEADERS) - 1
    cells = (_cells(source, depth, row)[:shown] for depth, row in ordered)
    return notice(incomparable(rows)) + table(HEADERS[:shown], cells, kind="board")


@cache
def reported() -> list[Row]:
    """The paper's own numbers: {table, model, row, benchmark, avg}, avg in percent."""
    return list(json.loads((Path(__file__).parent / "paper.json").read_text("utf-8")))


def paper_board(benchmark: str) -> Markup:
    """The paper's tables for one benchmark, or all: marked as reported, since nothing of it can be recomputed."""
    rows = [row for row in reported() if benchmark in (ALL, row["benchmark"])]
    if not rows:
        return notice([f"the paper reports nothing on {benchmark}"])
    cells = (
        [badge("reported"), row["table"], row["model"], row["row"], row["benchmark"], f"{row['avg']:.1f}"]
        for row in rows
    )
    return table(("", "table", "model", "row", "benchmark", "AVG@K %"), cells, kind="paper")


class Tab:
    """The components, and what happens when a menu changes."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source, self.scores = source, scores
        with gr.Row():
            menus = {
                name: gr.Dropdown([ALL], value=ALL, label=name)
                for name in ("run", "benchmark", "role", "loss", "strategy")
            }
            self.sort = gr.Dropdown(list(SORTS), value="lineage", label="sort by")
            self.paper = gr.Checkbox(False, label="the paper's reported numbers")
        self.menus = menus
        self.table = gr.HTML(apply_default_css=False)
        self.reference = gr.HTML(apply_default_css=False)
        inputs = [scores, *menus.values(), self.sort, self.paper]
        for component in (*menus.values(), self.sort, self.paper):
            component.input(self.show, inputs, [self.table, self.reference], api_visibility="private")

    @property
    def outputs(self) -> list[Any]:
        return [*self.menus.values(), self.table]

    def load(self, rows: Sequence[Row]) -> list[Any]:
        """The menus' choices and the whole table."""
        menus = [gr.update(choices=[ALL, *_values(rows, name)], value=ALL) for name in self.menus]
        return [*menus, board(self.source, rows, "lineage") if rows else ""]

    def show(
        self, rows: list[Row], run: str, benchmark: str, role: str, loss: str, strategy: str, sort: str, paper: bool
    ) -> tuple[str, str]:
        found = chosen(rows, run=run, benchmark=benchmark, role=role, loss=loss, strategy=strategy)
        return board(self.source, found, sort), paper_board(benchmark) if paper else ""


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else format(value, form)


def score_text(row: Row) -> str:
    """`63.1 (58.5-67.5)`, or with a standard error where there is no interval."""
    interval = row.get("interval")
    if row.get("avg") is None:
        return "-"
    if interval and None not in interval:
        return f"{percent(row['avg'])} ({percent(interval[0])}-{percent(interval[1])})"
    return percent(row["avg"]) + ("" if row.get("stderr") is None else f" ± {percent(row['stderr'])}")


def _cells(source: Source, depth: int, row: Row) -> list[object]:
    place = checkpoint_place(row)
    name = str(row.get("checkpoint"))
    title = link(source.link(place), name) if place else Markup("{}").format(name)
    return [
        Markup('<div class="depth-{}"><span class="run">{}</span>{}<div>{}</div></div>').format(
            min(depth, DEEPEST), row.get("run"), title, _marks(row)
        ),
        _bar(row),
        number(row.get("kl_checkpoint_to_base")),
        number(row.get("entropy")),
        badge(str(row.get("role"))),
        row.get("loss") or "-",
        row.get("strategy") or "-",
        row.get("benchmark"),
        f"{row.get('k')} x {_graded(row)}",
        number(row.get("mean_length"), ".0f"),
        percent(row.get("truncated")),
        percent(row.get("no_answer")),
        _samples(source, details_place(row)),
        _judge(row),
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


def _marks(row: Row) -> Markup:
    """What a reader has to know before comparing this row."""
    marks = [
        ("selected on", row.get("selection")),
        ("unpinned", row.get("pinned") is False),
        (f"first {row.get('limit')} problems", row.get("limit") is not None),
        (f"{percent(row.get('coverage'))} % graded", row.get("coverage") is not None and row["coverage"] < 1.0),
        ("unequal K", row.get("equal_k") is False),
        ("other problems than the recorded ones", row.get("problems_state") == "other"),
        ("seeds ignored", row.get("seeds_ignored")),
        (f"{row.get('cut_short')} samples cut by the server", row.get("cut_short")),
        ("some samples made otherwise", row.get("taken_over_otherwise")),
        (f"judged score not to be trusted: {row.get('canaries_problem')}", row.get("canaries_problem")),
    ]
    return Markup("").join(badge(text, "mark") for text, there in marks if there)


def _judge(row: Row) -> object:
    if row.get("avg_judged") is None:
        return "-"
    share, canaries = percent(row.get("judge_share")), percent(row.get("canary_acceptance"), 0)
    raised = f"raised {share} % of samples, canaries accepted {canaries} %"
    return f"{percent(row['avg_judged'])} with {row.get('judge')}: {raised}"


def _graded(row: Row) -> str:
    """Problems, or how many of them the score is over."""
    all_graded = row.get("n_graded") in (None, row.get("n"))
    return str(row.get("n")) if all_graded else f"{row['n_graded']}/{row.get('n')}"


def _settings(row: Row) -> dict[str, Any]:
    try:
        harness = json.loads(row.get("harness") or "{}")
    except (ValueError, RecursionError):
        harness = {}
    graded_by: Mapping[str, Any] = harness if isinstance(harness, dict) else {}
    return {**{name: row.get(name) for name in SETTINGS}, **{name: graded_by.get(name) for name in GRADED_BY}}


def _samples(source: Source, place: Place | None) -> object:
    return link(source.link(place), "details") if place else "-"


def _values(rows: Sequence[Row], column: str) -> list[str]:
    values = {str(row[column]) for row in rows if row.get(column) is not None}
    return sorted(values, key=lambda value: (ROLES.index(value) if value in ROLES else len(ROLES), value))


def _order(row: Row) -> tuple[int, str, int]:
    role = row.get("role")
    rank = ROLES.index(role) if role in ROLES else len(ROLES)
    return rank, str(row.get("checkpoint_repo")), row.get("step") if row.get("step") is not None else 1 << 30


def _or_last(value: float | None) -> float:
    return float("inf") if value is None else value
