"""The Space: what it reads, what it says when something is missing, and that its page can be built."""

import ast
import importlib
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import SpaceCard
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from erpd_hub import spaces
from erpd_hub.spaces import data

HOSTILE = "<img src=x onerror=alert(1)> **bold** ${1+1}"


class FolderApi:
    """Stands where HfApi does: a folder of datasets instead of a Hub."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def snapshot_download(self, repo_id: str, **_: Any) -> str:
        if not (self.root / repo_id).is_dir():
            raise LocalEntryNotFoundError("no such dataset")
        return str(self.root / repo_id)


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def a_score(run: str, role: str, benchmark: str = "toy") -> dict:
    return {
        "run": run, "role": role, "checkpoint": role, "step": None, "benchmark": benchmark, "avg": 0.5, "stderr": 0.012,
        "k": 2, "n": 2, "kl_checkpoint_to_base": None if role == "base" else 0.0123, "mean_length": 9.4,
        "truncated": 0.25, "details_repo": f"local/{run}-details", "details_folder": f"{role}/{benchmark}",
        "details_revision": "a" * 40,
    }  # fmt: skip


def a_sample(problem: str, k: int, text: str) -> dict:
    return {"problem_id": problem, "k": k, "text": text, "gold": "3", "extracted": HOSTILE, "verdict": "wrong",
            "label": 0, "finish_reason": "stop", "response_ids": [1, 2, 3]}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> data.Source:
    scores = [a_score("b-run", "student"), a_score("a-run", "student"), a_score("a-run", "base")]
    write(tmp_path / "local/erpd-leaderboard/data/train-00000.parquet", scores)
    for role, problems in (("base", ("p1", "p2")), ("student", ("p2", "p3"))):
        rows = [a_sample(p, k, f"{role} {p} {k} {HOSTILE}") for p in problems for k in (1, 0)]
        write(tmp_path / f"local/a-run-details/{role}/toy/data/train-00000.parquet", rows)
    return data.Source(FolderApi(tmp_path), "local")  # type: ignore[arg-type]


@pytest.fixture
def app_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """app.py as a Space has it: a top-level script beside its siblings."""
    monkeypatch.syspath_prepend(str(files("erpd_hub.spaces").joinpath("app.py")).removesuffix("/app.py"))
    yield importlib.import_module("app")
    for name in ("app", "data"):
        sys.modules.pop(name, None)


def test_leaderboard_is_grouped_by_run(source: data.Source) -> None:
    found = source.leaderboard()
    assert found.missing == []
    assert [(row["run"], row["role"]) for row in found.rows] == [
        ("a-run", "base"), ("a-run", "student"), ("b-run", "student"),
    ]  # fmt: skip
    table = data.score_table(found.rows)
    assert table[0] == ["a-run", "toy", "base", "base", "50.0 ± 1.2", 2, 2, "-", "9", "25.0"]
    assert table[1][7] == "0.0123"
    assert all(len(row) == len(data.SCORE_HEADERS) for row in table)


def test_label_names_a_step_once() -> None:
    score = a_score("r", "teacher") | {"step": 20}
    assert data.label(score) == "r: teacher@step-20"
    assert data.label(score | {"checkpoint": "teacher@step-20"}) == "r: teacher@step-20"


def test_samples_of_a_score(source: data.Source) -> None:
    found = source.samples(a_score("a-run", "base"))
    assert found.missing == []
    assert [row["k"] for row in data.of_problem(found.rows, "p1")] == [0, 1]
    assert data.sample_table(found.rows)[0] == [1, "wrong", HOSTILE, 3, "stop"]
    assert "response_ids" not in found.rows[0]


def test_what_is_missing_is_said(source: data.Source, tmp_path: Path) -> None:
    assert data.Source(source.api, "nobody").leaderboard().missing == [
        "dataset nobody/erpd-leaderboard: the Hub does not answer"
    ]
    assert source.samples(a_score("b-run", "student")).missing == [
        "dataset local/b-run-details: the Hub does not answer"
    ]
    assert "no teacher/toy/data/*.parquet" in source.samples(a_score("a-run", "teacher")).missing[0]
    assert "names no details" in source.samples({"run": "r", "checkpoint": "x"}).missing[0]
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no")
    write(tmp_path / "other.parquet", [{"problem_id": "p"}])
    found = data.read_parquet([broken, tmp_path / "other.parquet"], ["problem_id", "k"])
    assert found.rows == [{"problem_id": "p", "k": None}]
    assert found.missing == ["broken.parquet: not a readable parquet file", "column k: not in the dataset"]


@pytest.mark.parametrize(("status", "reason"), [(404, "not found"), (401, "without a token"), (503, "answered 503")])
def test_a_refusal_is_said_without_the_address(status: int, reason: str) -> None:
    class Refusing:
        def snapshot_download(self, repo_id: str, **_: Any) -> str:
            request = httpx.Request("GET", "http://hub.internal/api")
            raise HfHubHTTPError("http://hub.internal said no", response=httpx.Response(status, request=request))

    (sentence,) = data.Source(Refusing(), "local").leaderboard().missing  # type: ignore[arg-type]
    assert sentence.startswith("dataset local/erpd-leaderboard: ")
    assert reason in sentence
    assert "hub.internal" not in sentence


def test_page_handlers(app_module: ModuleType, source: data.Source) -> None:
    app = app_module.App(source)
    scores, notice, runs, _, table, benchmarks = app.load()
    assert (len(scores), len(table), notice["visible"]) == (3, 3, False)
    assert runs["choices"] == ["all", "a-run", "b-run"]
    assert benchmarks["value"] == "toy"
    assert len(app.filter_scores(scores, "a-run", "all")) == 2
    left, right = app.choose_benchmark(scores, "toy")
    assert (left["value"], right["value"]) == ("a-run: base", "b-run: student")
    base, student, notice, problems = app.choose_pair(scores, "toy", "a-run: base", "a-run: student")
    assert (problems["choices"], problems["value"], notice["visible"]) == (["p2"], "p2", False)
    gold, slider, *tables, first, second = app.show_problem(base, student, "p2")
    assert (gold, slider["maximum"], len(tables[0]), len(tables[1])) == ("3", 1, 2, 2)
    assert (first, second) == (f"base p2 0 {HOSTILE}", f"student p2 0 {HOSTILE}")
    assert app.show_sample(base, student, "p2", 1)[0].startswith("base p2 1")


def test_handlers_with_nothing_there(app_module: ModuleType, tmp_path: Path) -> None:
    app = app_module.App(data.Source(FolderApi(tmp_path), "local"))  # type: ignore[arg-type]
    scores, notice, *_ = app.load()
    assert scores == []
    assert "erpd-leaderboard" in notice["value"]
    assert app.choose_pair(scores, None, None, None)[:2] == ([], [])
    assert app.show_problem([], [], None)[-2:] == ("", "")


def test_page_shows_data_as_text_only(app_module: ModuleType, source: data.Source) -> None:
    blocks = app_module.build(source)
    components = [block["type"] for block in blocks.config["components"]]
    assert components.count("markdown") == 1  # the title
    assert "html" not in components
    tables = [block["props"] for block in blocks.config["components"] if block["type"] == "dataframe"]
    assert [table["datatype"] for table in tables] == ["str"] * 3


def test_files_are_a_space() -> None:
    folder = files("erpd_hub.spaces")
    card = SpaceCard((folder / "README.md").read_text())
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    pinned = (Path(__file__).parent.parent / "constraints-cpu.txt").read_text()
    assert f"gradio=={card.data.sdk_version}\n" in pinned
    siblings = {name.removesuffix(".py") for name in spaces.FILES if name.endswith(".py")}
    allowed = {"gradio", "huggingface_hub", "pyarrow", *siblings, *sys.stdlib_module_names}
    for name in siblings:
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in modules} <= allowed


def test_push_uploads_the_files_in_one_commit() -> None:
    calls: list[tuple] = []

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append((repo_id, options["private"], options["space_sdk"]))

        def create_commit(self, repo_id: str, operations: list, **options: Any) -> Any:
            calls.append((repo_id, [operation.path_in_repo for operation in operations], options["repo_type"]))
            return type("Commit", (), {"oid": "a" * 40})

    assert spaces.push(Api(), "local/erpd-compare") == "a" * 40  # type: ignore[arg-type]
    assert calls == [
        ("local/erpd-compare", True, "gradio"),
        ("local/erpd-compare", list(spaces.FILES), "space"),
    ]
