"""The Space: what it reads from a real Hub, what it makes of hostile text, what it says when something is missing."""

import ast
import importlib
import json
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
from erpd_hub.comparing.paper import experiments
from erpd_hub.hub.connecting import connect

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
    sides = [space.compare.means(source.index(space.data.details_place(row))) for row in compared]
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
    place = space.data.Place("dataset", repo, sha)
    problem = source.index(place).table["problem_id"][0].as_py()
    (row,) = source.signal_row(place, problem, 0).rows
    record = source.record(place)
    tab = _tab(space, space.signals.Tab, source)
    rollouts = space.data.input_of(record, "rollouts")
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
    efficiency = space.charts.efficiency(rows)
    drawn = sum(len(trace.x) for trace in efficiency.data if trace.name != "frontier")
    assert drawn == sum((row["kl_checkpoint_to_base"] or 0) > 0 for row in rows)


def test_lineage_draws_all_ancestors_and_ticks_them(space, source) -> None:
    rows = source.leaderboard().rows
    student = next(row for row in rows if row["role"] == "student")
    graph = source.closure([space.data.checkpoint_place(student)])
    assert all(graph.values())
    position = {place: number for number, column in enumerate(space.lineage.layers(graph)) for place in column}
    for place, record in graph.items():
        assert space.lineage.problems_of(source, place, graph) == []
        assert all(position[above] < position[place] for _, above in space.data.inputs_of(record) if above in position)
    altered = {**graph, place: {**graph[place], "files": {"model.safetensors": {"sha256": "0" * 64, "size": 1}}}}
    assert "its digest does not follow from its files" in space.lineage.problems_of(source, place, altered)
    assert space.lineage.drawing(source, graph, {}).count("<rect") == len(graph)
    tab = _tab(space, space.lineage.Tab, source)
    whole = tab.load(rows, {})[0]["value"]
    every = source.closure([space.data.checkpoint_place(row) for row in rows])
    assert tab.show(rows, whole).count("<rect") == len(every) > len(graph)


# ------------------------------------------------------------------------------------------------ what is not there


def test_what_is_missing_is_said(space, source) -> None:
    nobody = space.data.Source(source.api, "nobody")
    assert "dataset nobody/erpd-leaderboard" in nobody.leaderboard().missing[0]
    other = space.data.Source(source.api, "local", run="no-such-run")
    assert "no row of the run no-such-run" in other.leaderboard().missing[0]
    place = space.data.Place("dataset", "local/gone", "main", "a")
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


def test_a_hundred_thousand_samples_are_read_by_what_is_shown(space, tmp_path: Path, monkeypatch) -> None:
    shard = tmp_path / "train-00000.parquet"
    text = [f"{number} " + "word " * 400 for number in range(1000)]
    with pq.ParquetWriter(shard, _table(0, text).schema) as writer:
        for group in range(100):
            writer.write_table(_table(group, text))
    with running(tmp_path) as url:
        api = HfApi(endpoint=url, token=False)
        api.create_repo("local/details", repo_type="dataset")
        commit = api.upload_file(
            path_or_fileobj=shard,
            path_in_repo="a/data/train-00000.parquet",
            repo_id="local/details",
            repo_type="dataset",
        )
        source = space.data.Source(api, "local")
        read: list[int] = []
        fetch = HfFileSystemFile._fetch_range
        counting = lambda file, start, end: read.append(end - start) or fetch(file, start, end)  # noqa: E731
        monkeypatch.setattr(HfFileSystemFile, "_fetch_range", counting)
        place = space.data.Place("dataset", "local/details", commit.oid, "a")
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
    required = {line.partition(">")[0] for line in (folder / "requirements.txt").read_text().split()}
    brought_by_gradio = {"gradio", "markupsafe", "starlette"}
    allowed = required | brought_by_gradio | set(spaces.MODULES) | set(sys.stdlib_module_names)
    for name in spaces.MODULES:
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in modules} <= allowed, name


def test_push_to_a_hub_and_its_files_back(tmp_path: Path) -> None:
    with running(tmp_path) as url:
        api = HfApi(endpoint=url, token=False)
        commit = spaces.push(api, "local/erpd-compare")
        info = api.repo_info("local/erpd-compare", repo_type="space")
        assert (info.sha, info.private) == (commit, True)
        assert {*spaces.FILES} <= set(api.list_repo_files("local/erpd-compare", repo_type="space"))
        assert json.loads(Path(api.hf_hub_download("local/erpd-compare", "paper.json", repo_type="space")).read_text())


def _tab(space, kind: Any, source: Any) -> Any:
    """A page's tab inside a page of its own."""
    import gradio as gr

    with gr.Blocks():
        scores = gr.State([])
        return kind(source) if kind is space.signals.Tab else kind(source, scores)
