"""The Space: what it reads from a real Hub, what it makes of hostile text, what it says when something is missing."""

import ast
import importlib
import json
import math
import re
import socket
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, SpaceCard
from huggingface_hub.hf_file_system import HfFileSystemFile
from test_hub_server_process import running

from erpd_hub import spaces
from erpd_hub.cli.space import space as space_command
from erpd_hub.comparing.paper import experiments
from erpd_hub.errors import ConfigError
from erpd_hub.hub.connecting import connect
from erpd_hub.plotting import card_charts

HOSTILE = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "![a](http://evil.example/x.png)", "${1+1} {{1+1}}",
    "$\\href{javascript:alert(1)}{x}$", "$<img src=x>$", "$\\text{<script>alert(1)</script>}$", "</div></details><b>",
    "\\(\\style{background:url(http://evil.example)}{x}\\)",
    "<think><svg onload=alert(1)></think><iframe src=//evil.example>",
)  # fmt: skip
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


@pytest.mark.parametrize(
    "text", ["$" * 40_000, "\\(" * 20_000, "$x" * 20_000, r"\[" + "{" * 39_000, "$" + r"\frac" * 199 + "$"]
)
def test_no_text_takes_long(space, text: str) -> None:
    begin = time.process_time()
    space.markup.response(text)
    assert time.process_time() - begin < 20  # a guard against blow-up, far above what it takes


# ------------------------------------------------------------------------------------------------ a real run


def test_leaderboard_of_a_run_in_the_order_of_lineage(space, source, micro) -> None:
    found = source.leaderboard()
    assert found.missing == []
    measured = {(row["ref"], row["benchmark"]) for row in micro.summary["checkpoints"] if row["avg"] is not None}
    assert len(found.rows) == len(measured)
    ordered = space.leaderboard.by_lineage(found.rows)
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
        assert space.leaderboard.percent(row["avg"]) in html


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
    assert space.leaderboard.incomparable([row, alike, row | {"benchmark": "other", "version": 2}]) == []
    rows = [row, row | {"checkpoint": "e", "temperature": 0.6, "harness": '{"grader": 2}'}]
    sentence = "b: scores that differ in temperature, grader are not comparable"
    assert space.leaderboard.incomparable(rows) == [sentence]
    assert sentence in space.leaderboard.board(nowhere, rows, "AVG@K")
    overview, _ = _tab(space, space.compare.Tab, nowhere).choose(rows, "b", ["r: c", "r: e"])
    assert sentence in overview
    assert sentence in _efficiency(space).show(rows, "all", "b")[0]
    assert space.leaderboard.incomparable([row, row | {"harness": "[" * 100_000}]), "no versions at all"


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
    ordered = space.leaderboard.by_lineage(rows)
    expected = [("base", 0), ("r1/teacher", 1), ("r2/teacher", 2), ("r2/student", 3), ("r1/student", 2)]
    assert [(row["checkpoint"], depth) for depth, row in ordered] == expected
    circle = [row | {"teacher_repo": "r2/student"} if row["checkpoint"] == "r1/teacher" else row for row in rows]
    assert len(space.leaderboard.by_lineage(circle)) == len(rows)
    assert [name for name in space.dynamics.trained(rows) if "student" in name] == [
        "two: r2/student",
        "two: r1/student",
    ]
    texts = [text for trace in space.charts.efficiency(rows[:2]).data for text in trace.text or ()]
    assert texts == [f"two: {name}<br>{name}@{'c' * 10}" for name in ("r2/student", "r1/student")]


