"""LiveCodeBench: the reader, what it refuses to unpickle, prompts, windows, real rows and the evaluate stage."""

import base64
import json
import os
import pickle
import zlib
from datetime import date
from pathlib import Path

import pytest

from erpd_hub.config.benchmarks import LiveCodeBenchSource
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import BENCHMARKS, get_benchmark
from erpd_hub.evaluation.code.livecodebench import decode_tests, load_problems, load_tests
from erpd_hub.evaluation.code.programs import Case, Tests, grade_program
from erpd_hub.evaluation.code.strings import packed_string, pickled_string

Tests.__test__ = False  # nothing for pytest to collect
BENCHDATA = os.environ.get("ERPD_BENCHDATA")
SYSTEM_PROMPT = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests. You will NOT return anything except "
    "for the program."
)
"""evalscope's (1.12, LiveCodeBench)."""
needs_benchdata = pytest.mark.skipif(BENCHDATA is None, reason="ERPD_BENCHDATA names no folder of real benchmark rows")


def packed(value: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


def row(question: str, held: str, *, function: str | None = None, private: str | None = None) -> dict[str, str]:
    public = [{"input": "1", "output": "2", "testtype": "functional" if function else "stdin"}]
    hidden = [{"input": "20", "output": "40", "testtype": "stdin"}]
    return {
        "question_title": question,
        "question_content": f"Double it, {question}.",
        "platform": "atcoder",
        "question_id": question,
        "contest_id": "c",
        "contest_date": held,
        "starter_code": f"class Solution:\n    def {function}(self, x):\n        " if function else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": packed(json.dumps(hidden)) if private is None else private,
        "metadata": json.dumps({"func_name": function} if function else {}),
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    files = {
        "test5.jsonl": [row("a", "2024-12-28T00:00:00"), row("b", "2025-01-04T18:30:00", function="double")],
        "test6.jsonl": [row("c", "2025-02-01T00:00:00"), row("d", "2025-04-06T18:30:00")],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(item) + "\n" for item in rows))
    return tmp_path


def source(*files: str, start: date | None = None, end: date | None = None) -> LiveCodeBenchSource:
    return LiveCodeBenchSource(type="livecodebench", files=files, start=start, end=end)


def test_problems_with_evalscopes_prompt(dataset: Path) -> None:
    first, second = load_problems("lcb", source("test5.jsonl"), dataset)
    assert (first.problem_id, first.source, first.gold[:7], len(first.gold)) == ("a", "lcb", "sha256:", 71)
    assert first.problem == (
        "### Question:\nDouble it, a.\n\n### Format: Read the inputs from stdin solve the problem and write the answer "
        "to stdout (do not directly test on the sample inputs). Enclose your code within delimiters as follows.\n"
        "```python\n# YOUR CODE HERE\n```\n\n ### Answer: (use the provided format with backticks)\n\n"
    )
    assert "```python\nclass Solution:\n    def double(self, x):\n        \n```\n\n" in second.problem
    assert first.gold != second.gold


@pytest.mark.parametrize(
    ("start", "end", "ids"),
    [
        (None, None, "abcd"),
        (date(2025, 1, 4), None, "bcd"),
        (date(2025, 1, 5), date(2025, 2, 1), "c"),
        (None, date(2025, 1, 4), "a"),  # b was held that day, after midnight
        (date(2026, 1, 1), None, ""),
    ],
)
def test_windows(dataset: Path, start: date | None, end: date | None, ids: str) -> None:
    wanted = source("test5.jsonl", "test6.jsonl", start=start, end=end)
    assert "".join(problem.problem_id for problem in load_problems("lcb", wanted, dataset)) == ids
    assert len(load_tests(wanted, dataset)) == len(ids)


def test_tests_are_decoded_when_asked_for(dataset: Path) -> None:
    tests = load_tests(source("test5.jsonl", "test6.jsonl"), dataset)
    assert tests("d") == Tests("stdin", (Case("1", "2"), Case("20", "40")))
    assert tests("b") == Tests("call", (Case("1", "2"), Case("20", "40")), "double")
    assert tests("b") is tests("b")
    with pytest.raises(KeyError):
        tests("z")
    solution = "class Solution:\n    def double(self, x):\n        return 2 * x"
    assert grade_program(solution, tests("b")).outcome == "passed"
    assert grade_program("print(2 * int(input()))", tests("d")).outcome == "passed"


def test_broken_rows_are_named(dataset: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected test4\.jsonl, got no such file"):
        load_problems("lcb", source("test4.jsonl"), dataset)
    (dataset / "test4.jsonl").write_text('{"question_id": 3}\n')
    with pytest.raises(ArtifactError, match=r"test4\.jsonl line 1: expected a row of LiveCodeBench"):
        load_problems("lcb", source("test4.jsonl"), dataset)
    with pytest.raises(ArtifactError, match="question_id in each row"):
        load_problems("lcb", source("test5.jsonl", "test5.jsonl"), dataset)
    with pytest.raises(ArtifactError, match="expected the name of a function"):
        decode_tests(row("a", "2025-01-01", function="__class__"))
    for test in ({"input": "1", "output": "{1}"}, {"input": "1\nx", "output": "1"}):
        with pytest.raises(ArtifactError, match="a: expected JSON in the test of a function"):
            decode_tests(row("a", "2025-01-01", function="f", private=json.dumps([test])))
    with pytest.raises(ArtifactError, match="a: expected LiveCodeBench's tests"):
        decode_tests(row("a", "2025-01-01", private="not base64"))


class Harmful:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_string_out_of_a_pickle(protocol: int) -> None:
    for text in ("", "short", "é" * 200, "x" * 70_000):
        assert packed_string(packed(text, protocol)) == text


def test_nothing_but_a_string_is_unpickled(tmp_path: Path) -> None:
    for value in (Harmful(tmp_path / "made"), ["a"], ("a", "b"), b"a", 1, None, {"a": "b"}):
        with pytest.raises(ValueError, match="expected a pickle of one string"):
            packed_string(packed(value))
    assert not (tmp_path / "made").exists()
    for data in (b"", b"\x80\x04", b"\x80\x04.", b"X\xff\xff\xff\xffa.", b"\x8d" + b"\xff" * 8, b"cos\nsystem\n."):
        with pytest.raises(ValueError, match="expected a pickle of one string"):
            pickled_string(data)
    memo_bomb = b"\x80\x02X\x01\x00\x00\x00ar\xff\xff\xff\x7f."  # an unpickler would make room for 2^31 notes
    assert pickled_string(memo_bomb) == "a"


def test_decompression_is_bounded() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(50 << 20), 9)).decode()
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        packed_string(bomb, max_bytes=1 << 20)
    with pytest.raises(ValueError, match="part of it"):
        packed_string(packed(os.urandom(1000).hex())[:400])


