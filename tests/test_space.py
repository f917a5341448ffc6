"""The Space: what it reads from a real Hub, what it makes of hostile text, what it says when something is missing."""

import ast
import importlib
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_process import running
from huggingface_hub import HfApi, SpaceCard
from huggingface_hub.hf_file_system import HfFileSystemFile
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from erpd_hub import spaces
from erpd_hub.artifacts import FileRecord, digest_files
from erpd_hub.checkpoint_role import weight_roles
from erpd_hub.cli import app
from erpd_hub.cli.space import space as space_command
from erpd_hub.comparing.paper import experiments
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation import paired, strata
from erpd_hub.evaluation.harness import GRADED_BY
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA
from erpd_hub.hub.connecting import connect
from erpd_hub.plotting import card_charts, reading
from erpd_hub.plotting import efficiency as plot_efficiency
from erpd_hub.results import board
from erpd_hub.samples import EXTRA_COLUMNS, SAMPLE_SCHEMA, SIGNAL_SCHEMA

HOSTILE = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "![a](http://evil.example/x.png)", "${1+1} {{1+1}}",
    "$\\href{javascript:alert(1)}{x}$", "$<img src=x>$", "$\\text{<script>alert(1)</script>}$", "</div></details><b>",
    "\\(\\style{background:url(http://evil.example)}{x}\\)",
    "<think><svg onload=alert(1)></think><iframe src=//evil.example>",
)  # fmt: skip
_INDEX = pa.schema([("problem_id", pa.string()), ("k", pa.int32()), ("label", pa.int8())])
HTML = {"div", "details", "summary", "p", "code", "span", "section", "h4", "a", "br",
        "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules as a Space has them: top-level scripts beside each other."""
    monkeypatch.syspath_prepend(str(files("erpd_hub.spaces").joinpath("app.py")).removesuffix("/app.py"))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in spaces.MODULES})
    for name in spaces.MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[HfApi]:
    """A Hub of this file's own, for what tests put there."""
    with running(tmp_path_factory.mktemp("hub")) as url:
        yield HfApi(endpoint=url, token=False)


@pytest.fixture
def nowhere(space) -> Any:
    """A source for what needs only its links."""
    return space.data.Source(HfApi(endpoint="http://127.0.0.1:9", token=False), "local")


@pytest.fixture
def source(space, micro) -> Iterator[Any]:
    hub = connect("local")
    api = HfApi(endpoint=hub.api.endpoint, token=False)
    yield space.data.Source(api, "local", run="micro")  # other tests add runs to this home