def test_compare_shows_every_sample_of_a_problem(space, source) -> None:
    rows = source.leaderboard().rows
    benchmark = rows[0]["benchmark"]
    names = [space.leaderboard.name_of(row) for row in rows if row["benchmark"] == benchmark][:2]
    tab = _tab(space, space.compare.Tab, source)
    overview, menu = tab.choose(rows, benchmark, names)
    assert "difference" in overview and menu["choices"]
    compared = [row for row in rows if row["benchmark"] == benchmark][:2]
    sides = [space.compare.means(source.index(space.places.details_place(row))) for row in compared]
    spreads = [max(values) - min(values) for _, values in space.compare.by_difference(sides)]
    assert spreads == sorted(spreads, reverse=True)
    shown, slider, address = tab.show(rows, benchmark, names, menu["value"], 1)
    assert shown.count("<section>") == 2
    assert slider["maximum"] == rows[0]["k"] - 1
    assert f"problem={menu['value']}" in address
    first = {row["role"] for row in rows if space.leaderboard.name_of(row) in tab.load(rows, {})[1]["value"]}
    assert first == {"base", "student"}
    query = {"benchmark": [benchmark], "checkpoint": names, "problem": [menu["value"]], "k": ["1"]}
    *_, problem, again, slider, _ = tab.load(rows, query)
    assert (problem["value"], again, slider["value"]) == (menu["value"], shown, 1)


def test_signal_tokens_together_are_the_response(space, source) -> None:
    (repo, sha), *_ = source.datasets("signal")
    place = space.places.Place("dataset", repo, sha)
    problem = source.index(place).table["problem_id"][0].as_py()
    (row,) = source.signal_row(place, problem, 0).rows
    record = source.record(place)
    tab = _tab(space, space.signals.Tab, source)
    rollouts = space.places.input_of(record, "rollouts")
    texts, note = tab._texts(record, rollouts, problem, 0, len(row["signal"]))
    (sample,) = [each for each in source.samples(rollouts, problem).rows if each["k"] == 0]
    assert note == []
    assert "".join(texts).startswith(sample["text"])
    html = tab.show(f"{repo}@{sha}", problem, 0, "signal")
    assert html.count('<span class="t"') == len(row["signal"])
    assert "noise floor" in tab.choose(f"{repo}@{sha}")[2].layout.title.text


def test_curves_and_efficiency_draw_what_was_recorded(space, source) -> None:
    rows = source.leaderboard().rows
    tab = _tab(space, space.dynamics.Tab, source)
    names = list(space.dynamics.trained(rows))
    missing, figure = tab.show(rows, names)
    assert missing == "" and len(figure.data) >= len(names)
    assert min(trace.x[0] for trace in figure.data) == 0, "a line stands at the steps taken before it"
    efficiency = space.charts.efficiency(rows)
    drawn = sum(len(trace.x) for trace in efficiency.data if "frontier" not in trace.name)
    assert drawn == sum((row["kl_checkpoint_to_base"] or 0) > 0 for row in rows)


def test_efficiency_says_what_it_does_not_draw_and_joins_one_base_only(space) -> None:
    rows = [
        {"run": "r", "checkpoint": f"{base}{kl}", "checkpoint_repo": f"{base}{kl}", "benchmark": "b", "role": "student",
         "avg": 0.1 + kl, "kl_checkpoint_to_base": kl, "base_repo": base}
        for base in ("one", "two") for kl in (0.0, 0.1, 0.2)
    ]  # fmt: skip
    base = {"run": "r", "checkpoint": "base", "benchmark": "b", "role": "base", "avg": 0.1}
    text, figure = _efficiency(space).show([*rows, base, rows[1] | {"kl_checkpoint_to_base": None}], "all", "b")
    assert "not drawn, for no measured KL to base: r: one0.1<br>" in text
    assert text.endswith("for a KL of 0 to base, which has no place on a logarithm: r: one0.0, r: two0.0</div>")
    frontiers = {trace.name: len(trace.x) for trace in figure.data if "frontier" in trace.name}
    assert sorted(frontiers.values()) == [2, 2] and len(frontiers) == 2
    text, figure = _efficiency(space).show([], "all", None)
    assert "no checkpoint" in text and figure is None


def test_dynamics_show_what_the_pictures_of_cards_show(space, hub) -> None:
    keys = [tuple(keys) for _, keys in space.dynamics.PANELS]
    assert keys[: len(card_charts._PANELS)] == [tuple(keys) for _, keys in card_charts._PANELS]
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "reward": 0.3}, {"step": "x", "loss": "y"}]
    place = _put(space, hub, "local/trained", "dynamics.jsonl", "\n".join(map(json.dumps, lines)))
    row = {"run": "r", "checkpoint": "c", "role": "online", "checkpoint_repo": place.repo_id,
           "checkpoint_revision": place.revision}  # fmt: skip
    source = space.data.Source(hub, "local")
    text, figure = _tab(space, space.dynamics.Tab, source).show([row], ["r: c"])
    drawn = {trace.hovertemplate.partition(",")[0]: (trace.x, trace.y) for trace in figure.data}
    assert text == "" and drawn == {"reward": ((1,), (0.3,)), "loss": ((0, 1), (1.0, 0.5))}
    assert sum(bool(trace.showlegend) for trace in figure.data) == 1