def test_registered_entries() -> None:
    entries = {name: entry for name, entry in BENCHMARKS.items() if name.startswith("livecodebench")}
    assert {"livecodebench_v5", "livecodebench_v6", "livecodebench_release_v6"} <= set(entries)
    for entry in entries.values():
        assert entry.grader == "code"
        assert entry.format.template == "{problem}"
        assert entry.format.system_prompt == SYSTEM_PROMPT
        assert entry.source.revision is not None


@needs_benchdata
@pytest.mark.parametrize(("name", "file", "calls"), [("v5", "test5.jsonl", 62), ("v6", "test6.jsonl", 63)])
def test_real_rows(tmp_path: Path, name: str, file: str, calls: int) -> None:
    (tmp_path / file).symlink_to(Path(BENCHDATA or "") / f"livecodebench__code_generation_lite__{file}")
    entry = get_benchmark(f"livecodebench_{name}")
    problems = load_problems(entry.name, entry.source, tmp_path)
    tests = load_tests(entry.source, tmp_path)
    assert len(problems) == len(tests) == entry.num_problems
    every = [tests(problem.problem_id) for problem in problems]
    assert sum(test.kind == "call" for test in every) == calls
    assert all(len(test.cases) >= 2 for test in every)


SOLUTIONS = {  # by hand; (right, wrong)
    "abc387_b": (
        "x = int(input())\nprint(sum(i * j for i in range(1, 10) for j in range(1, 10) if i * j != x))",
        "x = int(input())\nprint(2025 - x)",
    ),
    "3708": (
        "class Solution:\n    def zigzagTraversal(self, grid: List[List[int]]) -> List[int]:\n"
        "        path = [v for i, r in enumerate(grid) for v in (r[::-1] if i % 2 else r)]\n        return path[::2]",
        "class Solution:\n    def zigzagTraversal(self, grid):\n        return [v for r in grid for v in r][::2]",
    ),
}