class Tags(HTMLParser):
    """The elements and attributes of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


# ------------------------------------------------------------------------------------------------ markup


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_leaves_as_characters_or_mathml(space, text: str) -> None:
    seen = Tags(space.markup.response(text))
    assert seen.names <= HTML | space.markup.ELEMENTS
    assert seen.attributes <= {"class"} | space.markup.ATTRIBUTES
    assert not any("evil" in value or "javascript" in value for value in seen.attributes)


def test_formulas_become_mathml_and_prices_stay(space) -> None:
    html = space.markup.prose(r"so $\frac{1}{2}$, \[x^2\] and \(y\); it costs $5 or $6.")
    assert html.count("<math") == 3
    assert "<mfrac>" in html and 'display="block"' in html
    assert "costs $5 or $6." in html


def test_thoughts_are_folded_and_long_text_is_cut_in_the_middle(space) -> None:
    html = space.markup.response("<think>why & how</think>the answer")
    assert html.startswith("<details><summary>thinking, 9 characters</summary>")
    assert "why &amp; how" in html and html.endswith('<div class="answer">the answer</div>')
    long = "a" * space.markup.SHOWN + "END"
    assert "3 characters left out" in space.markup.prose(long)
    assert space.markup.prose(long).endswith("aEND")


def test_a_boxed_answer_is_mathematics_without_delimiters(space) -> None:
    html = space.markup.prose(r"so \boxed{\frac{1}{2}} and \boxed{never closed")
    assert html.count("<math") == 1 and 'notation="box"' in html and "<mfrac>" in html
    assert html.endswith(r"and \boxed{never closed")


@pytest.mark.parametrize(
    "text",
    ["$" * 40_000, "\\(" * 20_000, r"\boxed{" * 6_000, "$x" * 20_000, r"\[" + "{" * 39_000, "$" + r"\frac" * 199 + "$"],
)
def test_no_text_takes_long(space, text: str) -> None:
    begin = time.process_time()
    space.markup.response(text)
    assert time.process_time() - begin < 5  # a guard against blow-up, far above what it takes


# ------------------------------------------------------------------------------------------------ a real run


def test_leaderboard_of_a_run_in_the_order_of_lineage(space, source, micro) -> None:
    found = source.leaderboard()
    assert found.missing == []
    measured = {(row["ref"], row["benchmark"]) for row in micro.summary["checkpoints"] if row["avg"] is not None}
    assert len(found.rows) == len(measured)
    ordered = space.families.by_lineage(found.rows)
    assert len(ordered) == len(found.rows)
    assert (ordered[0][0], ordered[0][1]["role"]) == (0, "base")
    students = [number for number, (_, row) in enumerate(ordered) if row["role"] == "student" and row["teacher_repo"]]
    for number in students:
        above = [row for depth, row in ordered[:number] if depth < 2]
        assert above[-1]["checkpoint_repo"] == ordered[number][1]["teacher_repo"]
    student = next(row for row in found.rows if row["role"] == "student")
    assert (student["loss"], student["strategy"]) == ("ce", 1)
    assert {row["loss"] for row in found.rows if row["role"] == "base"} == {None}
    html = space.leaderboard.board(source, found.rows, "lineage")
    assert Tags(html).names <= HTML | {"i", "b"}
    for row in found.rows:
        assert space.scores.percent(row["avg"]) in html


def test_what_the_samples_are_not_marks_their_row(space, source) -> None:
    row = source.leaderboard().rows[0]
    told = {"seeds_ignored": True, "cut_short": 2, "taken_over_otherwise": '{"dtype": "bfloat16"}'}
    marks = ("seeds ignored", "2 samples cut by the server", "some samples made otherwise")
    html = space.leaderboard.board(source, [row | told], "lineage")
    assert all(mark in html for mark in marks)
    assert not any(mark in space.leaderboard.board(source, [row], "lineage") for mark in marks)


def test_marks_of_a_score_that_says_less_than_it_seems(space, nowhere) -> None:
    row = {"run": "r", "checkpoint": "c", "benchmark": "b", "avg": 0.0, "k": 4, "n": 8}
    judged = {"avg_judged": 0.5, "judge": "j", "judge_share": 0.02, "canary_acceptance": 0.9}
    less = {"coverage": 0.0, "n_graded": 6, "canaries_problem": "it accepts wrong answers"}
    html = space.leaderboard.board(nowhere, [row | judged | less], "lineage")
    assert "50.0 with j: raised 2.0 % of samples, canaries accepted 90 %" in html
    assert "judged score not to be trusted: it accepts wrong answers" in html
    assert "0.0 % graded" in html and "4 x 6/8" in html
    plain = space.leaderboard.board(nowhere, [row | judged], "lineage")
    assert "4 x 8<" in plain and not any(word in plain for word in ("trusted", "graded"))


def test_scores_that_were_measured_otherwise_are_not_compared_without_a_word(space, nowhere) -> None:
    row = {"run": "r", "checkpoint": "c", "benchmark": "b", "avg": 0.5, "version": 1, "temperature": 1.0,
           "harness": '{"grader": 1, "erpd-hub": 1}'}  # fmt: skip
    alike = row | {"checkpoint": "d", "harness": '{"grader": 1, "erpd-hub": 2}'}
    assert space.scores.incomparable([row, alike, row | {"benchmark": "other", "version": 2}]) == []
    rows = [row, row | {"checkpoint": "e", "temperature": 0.6, "harness": '{"grader": 2}'}]
    sentence = "b: scores that differ in temperature, grader are not comparable"
    assert space.scores.incomparable(rows) == [sentence]
    assert sentence in space.leaderboard.board(nowhere, rows, "AVG@K")
    assert sentence in _tab(space, space.compare.Tab, nowhere).choose(rows, "b", ["r: c", "r: e"])[0]
    assert sentence in _tab(space, space.efficiency.Tab, nowhere).show(rows, "all", "b")[0]
    assert space.scores.incomparable([row, row | {"harness": "[" * 100_000}]), "no versions at all"


def test_each_sort_keeps_every_row(space, source) -> None:
    rows = source.leaderboard().rows
    for sort in space.leaderboard.SORTS:
        assert space.leaderboard.board(source, rows, sort).count("<tr>") == len(rows) + 1


def test_a_page_reads_nothing_before_it_is_chosen(space) -> None:
    asked: list[object] = []
    part = SimpleNamespace(outputs=[1, 2], load=lambda *given: asked.append(given) or ["a", "b"])
    other = SimpleNamespace(outputs=[3])  # has nothing to load it with
    assert len(space.app._linked({"signal": part, "other": other}, [], {}, [])) == 4
    assert len(space.app._chosen("signal", part, [], {}, ["signal"])) == 3
    assert asked == []
    assert space.app._chosen("signal", part, [], {}, ["compare"]) == [["compare", "signal"], "a", "b"]
    linked = space.app._linked({"signal": part, "other": other}, [], {"tab": ["signal"]}, [])
    assert linked[:3] == [["signal"], "a", "b"] and len(linked) == 4


def test_checkpoints_of_two_rounds_follow_each_other(space) -> None:
    shared = {"run": "two", "benchmark": "b", "base_repo": "base", "kl_checkpoint_to_base": 0.1, "avg": 0.5,
              "checkpoint_revision": "c" * 40}  # fmt: skip
    said = [("r2/student", "student", "r2/teacher"), ("r1/student", "student", "r1/teacher"), ("base", "base", None),
            ("r2/teacher", "teacher", "r1/teacher"), ("r1/teacher", "teacher", None)]  # fmt: skip
    rows = [
        shared | {"checkpoint": name, "checkpoint_repo": name, "role": role, "teacher_repo": above}
        for name, role, above in said
    ]
    ordered = space.families.by_lineage(rows)
    expected = [("base", 0), ("r1/teacher", 1), ("r2/teacher", 2), ("r2/student", 3), ("r1/student", 2)]
    assert [(row["checkpoint"], depth) for depth, row in ordered] == expected
    circle = [row | {"teacher_repo": "r2/student"} if row["checkpoint"] == "r1/teacher" else row for row in rows]
    assert len(space.families.by_lineage(circle)) == len(rows)
    texts = [text for trace in space.efficiency.figure_of(rows[:2]).data for text in trace.text or ()]
    assert texts == [f"two: {name}<br>{name}@{'c' * 10}" for name in ("r2/student", "r1/student")]


def test_what_was_trained_on_stands_below_what_it_started_from(space, hub) -> None:
    inputs = {"mse": "base", "lost": "mse", "back": "lost", "online": "student", "student": "base"}
    at = {"base": _put(space, hub, "local/f-base", "lineage.json", '{"stage": "base"}')}
    for name in ("mse", "lost", "back", "student", "online"):
        above = at[inputs[name]]
        told = {"role": "teacher" if name == "lost" else "init", "repo_type": "model", "repo_id": above.repo_id,
                "revision": above.revision}  # fmt: skip
        record = json.dumps({"stage": "teacher", "inputs": [told]})
        at[name] = _put(space, hub, f"local/f-{name}", "lineage.json", record)
    roles = {"base": "base", "mse": "teacher", "back": "teacher", "student": "student", "online": "online"}
    rows = [
        {"run": "f", "benchmark": "b", "base_repo": "local/f-base", "checkpoint": name, "role": role, "avg": 0.5,
         "checkpoint_repo": at[name].repo_id, "checkpoint_revision": at[name].revision, "loss": "ce"}
        for name, role in roles.items()
    ]  # fmt: skip
    source = space.data.Source(hub, "local")
    above, unread = space.families.started_from(source, rows)
    expected = {"local/f-back": "local/f-mse", "local/f-online": "local/f-student"}
    assert (above, unread) == (expected, 0), "past what nobody evaluated, and to no base"
    order = [(row["checkpoint"], depth) for depth, row in space.families.by_lineage(rows, above)]
    assert order == [("base", 0), ("mse", 1), ("back", 2), ("student", 1), ("online", 2)]
    html = space.leaderboard.board(source, rows, "lineage")
    assert html.index(">student<") < html.index(">online<") and html.count("ce (its teacher&#39;s)") == 1


def test_the_papers_numbers_are_marked_rows_of_the_board(space, nowhere) -> None:
    row = {"run": "r", "checkpoint": "mine", "benchmark": "aime_2025", "avg": 0.5, "role": "student", "k": 4, "n": 30}
    tab = _tab(space, space.leaderboard.Tab, nowhere)
    everything = ("all", "aime_2025", "all", "all", "all")
    assert "reported by the paper" not in tab.show([row], *everything, "lineage", False)
    both = tab.show([row], *everything, "AVG@K", True)
    reported = [each for each in space.reported.reported_rows() if each["benchmark"] == "aime_2025"]
    assert both.count("<tr>") == 2 + len(reported) and both.count("reported by the paper") == len(reported)
    assert both.index("Qwen3-4B: CE+Distillation") < both.index(">mine<"), "sorted among the measured ones"
    students = tab.show([row], "r", "aime_2025", "student", "ce", "all", "lineage", True)
    assert "Qwen3-4B: CE+Distillation" in students and not any(name in students for name in (": CE<", ": Base<"))
    assert "no score has these values" in tab.show([row], "r", "all", "base", "all", "all", "lineage", False)
    assert "the paper reports nothing of this" in tab.show([row], "r", "toy", "all", "all", "all", "lineage", True)


def test_compare_shows_every_sample_of_a_problem(space, source) -> None:
    rows = source.leaderboard().rows
    benchmark = rows[0]["benchmark"]
    names = [space.scores.name_of(row) for row in rows if row["benchmark"] == benchmark][:2]
    tab = _tab(space, space.compare.Tab, source)
    overview, menu, asked = tab.choose(rows, benchmark, names)
    assert "difference" in overview and menu["choices"]
    assert all(re.fullmatch(r"\d\+\d\?", question) for question in asked.values()) and len(asked) == 8
    assert menu["choices"][0][0].startswith(asked[menu["value"]])
    compared = [row for row in rows if row["benchmark"] == benchmark][:2]
    sides = [space.compare.means(source.index(space.places.details_place(row))) for row in compared]
    spreads = [max(values) - min(values) for _, values in space.compare.by_difference(sides)]
    assert spreads == sorted(spreads, reverse=True)
    shown, slider, address = tab.show(rows, benchmark, names, menu["value"], 1, asked)
    assert shown.startswith('<div class="question">') and asked[menu["value"]] in shown[:200]
    other = next(problem for problem in asked if problem != menu["value"])
    assert asked[other] in tab.show(rows, benchmark, names, other, 0, {menu["value"]: "?"})[0][:200], "one by its id"
    assert shown.count("<section>") == 2
    assert slider["maximum"] == rows[0]["k"] - 1
    assert f"problem={menu['value']}" in address
    first = {row["role"] for row in rows if space.scores.name_of(row) in tab.load(rows, {})[1]["value"]}
    assert first == {"base", "student"}
    query = {"benchmark": [benchmark], "checkpoint": names, "problem": [menu["value"]], "k": ["1"]}
    *_, problem, _, again, slider, _ = tab.load(rows, query)
    assert (problem["value"], again, slider["value"]) == (menu["value"], shown, 1)


def test_signal_tokens_together_are_the_response(space, source) -> None:
    place = source.published("dataset", 9, run="micro", stage="signal")[0].place
    dataset = f"{place.repo_id}@{place.revision}"
    problem = source.index(place).table["problem_id"][0].as_py()
    (row,) = source.signal_row(place, problem, 0).rows
    record = source.record(place)
    tab = _tab(space, space.signals.Tab, source)
    rollouts = space.places.input_of(record, "rollouts")
    texts, note = tab._texts(record, problem, 0, len(row["signal"]))
    (sample,) = [each for each in source.samples(rollouts, problem).rows if each["k"] == 0]
    assert note == []
    assert "".join(texts).startswith(sample["text"])
    html = tab.show(dataset, problem, 0, "signal")
    assert html.count('<span class="t"') == len(row["signal"])
    menu, _, about, plot = tab.choose(dataset)
    assert "noise floor" in about and plot["visible"]
    assert all(re.fullmatch(r"\d\+\d\? · [0-9a-f]{8}", text) for text, _ in menu["choices"])
    query = {"signal": [place.repo_id], "problem": [problem], "k": ["1"]}
    assert [each["value"] for each in tab.load([], query)[:3]] == [dataset, problem, 1]


def test_dynamics_offers_every_training_and_draws_it(space, source) -> None:
    rows = source.leaderboard().rows
    tab = _tab(space, space.dynamics.Tab, source)
    menu, said, *plots = tab.load(rows, {})
    never_evaluated = ["micro: mse", "micro: recovered", "micro: student-weak"]
    assert {*never_evaluated, "micro: teacher", "micro: student", "micro: control"} == {*menu["choices"]}
    assert menu["value"] == ["micro: teacher", "micro: student"] and 'class="notice"' not in said
    figures = [plot["value"] for plot in plots if plot["visible"]]
    assert len(figures) > 4 and min(trace.x[0] for figure in figures for trace in figure.data) == 0
    said, *plots = tab.show(rows, never_evaluated)
    assert all(name in said for name in never_evaluated) and any(plot["visible"] for plot in plots)
    linked, said, *_ = tab.load(rows, {"training": ["micro: mse", "micro: gone"]})
    assert linked["value"] == ["micro: mse"] and "names the training micro: gone, which is not" in said


def test_trainings_that_are_left_out_are_told(space, source, monkeypatch) -> None:
    rows = source.leaderboard().rows
    monkeypatch.setattr(space.runs, "MOST_LISTED", 2)
    monkeypatch.setattr(space.runs, "MOST_ANCESTORS", 3)
    found = space.runs.trainings(source, rows)
    told = "only the 2 models of the run micro that changed last were looked at"
    assert told in found.missing and any("only 3 of their ancestors" in sentence for sentence in found.missing)

    def away(**_: object) -> None:
        raise space.reading.TRANSPORT_ERROR("gone")

    monkeypatch.setattr(space.runs, "MOST_ANCESTORS", 100)
    monkeypatch.setattr(source.api, "list_models", away)
    found = space.runs.trainings(source, rows)
    assert found.missing == ["the models of the run micro cannot be listed: the Hub does not answer"]
    assert {"micro: teacher", "micro: mse"} <= {*found.places}, "those that lineage leads to"


def test_efficiency_draws_what_was_measured_with_errors_of_both(space, source) -> None:
    rows = source.leaderboard().rows
    said, plot = _tab(space, space.efficiency.Tab, source).show(rows, "micro", rows[0]["benchmark"])
    lines = [trace for trace in plot["value"].data if "frontier" not in trace.name]
    assert sum(len(trace.x) for trace in lines) == sum((row["kl_checkpoint_to_base"] or 0) > 0 for row in rows)
    assert {trace.name for trace in lines} == {"micro: student", "micro: teacher@step-3"}
    for trace in lines:
        row = next(row for row in rows if space.scores.name_of(row) == trace.name)
        probe = space.places.Place("dataset", row["probe_repo"], row["probe_revision"], row["probe_folder"])
        error = source.record(probe)["metrics"]["kl_checkpoint_to_base_stderr"]
        assert error > 0 and trace.error_x.array == (pytest.approx(1.96 * error),)
    assert "not drawn, for no measured KL to base: micro: control, micro: teacher, micro: unlearned" in said


def test_students_are_told_apart_without_hovering(space, nowhere) -> None:
    shared = {"run": "r", "benchmark": "b", "role": "student", "avg": 0.5, "kl_checkpoint_to_base": 0.1}
    rows = [shared | {"checkpoint": name, "checkpoint_repo": name} for name in ("one", "two", "three")]
    drawn = space.efficiency.figure_of(rows).data
    assert [trace.name for trace in drawn] == ["r: one (student)", "r: two (student)", "r: three (student)"]
    assert len({trace.line.color for trace in drawn}) == 3
    told = json.loads(space.efficiency.figure_of(rows).to_json())
    assert told["config"] == {"displaylogo": False}, "no link to plotly's makers"


def test_efficiency_says_what_it_does_not_draw_and_joins_one_base_only(space, nowhere) -> None:
    rows = [
        {"run": "r", "checkpoint": f"{base}{kl}", "checkpoint_repo": f"{base}{kl}", "benchmark": "b", "role": "student",
         "avg": 0.1 + kl, "kl_checkpoint_to_base": kl, "base_repo": base}
        for base in ("one", "two") for kl in (0.0, 0.1, 0.2)
    ]  # fmt: skip
    base = {"run": "r", "checkpoint": "base", "benchmark": "b", "role": "base", "avg": 0.1}
    tab = _tab(space, space.efficiency.Tab, nowhere)
    text, plot = tab.show([*rows, base, rows[1] | {"kl_checkpoint_to_base": None}], "all", "b")
    assert "not drawn, for no measured KL to base: r: one0.1<br>" in text
    assert "for a KL of 0 to base, which has no place on a logarithm: r: one0.0, r: two0.0</div>" in text
    frontiers = {trace.name: len(trace.x) for trace in plot["value"].data if "frontier" in trace.name}
    assert sorted(frontiers.values()) == [2, 2] and len(frontiers) == 2
    text, plot = tab.show([base], "all", "b")
    assert "nothing to draw" in text and not plot["visible"]
    *_, text, plot = tab.load([], {})
    assert "no checkpoint" in text and not plot["visible"], "a sentence, and no empty axes"


def test_efficiency_begins_with_a_run_that_there_is_something_to_draw_of(space, nowhere) -> None:
    shared = {"checkpoint": "c", "checkpoint_repo": "c", "role": "student", "avg": 0.5}
    rows = [shared | {"run": "elsewhere", "benchmark": "a", "kl_checkpoint_to_base": None},
            shared | {"run": "r", "benchmark": "b", "kl_checkpoint_to_base": 0.1}]  # fmt: skip
    run, benchmark, _, plot = _tab(space, space.efficiency.Tab, nowhere).load(rows, {})
    assert (run["value"], benchmark["value"], plot["visible"]) == ("r", "b", True)
    run, benchmark, _, plot = _tab(space, space.efficiency.Tab, nowhere).load(rows, {"run": ["elsewhere"]})
    assert (run["value"], benchmark["value"], plot["visible"]) == ("elsewhere", "a", False)
    rows.append(shared | {"run": "late", "benchmark": "a", "kl_checkpoint_to_base": 0.1})
    run, benchmark, _, plot = _tab(space, space.efficiency.Tab, nowhere).load(rows, {"benchmark": ["a"]})
    assert (run["value"], benchmark["value"], plot["visible"]) == ("late", "a", True)


def test_dynamics_show_what_the_pictures_of_cards_show(space, hub) -> None:
    keys = [tuple(keys) for _, keys in space.dynamics.PANELS]
    assert keys[: len(card_charts._PANELS)] == [tuple(keys) for _, keys in card_charts._PANELS]
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "reward": 0.3}, {"step": "x", "loss": "y"}]
    record = {"stage": "online", "run": "r", "files": {"dynamics.jsonl": {"sha256": "", "size": 1}}}
    _put(space, hub, "local/r-r1-c", "lineage.json", json.dumps(record))
    place = _put(space, hub, "local/r-r1-c", "dynamics.jsonl", "\n".join(map(json.dumps, lines)))
    row = {"run": "r", "checkpoint": "c", "role": "online", "checkpoint_repo": place.repo_id,
           "checkpoint_revision": place.revision}  # fmt: skip
    source = space.data.Source(hub, "local")
    text, *plots = _tab(space, space.dynamics.Tab, source).show([row], ["r: c"])
    figures = [plot["value"] for plot in plots if plot["visible"]]
    drawn = {trace.hovertemplate.partition(",")[0]: (trace.x, trace.y) for each in figures for trace in each.data}
    assert 'class="notice"' not in text and drawn == {"reward": ((1,), (0.3,)), "loss": ((0, 1), (1.0, 0.5))}
    assert [each.layout.title.text for each in figures] == ["share of right answers while training", "loss"]


def test_a_histogram_reads_no_more_tokens_than_it_says(space) -> None:
    asked: list[int] = []

    def groups() -> Iterator[pa.Table]:
        for number in range(3):
            asked.append(number)
            values = [[0.5] * 10, None, [float("inf")] * 10, [0.25] * 10]
            yield pa.table({"label": pa.array([1, 0, 0, None], pa.int8()), "signal": values})

    found, tokens, whole = space.spread.beginning_of(groups(), 45)
    assert ([group.num_rows for group in found], tokens, whole, asked) == ([4, 2], 40, False, [0, 1])
    assert space.spread.beginning_of(groups(), 90)[1:] == (90, True)
    spread = space.spread.spread(found)
    assert (len(spread["right responses"]), len(spread["first tokens"])) == (20, 3)
    assert "wrong responses" not in spread, "what is not finite is in no bin"


def test_lineage_draws_all_ancestors_and_ticks_them(space, source, micro) -> None:
    rows = source.leaderboard().rows
    student = next(row for row in rows if row["role"] == "student")
    most = space.runs.MOST_NODES
    graph = source.closure([space.places.checkpoint_place(student)], most)
    assert all(graph.values())
    position = {place: number for number, column in enumerate(space.drawing.layers(graph)) for place in column}
    for place, record in graph.items():
        assert space.lineage.problems_of(source, place, graph) == []
        assert all(
            position[above] < position[place] for _, above in space.places.inputs_of(record) if above in position
        )
    altered = {**graph, place: {**graph[place], "files": {"model.safetensors": {"sha256": "0" * 64, "size": 1}}}}
    assert "its digest does not follow from its files" in space.lineage.problems_of(source, place, altered)
    assert space.drawing.drawing(source, graph, {}).count("<rect") == len(graph)
    tab = _tab(space, space.lineage.Tab, source)
    menu, whole = tab.load(rows, {})
    every = {item["step"].partition("/")[2] for item in micro.summary["artifacts"] if item["repo_type"] == "model"}
    assert menu["value"] == "micro: the whole run" and "student-weak" in every
    assert {*re.findall(r'class="node [^>]*>.*?<text x="10" y="19">([^<]*)', whole, re.S)} >= every
    heads = re.findall(r"<title>(local/micro-r1-student)@", whole)
    assert len(heads) == 1, "a later commit with another card is no other artifact"
    assert len(source.closure([space.places.checkpoint_place(student)], 2)) == 3
    linked, shown = tab.load(rows, {"checkpoint": ["micro: student", "micro: gone"]})
    assert linked["value"] == "micro: student" and shown.count("<rect") == len(graph)
    assert "names the checkpoint micro: gone" in shown and "init: local/micro-r1-base" in shown


def test_an_edge_goes_between_the_boxes_that_it_passes(space, nowhere) -> None:
    above = {"a": "", "b": "a", "c": "ab", "d": "ac"}
    place = {name: space.places.Place("model", f"local/{name}", "main") for name in above}
    told = {name: {"repo_type": "model", "repo_id": f"local/{name}", "revision": "main"} for name in above}
    graph = {
        place[name]: {"stage": "t", "inputs": [{"role": one} | told[one] for one in names]}
        for name, names in above.items()
    }
    passes = [[each for each in row if each not in graph] for row in space.drawing.layers(graph)]
    assert passes == [[], [(place["a"], 1)], [(place["a"], 2)], []]
    drawing = space.drawing.drawing(nowhere, graph, {})
    boxes = [tuple(map(int, at)) for at in re.findall(r"translate\((\d+),(\d+)\)", drawing)]
    for x, top, bottom in re.findall(r" (\d+) (\d+)V(\d+)", drawing.replace(" V", "V")):
        beside = [left for left, y in boxes if y == int(top) and int(bottom) == y + space.drawing.HEIGHT]
        assert beside and not any(left <= int(x) <= left + space.drawing.WIDTH for left in beside)
    circle = graph | {place["a"]: graph[place["d"]]}
    assert space.drawing.drawing(nowhere, circle, {}).count("<rect") == 4


# ------------------------------------------------------------------------------------------------ what is not there


def test_what_is_missing_is_said(space, source) -> None:
    nobody = space.data.Source(source.api, "nobody")
    assert "dataset nobody/erpd-leaderboard" in nobody.leaderboard().missing[0]
    other = space.data.Source(source.api, "local", run="no-such-run")
    assert "no row of the run no-such-run" in other.leaderboard().missing[0]
    place = space.places.Place("dataset", "local/gone", "main", "a")
    assert source.index(place).missing and source.index(place).table.num_rows == 0
    assert source.record(place) is None
    assert source.samples(place, "p").rows == []


def test_a_hub_that_does_not_answer_is_said_without_its_address(space, monkeypatch) -> None:
    source = space.data.Source(HfApi(endpoint="http://127.0.0.1:9", token=False), "local")
    (sentence,) = source.leaderboard().missing
    assert sentence.endswith("the Hub does not answer")

    def gone(**_: object) -> None:
        raise space.reading.TRANSPORT_ERROR("gone")  # as the client does after its own tries, which take a while

    monkeypatch.setattr(source.api, "list_datasets", gone)
    menu, _, _, told, *_ = _tab(space, space.signals.Tab, source).load([], {})
    assert menu["choices"] == [] and "the signals cannot be listed: the Hub does not answer" in told


def test_a_hundred_thousand_samples_are_read_by_what_is_shown(space, hub, tmp_path: Path, monkeypatch) -> None:
    shard = tmp_path / "train-00000.parquet"
    with pq.ParquetWriter(shard, _table(0).schema) as writer:
        for group in range(25):
            writer.write_table(_table(group))
    hub.create_repo("local/details", repo_type="dataset")
    commit = hub.upload_file(
        path_or_fileobj=shard,
        path_in_repo="a/data/train-00000.parquet",
        repo_id="local/details",
        repo_type="dataset",
    )
    source = space.data.Source(hub, "local")
    read: list[int] = []
    fetch = HfFileSystemFile._fetch_range

    def counting(file: HfFileSystemFile, start: int, end: int) -> bytes:
        read.append(end - start)
        return fetch(file, start, end)

    monkeypatch.setattr(HfFileSystemFile, "_fetch_range", counting)
    place = space.places.Place("dataset", "local/details", commit.oid, "a")
    assert source.index(place).table.num_rows == 100_000
    (row,) = source.samples(place, "p17-3").rows
    assert row["text"] == _table(17)["text"][3].as_py()
    assert sum(read) < shard.stat().st_size / 2


def _table(group: int, count: int = 4_000) -> pa.Table:
    """Samples whose texts no compression makes small."""
    noise = random.Random(group).randbytes(100 * count).hex()
    return pa.table({
        "problem_id": [f"p{group}-{number}" for number in range(count)], "k": pa.array([0] * count, pa.int32()),
        "label": pa.array([number % 2 for number in range(count)], pa.int8()), "verdict": ["wrong"] * count,
        "text": [noise[200 * number : 200 * number + 200] for number in range(count)],
    })  # fmt: skip


def test_a_menu_has_the_problems_that_differ_most_and_takes_the_id_of_another(space, hub, tmp_path: Path) -> None:
    places = []
    for name, right in (("one", lambda number: 0), ("two", lambda number: number > 40)):
        rows = [{"problem_id": f"p{number:03d}", "k": 0, "label": int(right(number)), "text": "t", "prompt_ids": [1]}
                for number in range(100)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shard.parquet")
        data = (tmp_path / "shard.parquet").read_bytes()
        places.append(_put(space, hub, f"local/many-{name}", "data/a.parquet", data, kind="dataset"))
    rows = [{"run": "r", "checkpoint": place.repo_id, "benchmark": "b", "details_repo": place.repo_id, "k": 1,
             "details_revision": place.revision} for place in places]  # fmt: skip
    names = [space.scores.name_of(row) for row in rows]
    tab = _tab(space, space.compare.Tab, space.data.Source(hub, "local"))
    overview, menu, asked = tab.choose(rows, "b", names)
    assert len(menu["choices"]) == space.compare.MOST_LISTED == 50 and asked == {}
    assert menu["choices"][0] == ("p041 (0 / 100 %)", "p041") and "+59.0" in overview
    shown, _, address = tab.show(rows, "b", names, "p003", 0, asked)
    assert shown.count("<section>") == 2 and "its text is not published" in shown and "problem=p003" in address
    assert "no column gold, extracted, verdict" in shown, "what a shard lacks is said"
    assert "the address names the k 1, which is not among these" in tab.load(rows, {"k": ["1"]})[2]


def test_one_of_many_samples_is_read_once(space, source, monkeypatch) -> None:
    row = source.leaderboard().rows[0]
    place = space.places.details_place(row)
    problem = source.index(place).table["problem_id"][0].as_py()
    first = source.samples(place, problem)
    assert [each["response_ids"] for each in first.rows] == [len(source.tokens(place, problem, k)) for k in range(4)]
    monkeypatch.setattr(source._shards, "groups", None)
    assert source.samples(place, problem) is first


def test_what_is_too_large_is_not_fetched(space, hub, tmp_path: Path, monkeypatch) -> None:
    place = _put(space, hub, "local/large", "lineage.json", '{"stage": "teacher"}')
    source = space.data.Source(hub, "local")
    monkeypatch.setattr(space.data, "LARGEST_RECORD", 5)
    monkeypatch.setattr(space.data, "LARGEST_TOKENIZER", 5)
    fetched: list[object] = []
    download = hub.hf_hub_download

    def noting(**asked: Any) -> object:
        fetched.append(asked.get("dry_run"))
        return download(**asked)

    monkeypatch.setattr(hub, "hf_hub_download", noting)
    assert source.json(place, "lineage.json").missing == ["local/large: lineage.json: too large to read"]
    assert source.record(place) is None and source.tokenizer_file(place) is None
    assert fetched == [True] * 3, "asked for the size, and for nothing else"
    pq.write_table(pa.table({"problem_id": ["p"] * 100, "k": [0] * 100, "label": [1] * 100}), tmp_path / "a.parquet")
    data = _put(space, hub, "local/large", "data/a.parquet", (tmp_path / "a.parquet").read_bytes(), kind="dataset")
    monkeypatch.setattr(space.shards, "LARGEST_GROUP", 100)
    assert source.index(data).missing == ("dataset local/large, data/a.parquet: too large to read",)


def test_what_is_too_much_is_cut_and_said(space, source, nowhere, monkeypatch) -> None:
    for module, name in (
        (space.leaderboard, "MOST_SHOWN"), (space.families, "MOST_ASKED"), (space.data, "MOST_SCORES"),
        (space.efficiency, "MOST_LINES"), (space.dynamics, "MOST_STEPS"), (space.signals, "SHOWN_TOKENS"),
        (space.runs, "MOST_NODES"), (space.lineage, "MOST_NODES"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 1)
    shared = {"run": "r", "benchmark": "b", "role": "student", "avg": 0.5, "kl_checkpoint_to_base": 0.1}
    rows = [shared | {"checkpoint": name, "checkpoint_repo": f"local/{name}"} for name in ("one", "two", "three")]
    board = space.leaderboard.board(nowhere, rows, "AVG@K")
    assert board.count("<tr>") == 2 and "the first 1 of 3 scores" in board
    assert space.families.started_from(nowhere, rows) == ({}, 2)
    text, plot = _tab(space, space.efficiency.Tab, nowhere).show(rows, "all", "b")
    drawn = [trace for trace in plot["value"].data if trace.name != "frontier"]
    assert len(drawn) == 1 and "the first 1 of 3 checkpoints are drawn" in text
    found = source.leaderboard()
    assert len(found.rows) <= 1 and "the leaderboard of local has over 1 scores: the first are here" in found.missing
    trained = {"run": "micro", "checkpoint": "student", "checkpoint_repo": "local/micro-r1-student"}
    said, *plots = _tab(space, space.dynamics.Tab, source).show([trained], ["micro: teacher"])
    assert "micro: teacher: the first 1 steps" in said
    assert {len(trace.x) for plot in plots if plot["visible"] for trace in plot["value"].data} == {1}
    shown = _tab(space, space.lineage.Tab, source).show([trained], "micro: student")
    assert "more than 1 artifacts: too many to draw" in shown and "<svg" not in shown
    place = source.published("dataset", 9, run="micro", stage="signal")[0].place
    problem = source.index(place).table["problem_id"][0].as_py()
    html = _tab(space, space.signals.Tab, source).show(f"{place.repo_id}@{place.revision}", problem, 0, "signal")
    assert html.count('<span class="t"') == 1 and "the first 1 of " in html


def test_an_index_ends_at_its_bound_and_is_kept(space, hub, tmp_path: Path, monkeypatch) -> None:
    for number in range(2):
        pq.write_table(pa.table({"problem_id": ["p", "q"], "k": [0, 0], "label": [1, 0]}), tmp_path / "shard.parquet")
        data = (tmp_path / "shard.parquet").read_bytes()
        place = _put(space, hub, "local/endless", f"data/{number}.parquet", data, kind="dataset")
    monkeypatch.setattr(space.shards, "MOST_SAMPLES", 3)
    source = space.data.Source(hub, "local")
    index = source.index(place)
    assert index.missing == ("dataset local/endless: more than 3 samples, too many to list",)
    assert index.table.num_rows == 2 and source.index(place) is index


def test_numbers_that_are_none_stop_no_page(space, hub, tmp_path: Path) -> None:
    score = {"run": 3, "avg": "x", "interval": [None, 1.0], "kl_checkpoint_to_base": math.nan, "k": [1], "step": "y"}
    row = space.places.score_of(score | {"checkpoint": "c", "benchmark": "b", "role": ["r"]})
    assert {row[name] for name in ("run", "avg", "interval", "kl_checkpoint_to_base", "k", "step", "role")} == {None}
    source = space.data.Source(hub, "local")
    assert ">c<" in space.leaderboard.board(source, [row], "lineage")
    assert "nothing to draw" in _tab(space, space.efficiency.Tab, source).show([row], "all", "b")[0]
    told = {"problem_id": "p", "k": 0, "label": 1, "numerator": [-1.0], "denominator": None, "old": [None, -1.0],
            "signal": [0.5, None]}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([told]), tmp_path / "a.parquet")
    place = _put(space, hub, "local/odd", "data/a.parquet", (tmp_path / "a.parquet").read_bytes(), kind="dataset")
    shown = _tab(space, space.signals.Tab, source).show(f"{place.repo_id}@{place.revision}", "p", 0, "signal")
    assert "not one for each token" in shown
    pq.write_table(pa.table({"problem_id": [[1]], "k": ["x"]}), tmp_path / "a.parquet")
    place = _put(space, hub, "local/odd", "data/a.parquet", (tmp_path / "a.parquet").read_bytes(), kind="dataset")
    assert source.index(place).table.num_rows == 0
    assert "no column label" in source.index(place).missing[0]


@pytest.mark.parametrize("record", [
    '{"stage": "teacher", "inputs": 3}', '{"stage": "teacher", "inputs": [{"role": "a", "repo_type": "model"}, 3]}',
    '{"inputs": []}', '{"stage": "t", "inputs": [{"role": "a", "repo_type": "kernel", "repo_id": "a/b"}]}',
    '{"stage": "t", "files": {"a": {"size": 1}}}', "[" * 100_000, "3", '{"stage": ["t"]}',
])  # fmt: skip
def test_a_record_that_is_none_is_a_node_that_is_not_ours(space, hub, record: str) -> None:
    place = _put(space, hub, "local/broken", "lineage.json", record)
    row = {"run": "r", "checkpoint": "c", "checkpoint_repo": place.repo_id, "checkpoint_revision": place.revision}
    shown = _tab(space, space.lineage.Tab, space.data.Source(hub, "local")).show([row], "r: c")
    assert shown.count("<rect") == 1 and "not ours, or not readable" in shown


def test_what_could_not_be_read_once_is_read_again(space, hub, monkeypatch) -> None:
    place = _put(space, hub, "local/later", "lineage.json", '{"stage": "teacher"}')
    source = space.data.Source(hub, "local")

    def away(*_: object, **__: object) -> None:
        raise space.reading.TRANSPORT_ERROR("gone")

    with monkeypatch.context() as patch:
        patch.setattr(hub, "hf_hub_download", away)
        patch.setattr(hub, "list_repo_tree", away)
        assert source.record(place) is None and "does not answer" in source.index(place).missing[0]
    assert source.record(place) == {"stage": "teacher"}
    assert "no data/*.parquet" in source.index(place).missing[0] or "not found" in source.index(place).missing[0]
    monkeypatch.setattr(hub, "hf_hub_download", away)
    assert source.record(place) == {"stage": "teacher"}, "and is kept once read"


def test_a_sample_without_a_grade_is_neither_right_nor_wrong(space, hub, tmp_path: Path) -> None:
    for name, label in (("right", 1), ("wrong", 0), ("ungraded", None)):
        row = {"problem_id": "p", "k": 0, "label": label, "numerator": None, "denominator": None, "old": [-1.0] * 2,
               "signal": [math.inf, math.nan]}  # fmt: skip
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "shard.parquet")
        repo = f"local/{name}"
        place = _put(space, hub, repo, "data/a.parquet", (tmp_path / "shard.parquet").read_bytes(), kind="dataset")
        tab = _tab(space, space.signals.Tab, space.data.Source(hub, "local"))
        html = tab.show(f"{repo}@{place.revision}", "p", 0, "signal")
        assert [word for word in ("right", "wrong", "ungraded") if f'"badge {word}"' in html] == [name]
        assert tab.choose(f"{repo}@{place.revision}")[3]["visible"], "not finite, and still a page"


def test_an_address_that_names_what_is_not_there_is_told(space, nowhere) -> None:
    rows = [{"run": "r", "checkpoint": name, "benchmark": "b", "avg": 0.5} for name in ("c", "d")]
    query = {"benchmark": ["gone"], "checkpoint": ["r: c", "r: <b>"], "problem": ["p"], "k": ["9" * 5000]}
    _, _, overview, *_ = _tab(space, space.compare.Tab, nowhere).load(rows, query)
    named = ("the benchmark gone,", "the checkpoint r: &lt;b&gt;,", "the problem p,", "the k 999")
    assert all(f"the address names {name}" in overview for name in named)
    assert "names the checkpoint r: c" not in overview
    assert space.app._first({"tab": ["gone"]}) == "leaderboard"
    for tab, names in (
        (space.leaderboard.Tab, ("run", "role")), (space.efficiency.Tab, ("run", "benchmark")),
        (space.lineage.Tab, ("run", "checkpoint")),
    ):  # fmt: skip
        shown = "".join(map(str, _tab(space, tab, nowhere).load(rows, {name: ["gone"] for name in names})))
        assert all(f"the address names the {name} gone" in shown for name in names)


# ------------------------------------------------------------------------------------------------ its files


def test_paired_summary_is_that_of_the_command(space) -> None:
    labels = [{f"p{number}": [seed.getrandbits(1) if seed.random() < 0.9 else None for _ in range(4)]
               for number in range(30)} for seed in map(random.Random, range(3))]  # fmt: skip
    rows = [[{"problem_id": problem, "k": k, "label": label} for problem, own in side.items()
             for k, label in enumerate(own)] for side in labels]  # fmt: skip
    indices = [space.shards.Index(pa.Table.from_pylist(own, schema=_INDEX), ()) for own in rows]
    first, *others = [space.compare.means(index) for index in indices]
    expected = [paired.compare(side, labels[0]) for side in labels[1:]]
    found = [space.paired.paired(first, side) for side in others]
    assert [each.problems for each in found] == [each.num_problems for each in expected] == [30, 30]
    for own, theirs in zip(found, expected, strict=True):
        assert (own.difference, own.stderr, own.p) == (theirs.difference, theirs.stderr, theirs.p_two_sided)
        assert own.interval == pytest.approx(theirs.interval, abs=1e-8)
    adjusted = strata.holm([each.p_two_sided for each in expected])
    assert space.paired.holm([each.p for each in found]) == adjusted
    html = space.compare.summary(["a", "b", "c"], [first, *others])
    for own, p in zip(found, adjusted, strict=True):
        assert f"{100 * own.difference:+.1f}" in html and space.compare._chance(p) in html
        assert f"{100 * own.interval[0]:+.1f} to {100 * own.interval[1]:+.1f}" in html
    assert space.paired.paired({"a": Fraction(1)}, {"b": Fraction(1)}) is None


def test_chances_are_drawn_for_what_has_no_table_and_for_no_more(space, monkeypatch) -> None:
    differences = [Fraction(number % 7 - 3, number % 5 + 1) for number in range(60)]
    monkeypatch.setattr(space.paired, "MOST_BITS", 10)
    assert space.paired.sign_flip(differences) == paired.sign_flip(differences, most_bits=10).two_sided
    monkeypatch.setattr(space.paired, "MOST_DRAWN", 10)
    assert space.paired.sign_flip(differences) is None


def test_a_question_is_a_prompt_without_what_all_have(space) -> None:
    frame = "<|im_start|>user\n{}\nReason step by step.<|im_end|>\n<|im_start|>assistant\n"
    asked = {"a": "Let x be 1.\nWhat is x?", "b": "Let y be 2.\nWhat is y?", "c": "How many?"}
    prompts = {problem: frame.format(question) for problem, question in asked.items()}
    assert space.questions.without_frame(prompts) == asked
    assert space.questions.without_frame({"a": prompts["c"]}) == {
        "a": "user\nHow many?\nReason step by step. \n assistant"
    }
    assert space.questions.without_frame({"a": "same", "b": "same"}) == {"a": "same", "b": "same"}
    assert space.questions.without_frame({"a": "x\nx", "b": "x"}) == {"a": "x\nx", "b": "x"}
    assert space.questions.beginning("one\ntwo " * 40).startswith("one two one") and "…" in space.questions.beginning(
        "a" * 99
    )


def test_pieces_of_tokens_keep_their_spaces(space) -> None:
    tokenizer = Tokenizer(WordLevel({"▁Hello": 0, "▁world": 1, "!": 2}, unk_token="!"))
    tokenizer.decoder = decoders.Metaspace()
    assert space.tokens.pieces(tokenizer, [0, 1, 2, 1]) == ["Hello", " world", "!", " world"]


def test_rules_of_the_space_and_of_the_package_are_the_same(space) -> None:
    points = [(0.1, 5.0), (0.1, 7.0), (0.05, 3.0), (0.2, 7.0), (0.3, 9.0)]
    assert space.efficiency.frontier(points) == plot_efficiency.frontier(points)
    assert space.scores.ROLES == board._ORDER and space.scores.GRADED_BY == GRADED_BY
    assert {*space.scores.SETTINGS} == {*board._SETTINGS, "version"}
    files = {"b": {"sha256": "2" * 64, "size": 1}, "a": {"sha256": "1" * 64, "size": 2}}
    recorded = {name: FileRecord(**file) for name, file in files.items()}
    assert space.lineage.digest_of({"files": files}) == digest_files(recorded)
    assert {*space.runs.TRAININGS} == {*reading.TRAININGS} and space.runs.CURVES == reading.CURVES
    assert {"init", "source", "teacher"} == {*weight_roles({})[:3]} == {*space.families.WEIGHTS}
    assert {*space.places.TEXTS, *space.places.NUMBERS, "interval"} <= {*LEADERBOARD_SCHEMA.names}
    known = {name: LEADERBOARD_SCHEMA.field(name).type for name in (*space.places.TEXTS, *space.places.NUMBERS)}
    assert {name for name, kind in known.items() if pa.types.is_string(kind)} == {*space.places.TEXTS}
    samples = {field.name: field.type for schema in (SAMPLE_SCHEMA, EXTRA_COLUMNS, SIGNAL_SCHEMA) for field in schema}
    assert space.shards.TYPES.items() <= samples.items()
    shared = {"run": "r", "benchmark": "b", "version": 1, "base_repo": "base", "base_revision": "c", "step": 1,
              "checkpoint_revision": "c", "teacher_revision": "c", "avg": 0.5}  # fmt: skip
    said = [("s", "student", "t"), ("base", "base", None), ("u", "teacher", None), ("t", "teacher", None)]
    tree = [
        shared | {"checkpoint": name, "checkpoint_repo": name, "role": role, "teacher_repo": above}
        for name, role, above in said
    ]
    ((_, expected),) = board.grouped(tree)
    own = space.families.by_lineage(tree)
    assert [(depth, row["checkpoint"]) for depth, row in own] == [(depth, row["checkpoint"]) for depth, row in expected]


def test_frontier_by_hand(space) -> None:
    assert space.efficiency.frontier([(2, 5), (1, 3), (3, 4), (1, 2), (4, 6)]) == [(1, 3), (2, 5), (4, 6)]


def test_the_papers_numbers_are_those_of_the_package(space) -> None:
    expected = [
        {"table": table, "model": model, "row": name, "benchmark": column, "avg": value}
        for table, item in experiments().items()
        for model, rows in item.rows.items()
        for name, row in rows.items()
        for column, value in zip(item.columns, row.reported, strict=False)
        if value is not None and column not in ("kl_to_base", "entropy", "mean_length")
    ]
    assert space.reported.numbers() == expected


def test_files_are_a_space(space) -> None:
    folder = files("erpd_hub.spaces")
    assert {path.name for path in Path(str(folder)).iterdir() if path.is_file()} == {*spaces.FILES, "__init__.py"}
    card = SpaceCard((folder / "README.md").read_text())
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    pinned = (Path(__file__).parent.parent / "constraints-cpu.txt").read_text()
    assert f"gradio=={card.data.sdk_version}\n" in pinned
    assert f"pip install gradio=={card.data.sdk_version} " in card.text
    required = {line.partition(">")[0] for line in (folder / "requirements.txt").read_text().split()}
    brought_by_gradio = {"gradio", "markupsafe", "starlette"}
    allowed = required | brought_by_gradio | set(spaces.MODULES) | set(sys.stdlib_module_names)
    for name in spaces.MODULES:
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in modules} <= allowed, name


def test_push_to_a_hub_and_its_files_back(hub) -> None:
    commit = spaces.push(hub, "local/erpd-compare")
    info = hub.repo_info("local/erpd-compare", repo_type="space")
    assert (info.sha, info.private) == (commit, True)
    assert {*spaces.FILES} <= set(hub.list_repo_files("local/erpd-compare", repo_type="space"))
    assert json.loads(Path(hub.hf_hub_download("local/erpd-compare", "paper.json", repo_type="space")).read_text())


def test_what_the_command_cannot_do_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="expected a free port of"):
        spaces.serve({}, host="127.0.0.1", port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match="expected no --run, got micro"):
        space_command(run="micro", push=True)
    for port in ("0", "99999"):
        done = CliRunner().invoke(app, ["space", "--port", port])
        assert (done.exit_code, "--port" in done.output) == (2, True), done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_space_that_is_stopped_takes_its_server_along_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import signal, subprocess, sys\n"
        "from erpd_hub import spaces\n"
        "start = subprocess.Popen\n"
        "def started(*words, **options):\n"
        "    process = start(*words, **options)\n"
        "    print(process.pid, flush=True)\n"
        "    return process\n"
        "subprocess.Popen = started\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(spaces.serve({{}}, host='127.0.0.1', port={port}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()  # the address
    server = int(process.stdout.readline())
    time.sleep(0.2)  # from there on it waits
    process.send_signal(number)
    assert process.wait(timeout=60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def _put(space, hub: HfApi, repo: str, path: str, content: str | bytes, *, kind: str = "model") -> Any:
    """A file of a repository, and its place."""
    hub.create_repo(repo, repo_type=kind, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    commit = hub.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=repo, repo_type=kind)
    return space.places.Place(kind, repo, commit.oid)


def _tab(space, kind: Any, source: Any) -> Any:
    """A page's tab inside a page of its own."""
    import gradio as gr

    with gr.Blocks():
        scores = gr.State([])
        return kind(source) if kind is space.signals.Tab else kind(source, scores)