def test_a_histogram_reads_no_more_tokens_than_it_says(space) -> None:
    asked: list[int] = []

    def groups() -> Iterator[pa.Table]:
        for number in range(3):
            asked.append(number)
            values = [[0.5] * 10, None, [float("inf")] * 10, [0.25] * 10]
            yield pa.table({"label": pa.array([1, 0, 0, None], pa.int8()), "signal": values})

    found, tokens, whole = space.signals.beginning(groups(), 45)
    assert ([group.num_rows for group in found], tokens, whole, asked) == ([4, 2], 40, False, [0, 1])
    assert space.signals.beginning(groups(), 90)[1:] == (90, True)
    spread = space.signals.spread(found)
    assert (len(spread["right responses"]), len(spread["first tokens"])) == (20, 3)
    assert "wrong responses" not in spread, "what is not finite is in no bin"


def test_lineage_draws_all_ancestors_and_ticks_them(space, source) -> None:
    rows = source.leaderboard().rows
    student = next(row for row in rows if row["role"] == "student")
    most = space.lineage.MOST_NODES
    graph = source.closure([space.places.checkpoint_place(student)], most)
    assert all(graph.values())
    position = {place: number for number, column in enumerate(space.lineage.layers(graph)) for place in column}
    for place, record in graph.items():
        assert space.lineage.problems_of(source, place, graph) == []
        assert all(
            position[above] < position[place] for _, above in space.places.inputs_of(record) if above in position
        )
    altered = {**graph, place: {**graph[place], "files": {"model.safetensors": {"sha256": "0" * 64, "size": 1}}}}
    assert "its digest does not follow from its files" in space.lineage.problems_of(source, place, altered)
    assert space.lineage.drawing(source, graph, {}).count("<rect") == len(graph)
    tab = _tab(space, space.lineage.Tab, source)
    whole = tab.load(rows, {})[0]["value"]
    every = source.closure([space.places.checkpoint_place(row) for row in rows], most)
    assert len(source.closure([space.places.checkpoint_place(student)], 2)) == 3
    assert tab.show(rows, whole).count("<rect") == len(every) > len(graph)


def test_an_edge_goes_between_the_boxes_that_it_passes(space, nowhere) -> None:
    above = {"a": "", "b": "a", "c": "ab", "d": "ac"}
    place = {name: space.places.Place("model", f"local/{name}", "main") for name in above}
    told = {name: {"repo_type": "model", "repo_id": f"local/{name}", "revision": "main"} for name in above}
    graph = {
        place[name]: {"stage": "t", "inputs": [{"role": one} | told[one] for one in names]}
        for name, names in above.items()
    }
    passes = [[each for each in row if each not in graph] for row in space.lineage.layers(graph)]
    assert passes == [[], [(place["a"], 1)], [(place["a"], 2)], []]
    drawing = space.lineage.drawing(nowhere, graph, {})
    boxes = [tuple(map(int, at)) for at in re.findall(r"translate\((\d+),(\d+)\)", drawing)]
    for x, top, bottom in re.findall(r" (\d+) (\d+)V(\d+)", drawing.replace(" V", "V")):
        beside = [left for left, y in boxes if y == int(top) and int(bottom) == y + space.lineage.HEIGHT]
        assert beside and not any(left <= int(x) <= left + space.lineage.WIDTH for left in beside)
    circle = graph | {place["a"]: graph[place["d"]]}
    assert space.lineage.drawing(nowhere, circle, {}).count("<rect") == 4


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
        raise space.data.TRANSPORT_ERROR("gone")  # as the client does after its own tries, which take a while

    monkeypatch.setattr(source.api, "list_datasets", gone)
    assert _tab(space, space.signals.Tab, source).load([], {})[0]["choices"] == []