@needs_benchdata
@pytest.mark.parametrize("question", SOLUTIONS)
def test_solutions_of_real_problems(tmp_path: Path, question: str) -> None:
    path = Path(BENCHDATA or "") / "livecodebench__code_generation_lite__test6.jsonl"
    (tmp_path / "test6.jsonl").symlink_to(path)
    tests = load_tests(source("test6.jsonl"), tmp_path)(question)
    right, wrong = SOLUTIONS[question]
    assert grade_program(right, tests).outcome == "passed"
    assert grade_program(wrong, tests).outcome == "wrong answer"


def test_evaluate_runs_the_programs_of_a_model(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: the dataset on a Hub, a chat model that is right on one problem and hostile on the other."""
    from completions_server import CompletionsServer, serving

    from erpd_hub.hub.connecting import connect
    from erpd_hub.pipeline import run_plan
    from erpd_hub.plan import make_plan
    from erpd_hub.recipe import build_recipe
    from erpd_hub.samples import read_rows

    def talk(body: dict) -> dict:
        *system, user = (message["content"] for message in body["messages"])
        asked.update(system)
        code = "print(2 * int(input()))" if "Double it, c." in user else f"import os\nos.system('touch {mark}')"
        content = f"<think>```\nnot this\n```</think>Here:\n```python\n{code}\n# {body['seed']}\n```"
        return {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}

    asked: set[str] = set()
    mark = tmp_path / "pwned"
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "home"))
    hub = connect("local")
    hub.api.create_repo("me/lcb", repo_type="dataset")
    hub.api.upload_file(
        path_or_fileobj=dataset / "test6.jsonl", path_in_repo="test6.jsonl", repo_id="me/lcb", repo_type="dataset"
    )
    entry = {"like": "livecodebench_v6", "source": {"dataset": "me/lcb", "revision": None}}
    with serving(CompletionsServer()) as (server,):
        server.talk = talk
        step = {
            "checkpoints": ["endpoint:m"],
            "benchmarks": ["mine"],
            "k": 2,
            "decoding": {"max_new_tokens": 64},
            "engine": {"type": "server", "urls": [server.url], "patience": 2.0, "timeout": 20.0, "retries": 0},
        }
        recipe = {"run": "code", "threads": 1, "benchmarks": {"mine": entry}, "steps": {"evaluate": step}}
        outcome = run_plan(make_plan(build_recipe(recipe, "test")))
    done = outcome.finished[-1]
    metrics = done.record.metrics
    assert (metrics["avg"], metrics["n"], metrics["k"], metrics["share"]) == (0.5, 2, 2, "ids")
    assert metrics["majority_at_k"] == {}, "programs that are wrong cannot be equal"
    assert metrics["sandbox"].partition(":")[0] == metrics["harness"]["protection"] in ("full", "partial")
    assert metrics["harness"].keys() >= {"sandbox", "numpy"}
    folder = hub.pull("dataset", done.record.repo_id, done.revision, done.record.folder)
    rows = list(read_rows(folder))
    assert {(item["problem_id"], item["verdict"], item["label"]) for item in rows} == {
        ("c", "correct", 1),
        ("d", "wrong", 0),
    }
    assert {item["gold"] for item in rows} == {None}
    assert asked == {SYSTEM_PROMPT}
    assert not mark.exists()