def test_a_hundred_thousand_samples_are_read_by_what_is_shown(space, hub, tmp_path: Path, monkeypatch) -> None:
    shard = tmp_path / "train-00000.parquet"
    text = [f"{number} " + "word " * 400 for number in range(1000)]
    with pq.ParquetWriter(shard, _table(0, text).schema) as writer:
        for group in range(100):
            writer.write_table(_table(group, text))
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
    counting = lambda file, start, end: read.append(end - start) or fetch(file, start, end)  # noqa: E731
    monkeypatch.setattr(HfFileSystemFile, "_fetch_range", counting)
    place = space.places.Place("dataset", "local/details", commit.oid, "a")
    assert source.index(place).table.num_rows == 100_000
    (row,) = source.samples(place, "p57-3").rows
    assert row["text"].startswith("3 word")
    assert sum(read) < shard.stat().st_size / 2


def _table(group: int, text: list[str]) -> pa.Table:
    count = len(text)
    noise = [f"{hash((group, number)) & (1 << 128) - 1:032x}{line}" for number, line in enumerate(text)]
    return pa.table({
        "problem_id": [f"p{group}-{number}" for number in range(count)], "k": pa.array([0] * count, pa.int32()),
        "label": pa.array([number % 2 for number in range(count)], pa.int8()), "verdict": ["wrong"] * count,
        "text": text, "sampler": noise,
    })  # fmt: skip


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
        raise space.data.TRANSPORT_ERROR("gone")

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
        assert tab.choose(f"{repo}@{place.revision}")[2] is not None, "not finite, and still a page"


def test_an_address_that_names_what_is_not_there_is_told(space, nowhere) -> None:
    rows = [{"run": "r", "checkpoint": name, "benchmark": "b", "avg": 0.5} for name in ("c", "d")]
    query = {"benchmark": ["gone"], "checkpoint": ["r: c", "r: <b>"], "problem": ["p"], "k": ["9" * 5000]}
    _, _, overview, *_ = _tab(space, space.compare.Tab, nowhere).load(rows, query)
    named = ("the benchmark gone,", "the checkpoint r: &lt;b&gt;,", "the problem p,")
    assert all(f"the address names {name} which is not among these" in overview for name in named)
    assert "names the checkpoint r: c" not in overview
    assert space.app._first({"tab": ["gone"]}) == "leaderboard"


# ------------------------------------------------------------------------------------------------ its files


def test_paired_summary_by_hand(space) -> None:
    pair = space.compare.paired({"a": 0.0, "b": 0.5, "c": 1.0}, {"a": 1.0, "b": 0.5, "d": 1.0})
    assert (pair.problems, pair.difference, pair.better, pair.worse) == (2, 0.5, 1, 0)
    assert pair.stderr == pytest.approx(0.5)
    assert space.compare.paired({"a": 1.0}, {"b": 1.0}) is None


def test_frontier_by_hand(space) -> None:
    assert space.charts.frontier([(2, 5), (1, 3), (3, 4), (1, 2), (4, 6)]) == [(1, 3), (2, 5), (4, 6)]


def test_the_papers_numbers_are_those_of_the_package(space) -> None:
    expected = [
        {"table": table, "model": model, "row": name, "benchmark": column, "avg": value}
        for table, item in experiments().items()
        for model, rows in item.rows.items()
        for name, row in rows.items()
        for column, value in zip(item.columns, row.reported, strict=False)
        if value is not None and column not in ("kl_to_base", "entropy", "mean_length")
    ]
    assert space.leaderboard.reported() == expected


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


def _put(space, hub: HfApi, repo: str, path: str, content: str | bytes, *, kind: str = "model") -> Any:
    """A file of a repository, and its place."""
    hub.create_repo(repo, repo_type=kind, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    commit = hub.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=repo, repo_type=kind)
    return space.places.Place(kind, repo, commit.oid)


def _efficiency(space) -> Any:
    import gradio as gr

    with gr.Blocks():
        return space.dynamics.EfficiencyTab(gr.State([]))


def _tab(space, kind: Any, source: Any) -> Any:
    """A page's tab inside a page of its own."""
    import gradio as gr

    with gr.Blocks():
        scores = gr.State([])
        return kind(source) if kind is space.signals.Tab else kind(source, scores)
